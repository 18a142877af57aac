// The reference: plain C11, one output pixel after the other. Read this first; the others must agree with it.

#include "kernels.h"
#include "scalar_locate.h"

enum { BLOCK = 16 };  // channels that are summed up at once

static void locate_all(const AcwfaceDeform* layer, int32_t pixel, Sample* samples) {
    const int32_t y = pixel / layer->width, x = pixel % layer->width;
    const float* logit = predicted_at(layer, y, x) + 2 * ACWFACE_TAPS * layer->predicted_channel;
    for (int k = 0; k < ACWFACE_TAPS; k++, logit += layer->predicted_channel) samples[k] = locate(layer, y, x, k, modulator(*logit));
}

static float activated(const AcwfaceDeform* layer, int32_t channel, float sum) {
    const float value = layer->bias[channel] + sum;
    return value > 0.0f ? value : layer->negative_slope * value;
}

static void sample(const AcwfaceDeformSample* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    for (int32_t p = first; p < last; p++) {
        Sample samples[ACWFACE_TAPS];
        locate_all(layer, p, samples);
        for (int32_t begin = 0; begin < layer->channels; begin += BLOCK) {
            const int32_t count = layer->channels - begin < BLOCK ? layer->channels - begin : BLOCK;
            float sum[BLOCK] = {0.0f};
            for (int k = 0; k < ACWFACE_TAPS; k++)
                for (int c = 0; c < 4; c++) {
                    const float weight = samples[k].weight[c];
                    const float* from = op->mixed + samples[k].pixel[c] * op->mixed_pixel + (ptrdiff_t)k * layer->channels + begin;
                    for (int32_t o = 0; o < count; o++) sum[o] += weight * from[o];
                }
            for (int32_t o = 0; o < count; o++)
                layer->out[p * layer->out_pixel + (begin + o) * layer->out_channel] = activated(layer, begin + o, sum[o]);
        }
    }
}

static void tiled(const AcwfaceDeformTiled* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    for (int32_t p = first; p < last; p++) {
        Sample samples[ACWFACE_TAPS];
        locate_all(layer, p, samples);
        for (int32_t begin = 0; begin < layer->channels; begin += BLOCK) {
            const int32_t count = layer->channels - begin < BLOCK ? layer->channels - begin : BLOCK;
            float sum[BLOCK] = {0.0f};
            for (int k = 0; k < ACWFACE_TAPS; k++)
                for (int32_t i = 0; i < op->in_channels; i++) {
                    const float* weight = op->weight + ((ptrdiff_t)k * op->in_channels + i) * layer->channels + begin;
                    float value = 0.0f;
                    for (int c = 0; c < 4; c++) value += samples[k].weight[c] * op->in[samples[k].pixel[c] * op->in_pixel + i];
                    for (int32_t o = 0; o < count; o++) sum[o] += value * weight[o];
                }
            for (int32_t o = 0; o < count; o++)
                layer->out[p * layer->out_pixel + (begin + o) * layer->out_channel] = activated(layer, begin + o, sum[o]);
        }
    }
}

// F(2x2, 3x3) of Winograd, as Lavin and Gray 2016 (section 4.1) write it: A^T (G g G^T * B^T d B) A, summed over input channels.
// Each row of B^T takes one element, and adds or subtracts another.
static const struct {
    int first, second;
    float sign;
} BT[4] = {{0, 2, -1.0f}, {1, 2, 1.0f}, {2, 1, -1.0f}, {1, 3, -1.0f}};
static const float AT[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};

static float input_pixel(const AcwfaceConv3x3* op, int32_t y, int32_t x, int32_t channel) {
    if (y < 0 || y >= op->height || x < 0 || x >= op->width) return 0.0f;
    return op->in[((ptrdiff_t)y * op->width + x) * op->in_pixel + channel];
}

// B^T d B at one point, for the tile whose 4x4 input pixels begin at (top, left).
static float input_point(const AcwfaceConv3x3* op, int32_t top, int32_t left, int32_t channel, int point) {
    const int32_t y[2] = {top + BT[point / 4].first, top + BT[point / 4].second};
    const int32_t x[2] = {left + BT[point % 4].first, left + BT[point % 4].second};
    float rows[2];
    for (int i = 0; i < 2; i++) rows[i] = input_pixel(op, y[i], x[0], channel) + BT[point % 4].sign * input_pixel(op, y[i], x[1], channel);
    return rows[0] + BT[point / 4].sign * rows[1];
}

static void conv3x3(const AcwfaceConv3x3* op, int32_t first, int32_t last) {
    const int32_t padded = acwface_padded(op->out_channels), columns = (op->width + 1) / 2;
    const float* bias = op->weight + (ptrdiff_t)ACWFACE_POINTS * op->in_channels * padded;
    for (int32_t tile = first; tile < last; tile++) {
        const int32_t top = tile / columns * 2, left = tile % columns * 2;
        for (int32_t begin = 0; begin < padded; begin += BLOCK) {
            float sums[ACWFACE_POINTS][BLOCK] = {{0.0f}};
            for (int p = 0; p < ACWFACE_POINTS; p++)
                for (int32_t i = 0; i < op->in_channels; i++) {
                    const float value = input_point(op, top - 1, left - 1, i, p);
                    const float* weight = op->weight + ((ptrdiff_t)p * op->in_channels + i) * padded + begin;
                    for (int o = 0; o < BLOCK; o++) sums[p][o] += value * weight[o];
                }
            for (int pixel = 0; pixel < 4; pixel++) {
                const int32_t y = top + pixel / 2, x = left + pixel % 2;
                if (y >= op->height || x >= op->width) continue;
                float* out = op->out + ((ptrdiff_t)y * op->width + x) * op->out_pixel;
                for (int32_t o = begin; o < begin + BLOCK && o < op->out_channels; o++) {
                    out[o] = bias[o];
                    for (int p = 0; p < ACWFACE_POINTS; p++) out[o] += AT[pixel / 2][p / 4] * AT[pixel % 2][p % 4] * sums[p][o - begin];
                }
            }
        }
    }
}

const AcwfaceKernel acwface_scalar = {"scalar", sample, tiled, conv3x3};

// The reference: plain C11, one output pixel after the other. Read this first; the others must agree with it.

#include <math.h>

#include "kernels.h"

enum { BLOCK = 16 };  // channels that are summed up at once

// A bilinear sample: the four pixels round a point, row by row. One outside the image has weight 0 and the index of some pixel in it.
typedef struct {
    int32_t pixel[4];
    float weight[4];
} Sample;

// Where tap k of output pixel (y, x) samples, and with what weights; its modulator is in them.
static Sample locate(const AcwfaceDeform* layer, int32_t y, int32_t x, int k) {
    const float* predicted = layer->predicted + ((ptrdiff_t)y * layer->width + x) * layer->predicted_pixel;
    float dy = predicted[(2 * k) * layer->predicted_channel], dx = predicted[(2 * k + 1) * layer->predicted_channel];
    const float modulator = 2.0f / (1.0f + expf(-predicted[(2 * ACWFACE_TAPS + k) * layer->predicted_channel]));
    const float limit = layer->offset_limit;
    dy = dy < -limit ? -limit : dy > limit ? limit : dy;  // NaN stays
    dx = dx < -limit ? -limit : dx > limit ? limit : dx;
    const float at_y = (float)(y + k / 3 - 1) + dy, at_x = (float)(x + k % 3 - 1) + dx;

    Sample sample = {{0, 0, 0, 0}, {0.0f, 0.0f, 0.0f, 0.0f}};
    if (!(at_y > -1.0f && at_y < (float)layer->height && at_x > -1.0f && at_x < (float)layer->width)) {  // also if one is NaN
        for (int c = 0; c < 4; c++) sample.weight[c] *= modulator;  // NaN stays
        return sample;
    }
    const int32_t top = (int32_t)floorf(at_y), left = (int32_t)floorf(at_x);
    const float down = at_y - (float)top, right = at_x - (float)left;
    for (int c = 0; c < 4; c++) {
        const int32_t row = top + c / 2, column = left + c % 2;
        if (row < 0 || row >= layer->height || column < 0 || column >= layer->width) continue;
        sample.pixel[c] = row * layer->width + column;
        sample.weight[c] = modulator * (c / 2 ? down : 1.0f - down) * (c % 2 ? right : 1.0f - right);
    }
    return sample;
}

static float activated(const AcwfaceDeform* layer, int32_t channel, float sum) {
    const float value = layer->bias[channel] + sum;
    return value > 0.0f ? value : layer->negative_slope * value;
}

static void sample(const AcwfaceDeformSample* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    for (int32_t p = first; p < last; p++) {
        Sample samples[ACWFACE_TAPS];
        for (int k = 0; k < ACWFACE_TAPS; k++) samples[k] = locate(layer, p / layer->width, p % layer->width, k);
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
        for (int k = 0; k < ACWFACE_TAPS; k++) samples[k] = locate(layer, p / layer->width, p % layer->width, k);
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

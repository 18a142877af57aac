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
        for (int c = 0; c < 4; c++) sample.weight[c] *= modulator;                                     // NaN stays
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

static void conv(const AcwfaceDeformConv* op, int32_t first, int32_t last) {
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

const AcwfaceKernel acwface_scalar = {"scalar", sample, conv};

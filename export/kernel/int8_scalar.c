// The reference for INT8: plain C11, one output after the other. Read this first; the others must agree with it.

#include "int8_weights.h"
#include "scalar_locate.h"

static int32_t weight_at(const AcwfaceInt8Weights* weights, int k, int32_t i, int32_t o) {
    return weights->weight[((ptrdiff_t)(k * weights->inputs + i) / 4 * weights->outputs + o) * 4 + i % 4];
}

// exp(87) is about as large as a float can be.
static float logit_of(const AcwfaceDeform* layer, const float* predicted, int k) {
    const float logit = predicted[(2 * ACWFACE_TAPS + k) * layer->predicted_channel];
    return logit > -87.0f ? logit < 87.0f ? logit : 87.0f : -87.0f;  // NaN is -87
}

static void deform(const AcwfaceInt8Deform* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    const AcwfaceInt8Weights weights = acwface_int8_weights(op->weight, op->in_channels, layer->channels);
    for (int32_t p = first; p < last; p++) {
        const int32_t y = p / layer->width, x = p % layer->width;
        const float* predicted = predicted_at(layer, y, x);
        float greatest = 0.0f;
        for (int k = 0; k < ACWFACE_TAPS; k++) greatest = fmaxf(greatest, modulator(logit_of(layer, predicted, k)));
        int32_t pixel[ACWFACE_TAPS][4], share[ACWFACE_TAPS][4], rest[ACWFACE_TAPS];
        for (int k = 0; k < ACWFACE_TAPS; k++) {
            const Sample sample = locate(layer, y, x, k, 254.0f * (modulator(logit_of(layer, predicted, k)) / greatest));
            rest[k] = op->in_zero * 256 + 128;
            for (int c = 0; c < 4; c++) {
                pixel[k][c] = sample.pixel[c];
                share[k][c] = (int32_t)(sample.weight[c] + 0.5f);
                rest[k] -= op->in_zero * share[k][c];
            }
        }
        for (int32_t o = 0; o < layer->channels; o++) {
            int32_t sum = 0;
            for (int k = 0; k < ACWFACE_TAPS; k++)
                for (int32_t i = 0; i < op->in_channels; i++) {
                    int32_t value = rest[k];
                    for (int c = 0; c < 4; c++) value += share[k][c] * op->in[pixel[k][c] * op->in_pixel + i];
                    sum += weight_at(&weights, k, i, o) * (value / 256 - op->in_zero);
                }
            float value = greatest * (256.0f / 254.0f) * weights.scale[o] * (float)sum + weights.bias[o];
            value = rintf(value > 0.0f ? value : layer->negative_slope * value) + (float)op->out_zero;
            op->out[p * op->out_pixel + o] = (uint8_t)fmaxf(0.0f, fminf(value, 255.0f));
        }
    }
}

static void conv3x3(const AcwfaceInt8Conv3x3* op, int32_t first, int32_t last) {
    const AcwfaceInt8Weights weights = acwface_int8_weights(op->weight, op->in_channels, op->out_channels);
    for (int32_t p = first; p < last; p++)
        for (int32_t o = 0; o < op->out_channels; o++) {
            int32_t sum = 0;
            for (int k = 0; k < ACWFACE_TAPS; k++) {
                const int32_t y = p / op->width + k / 3 - 1, x = p % op->width + k % 3 - 1;
                if (y < 0 || y >= op->height || x < 0 || x >= op->width) continue;
                const uint8_t* in = op->in + ((ptrdiff_t)y * op->width + x) * op->in_pixel;
                for (int32_t i = 0; i < op->in_channels; i++) sum += weight_at(&weights, k, i, o) * (in[i] - op->in_zero);
            }
            op->out[p * op->out_pixel + o] = weights.scale[o] * (float)sum + weights.bias[o];
        }
}

const AcwfaceInt8Kernel acwface_int8_scalar = {"scalar", deform, conv3x3};

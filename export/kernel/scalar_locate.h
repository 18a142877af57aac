// Where a tap samples, for the references in plain C.
#ifndef ACWFACE_SCALAR_LOCATE_H
#define ACWFACE_SCALAR_LOCATE_H

#include <math.h>

#include "deform.h"

// A bilinear sample: the four pixels round a point, row by row. One outside the image has weight 0 and the index of some pixel in it.
typedef struct {
    int32_t pixel[4];
    float weight[4];
} Sample;

static inline const float* predicted_at(const AcwfaceDeform* layer, int32_t y, int32_t x) {
    return layer->predicted + ((ptrdiff_t)y * layer->width + x) * layer->predicted_pixel;
}

// The modulator that `logit` stands for.
static inline float modulator(float logit) { return 2.0f / (1.0f + expf(-logit)); }

// Where tap k of output pixel (y, x) samples; the weights add up to `amount` where nothing is outside the image.
static inline Sample locate(const AcwfaceDeform* layer, int32_t y, int32_t x, int k, float amount) {
    const float* predicted = predicted_at(layer, y, x);
    float dy = predicted[(2 * k) * layer->predicted_channel], dx = predicted[(2 * k + 1) * layer->predicted_channel];
    const float limit = layer->offset_limit;
    dy = dy < -limit ? -limit : dy > limit ? limit : dy;  // NaN stays
    dx = dx < -limit ? -limit : dx > limit ? limit : dx;
    const float at_y = (float)(y + k / 3 - 1) + dy, at_x = (float)(x + k % 3 - 1) + dx;

    Sample sample = {{0, 0, 0, 0}, {0.0f, 0.0f, 0.0f, 0.0f}};
    if (!(at_y > -1.0f && at_y < (float)layer->height && at_x > -1.0f && at_x < (float)layer->width)) {  // also if one is NaN
        for (int c = 0; c < 4; c++) sample.weight[c] *= amount;  // NaN stays
        return sample;
    }
    const int32_t top = (int32_t)floorf(at_y), left = (int32_t)floorf(at_x);
    const float down = at_y - (float)top, right = at_x - (float)left;
    for (int c = 0; c < 4; c++) {
        const int32_t row = top + c / 2, column = left + c % 2;
        if (row < 0 || row >= layer->height || column < 0 || column >= layer->width) continue;
        sample.pixel[c] = row * layer->width + column;
        sample.weight[c] = amount * (c / 2 ? down : 1.0f - down) * (c % 2 ? right : 1.0f - right);
    }
    return sample;
}

#endif

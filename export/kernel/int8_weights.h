// How acwface_int8_prepare leaves weights, and the implementations.
#ifndef ACWFACE_INT8_WEIGHTS_H
#define ACWFACE_INT8_WEIGHTS_H

#include "int8.h"
#include "kernels.h"

// Instructions multiply and add up four values at a time, so a tap has whole fours of inputs, the last of them with zeros. All arrays have
// acwface_padded(out_channels) outputs.
typedef struct {
    const int8_t* weight;  // input i of tap k and output o at ((k * inputs + i) / 4 * outputs + o) * 4 + i % 4
    const int32_t* sum;    // of all weights of an output
    const float *scale, *bias;
    int32_t inputs, outputs;
} AcwfaceInt8Weights;

static inline int32_t acwface_fours(int32_t channels) { return (channels + 3) / 4 * 4; }

static inline AcwfaceInt8Weights acwface_int8_weights(const void* prepared, int32_t in_channels, int32_t out_channels) {
    const int32_t inputs = acwface_fours(in_channels), outputs = acwface_padded(out_channels);
    const int8_t* weight = prepared;
    const int32_t* sum = (const int32_t*)(const void*)(weight + (ptrdiff_t)ACWFACE_TAPS * inputs * outputs);
    const float* scale = (const float*)(const void*)(sum + outputs);
    return (AcwfaceInt8Weights){weight, sum, scale, scale + outputs, inputs, outputs};
}

extern const AcwfaceInt8Kernel acwface_int8_scalar, acwface_int8_avx2, acwface_int8_avx512, acwface_int8_neon, acwface_int8_neon_dot;

#endif

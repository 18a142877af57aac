// What INT8 networks use instead of acwface_deform_tiled and acwface_conv3x3: both in integers, but for where to sample.
//
// A real number is scale * (q - zero), q of 0..255 in images and of -127..127 in weights, where zero is 0 and each output channel has a
// scale of its own.
//
//   deform   What a tap samples is rounded to 0..255 before it is multiplied. For an output pixel whose greatest modulator is M, with
//            m, dy, dx of deform.h for tap k and t the bilinear weight of one of the four pixels q round the point (0 outside the image):
//              w      = floor(254 * m / M * t + 1/2), of each of the four
//              s      = (sum of w * q + zero * (256 - sum of w) + 128) / 256, rounded down
//              sum    = sum over taps and channels of weight * (s - zero)
//              out[o] = round(act(256 / 254 * M * scale[o] * sum + bias[o])) + out_zero, clamped to 0..255
//            As no sum of w is above 256, s has the image's own zero and range: nothing is clipped, and no range has to be known ahead.
//            A NaN offset samples zero, and a NaN modulator counts as the least one.
//   conv3x3  out[o] = scale[o] * (sum over taps and channels of weight * (q - zero)) + bias[o], in float; q is zero outside the image.
//
// Sums are exact. The w are computed in float: of two implementations, one may round one of them up that the other rounds down (the
// scalar one has another exp; the others agree to the bit). Everything else is as in deform.h.
#ifndef ACWFACE_INT8_H
#define ACWFACE_INT8_H

#include "deform.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    AcwfaceDeform layer;  // its bias and out are not used
    int32_t in_channels, in_zero;
    const uint8_t* in;  // for each pixel in_channels values
    ptrdiff_t in_pixel;
    const void* weight;  // made by acwface_int8_prepare; scale and bias in steps of the output
    int32_t out_zero;
    uint8_t* out;  // for each pixel layer.channels values
    ptrdiff_t out_pixel;
} AcwfaceInt8Deform;

typedef struct {
    int32_t height, width, in_channels, out_channels, in_zero;
    const uint8_t* in;
    ptrdiff_t in_pixel;
    const void* weight;  // made by acwface_int8_prepare
    float* out;
    ptrdiff_t out_pixel;
} AcwfaceInt8Conv3x3;

// One implementation of both, for output pixels [first, last), counted row by row.
typedef struct {
    const char* name;  // scalar, avx2, avx512-vnni, neon, neon-dot
    void (*deform)(const AcwfaceInt8Deform*, int32_t first, int32_t last);
    void (*conv3x3)(const AcwfaceInt8Conv3x3*, int32_t first, int32_t last);
} AcwfaceInt8Kernel;

// Those that this processor can run, the best first; NULL from the end on. The scalar one is always there, and last.
ACWFACE_API const AcwfaceInt8Kernel* acwface_int8_kernel(int32_t index);

// More inputs than so many could make a sum too large.
enum { ACWFACE_INT8_INPUTS = INT32_MAX / (255 * 127 * ACWFACE_TAPS) };

// Weights: how many bytes they take, and what makes them of weight (9, in_channels, out_channels), scale and bias (out_channels).
ACWFACE_API size_t acwface_int8_bytes(int32_t in_channels, int32_t out_channels);
ACWFACE_API void acwface_int8_prepare(int32_t in_channels, int32_t out_channels, const int8_t* weight, const float* scale,
                                      const float* bias, void* to);

#ifdef __cplusplus
}
#endif

#endif

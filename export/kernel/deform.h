// Modulated deformable 3x3 convolution (Dai et al. 2017, section 2.1; DCNv2, Zhu et al. 2019, section 3.2), stride 1, padding 1,
// as torchvision.ops.deform_conv2d means it.
//
// Sampling acts on space and the tap matrix on channels, so they commute. That gives two forms, equal but for rounding:
//   sample   the nine tap matrices have been applied to every pixel already (one matrix product of the host); O channels are
//            sampled for each tap. For layers with fewer outputs than inputs.
//   tiled    C input channels are sampled for each tap, then multiplied by the tap matrices while they are in the cache. Nothing
//            nine times as large as the layer's input is ever written.
//
// For output pixel (y, x), with L = offset_limit and tap k = 0..8 row by row:
//   dy, dx   = predicted channels 2k, 2k + 1, clamped to [-L, L]; in pixels
//   m        = 2 * sigmoid(predicted channel 18 + k)
//   out[o]   = act(bias[o] + sum over k of m * bilinear(tap k's channel o, y + k / 3 - 1 + dy, x + k % 3 - 1 + dx))
//   act(v)   = v if v > 0, else negative_slope * v
// What lies outside the image is zero. A NaN offset samples zero; a NaN modulator gives NaN; no value of either makes a function
// read outside its arrays. Activations and weights are taken to be finite.
//
//   conv3x3  the ordinary 3x3 convolution (stride 1, padding 1) that predicts offsets and modulators, which otherwise takes longer than
//            what it predicts them for. Winograd's F(2x2, 3x3) (Lavin and Gray 2016): 16 multiplications instead of 36, and no less
//            accurate in float32 than the direct sum.
//
// Functions allocate nothing, keep no state and start no threads; they use up to 110 kB of stack. One image at a time; hosts split
// its pixels, and each output pixel is computed in the same way whatever the split.
#ifndef ACWFACE_DEFORM_H
#define ACWFACE_DEFORM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define ACWFACE_API __declspec(dllexport)
#else
#define ACWFACE_API __attribute__((visibility("default")))
#endif

enum { ACWFACE_TAPS = 9, ACWFACE_PREDICTED = 3 * ACWFACE_TAPS };

// What both forms of the deformable convolution share. Strides are in floats, so NCHW (pixel stride 1, channel stride height * width)
// and NHWC (pixel stride the number of channels, channel stride 1) both fit.
typedef struct {
    int32_t height, width;   // of the image and of the output; at most 2^31 / 16 pixels
    int32_t channels;        // O, of the output; multiples of 16 are fast
    const float* predicted;  // 27 channels: nine (dy, dx), then nine modulators
    ptrdiff_t predicted_pixel, predicted_channel;
    const float* bias;  // O
    float* out;         // O channels
    ptrdiff_t out_pixel, out_channel;
    float offset_limit;    // pixels; INFINITY for none
    float negative_slope;  // 1 for no activation, 0 for ReLU
} AcwfaceDeform;

typedef struct {
    AcwfaceDeform layer;
    const float* mixed;  // for each pixel 9 * O floats: channel o of tap k at k * O + o
    ptrdiff_t mixed_pixel;
} AcwfaceDeformSample;

typedef struct {
    AcwfaceDeform layer;
    int32_t in_channels;  // C
    const float* in;      // for each pixel C floats
    ptrdiff_t in_pixel;
    const float* weight;  // (9, C, O), dense
} AcwfaceDeformTiled;

typedef struct {
    int32_t height, width, in_channels, out_channels;
    const float* in;  // for each pixel in_channels floats
    ptrdiff_t in_pixel;
    const float* weight;  // made by acwface_conv3x3_prepare, the bias in it
    float* out;           // for each pixel out_channels floats
    ptrdiff_t out_pixel;
} AcwfaceConv3x3;

// One implementation of all three.
typedef struct {
    const char* name;  // scalar, avx2, avx512, neon
    // Output pixels [first, last), counted row by row.
    void (*sample)(const AcwfaceDeformSample*, int32_t first, int32_t last);
    void (*tiled)(const AcwfaceDeformTiled*, int32_t first, int32_t last);
    // Tiles [first, last) of 2x2 output pixels, counted row by row.
    void (*conv3x3)(const AcwfaceConv3x3*, int32_t first, int32_t last);
} AcwfaceKernel;

// Those that this processor can run, the best first; NULL from the end on. The scalar one is always there, and last.
ACWFACE_API const AcwfaceKernel* acwface_kernel(int32_t index);

// conv3x3's weights: how many floats they take, and what makes them of weight (9, in_channels, out_channels) and bias.
ACWFACE_API size_t acwface_conv3x3_floats(int32_t in_channels, int32_t out_channels);
ACWFACE_API void acwface_conv3x3_prepare(int32_t in_channels, int32_t out_channels, const float* weight, const float* bias, float* to);

// How many tiles an image has.
ACWFACE_API int32_t acwface_conv3x3_tiles(int32_t height, int32_t width);

// ACWFACE_KERNEL_VERSION of the library.
ACWFACE_API const char* acwface_kernel_version(void);

// Pixels, and tiles, that hosts should hand to one thread at least, so that starting it costs little.
enum { ACWFACE_CHUNK = 256, ACWFACE_TILES_CHUNK = 64 };

#ifdef __cplusplus
}
#endif

#endif

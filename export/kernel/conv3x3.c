// What does not depend on the instruction set in acwface_conv3x3: the weights, transformed once.

#include <string.h>

#include "kernels.h"

size_t acwface_conv3x3_floats(int32_t in_channels, int32_t out_channels) {
    return ((size_t)ACWFACE_POINTS * in_channels + 1) * acwface_padded(out_channels);
}

int32_t acwface_conv3x3_tiles(int32_t height, int32_t width) { return ((height + 1) / 2) * ((width + 1) / 2); }

// G g G^T for each pair of channels, in double precision: it is done once. The bias follows.
void acwface_conv3x3_prepare(int32_t in_channels, int32_t out_channels, const float* weight, const float* bias, float* to) {
    static const double G[4][3] = {{1.0, 0.0, 0.0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0.0, 0.0, 1.0}};
    const int32_t padded = acwface_padded(out_channels);
    memset(to, 0, acwface_conv3x3_floats(in_channels, out_channels) * sizeof(float));
    for (int p = 0; p < ACWFACE_POINTS; p++)
        for (int32_t i = 0; i < in_channels; i++, to += padded)
            for (int32_t o = 0; o < out_channels; o++) {
                double sum = 0.0;
                for (int k = 0; k < ACWFACE_TAPS; k++)
                    sum += G[p / 4][k / 3] * G[p % 4][k % 3] * weight[((ptrdiff_t)k * in_channels + i) * out_channels + o];
                to[o] = (float)sum;
            }
    memcpy(to, bias, out_channels * sizeof(float));
}

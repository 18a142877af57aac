// Calls one implementation again and again on one layer, for counting its instructions or timing it where there is no Python.
//
//   acwface_repeat KERNEL FORM SIDE INPUTS OUTPUTS TIMES      such as: acwface_repeat neon sample 80 64 16 11

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deform.h"

static float* values(size_t count, float scale) {
    float* to = malloc(count * sizeof(float));
    if (to == NULL) abort();
    for (size_t i = 0; i < count; i++) to[i] = scale * ((float)(i * 7919 % 2001) / 1000.0f - 1.0f);
    return to;
}

int main(int argc, char** argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: %s KERNEL sample|tiled|conv3x3 SIDE INPUTS OUTPUTS TIMES\n", argv[0]);
        return 2;
    }
    const AcwfaceKernel* kernel = NULL;
    for (int i = 0; acwface_kernel(i) != NULL; i++)
        if (strcmp(acwface_kernel(i)->name, argv[1]) == 0) kernel = acwface_kernel(i);
    if (kernel == NULL) {
        fprintf(stderr, "%s does not run on this processor\n", argv[1]);
        return 2;
    }
    const int32_t side = atoi(argv[3]), inputs = atoi(argv[4]), outputs = atoi(argv[5]), pixels = side * side;
    const AcwfaceDeform layer = {
        .height = side,
        .width = side,
        .channels = outputs,
        .predicted = values((size_t)ACWFACE_PREDICTED * pixels, 1.5f),
        .predicted_pixel = 1,
        .predicted_channel = pixels,
        .bias = values(outputs, 1.0f),
        .out = values((size_t)outputs * pixels, 0.0f),
        .out_pixel = 1,
        .out_channel = pixels,
        .offset_limit = INFINITY,
        .negative_slope = 0.1f,
    };
    float* source = values((size_t)(ACWFACE_TAPS * outputs > inputs ? ACWFACE_TAPS * outputs : inputs) * pixels, 1.0f);
    float* weight = values((size_t)ACWFACE_TAPS * inputs * outputs, 0.1f);
    float* prepared = values(acwface_conv3x3_floats(inputs, outputs), 0.0f);
    acwface_conv3x3_prepare(inputs, outputs, weight, layer.bias, prepared);
    const AcwfaceDeformSample sample = {layer, source, ACWFACE_TAPS * outputs};
    const AcwfaceDeformTiled tiled = {layer, inputs, source, inputs, weight};
    const AcwfaceConv3x3 conv3x3 = {side, side, inputs, outputs, source, inputs, prepared, layer.out, outputs};
    for (int i = atoi(argv[6]); i > 0; i--) {
        if (strcmp(argv[2], "sample") == 0) kernel->sample(&sample, 0, pixels);
        if (strcmp(argv[2], "tiled") == 0) kernel->tiled(&tiled, 0, pixels);
        if (strcmp(argv[2], "conv3x3") == 0) kernel->conv3x3(&conv3x3, 0, acwface_conv3x3_tiles(side, side));
    }
    printf("%g\n", layer.out[pixels / 2]);
    return 0;
}

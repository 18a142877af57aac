// Calls one implementation again and again on one layer, for counting its instructions or timing it where there is no Python.
//
//   acwface_repeat KERNEL FORM SIDE INPUTS OUTPUTS TIMES      such as: acwface_repeat neon sample 80 64 16 11
//
// FORM is sample, tiled or conv3x3; of INT8 kernels, int8-tiled or int8-conv3x3.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deform.h"
#include "int8.h"

static float* values(size_t count, float scale) {
    float* to = malloc(count * sizeof(float));
    if (to == NULL) abort();
    for (size_t i = 0; i < count; i++) to[i] = scale * ((float)(i * 7919 % 2001) / 1000.0f - 1.0f);
    return to;
}

int main(int argc, char** argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: %s KERNEL FORM SIDE INPUTS OUTPUTS TIMES\n", argv[0]);
        return 2;
    }
    const AcwfaceKernel* kernel = NULL;
    const AcwfaceInt8Kernel* int8 = NULL;
    for (int i = 0; acwface_kernel(i) != NULL; i++)
        if (strcmp(acwface_kernel(i)->name, argv[1]) == 0) kernel = acwface_kernel(i);
    for (int i = 0; acwface_int8_kernel(i) != NULL; i++)
        if (strcmp(acwface_int8_kernel(i)->name, argv[1]) == 0) int8 = acwface_int8_kernel(i);
    if (strncmp(argv[2], "int8-", 5) == 0 ? int8 == NULL : kernel == NULL) {
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

    uint8_t* image = malloc((size_t)(inputs + outputs) * pixels);
    int8_t* weight8 = malloc((size_t)ACWFACE_TAPS * inputs * outputs);
    void* prepared8 = malloc(acwface_int8_bytes(inputs, outputs));
    if (image == NULL || weight8 == NULL || prepared8 == NULL) abort();
    for (int32_t i = 0; i < (inputs + outputs) * pixels; i++) image[i] = (uint8_t)(i * 7919 % 256);
    for (int32_t i = 0; i < ACWFACE_TAPS * inputs * outputs; i++) weight8[i] = (int8_t)(i * 7919 % 255 - 127);
    acwface_int8_prepare(inputs, outputs, weight8, values(outputs, 1e-4f), layer.bias, prepared8);
    AcwfaceInt8Deform int8_tiled = {layer, inputs, 128, image, inputs, prepared8, 128, image + inputs * pixels, outputs};
    int8_tiled.layer.predicted_pixel = ACWFACE_PREDICTED;
    int8_tiled.layer.predicted_channel = 1;
    const AcwfaceInt8Conv3x3 int8_conv3x3 = {side, side, inputs, outputs, 128, image, inputs, prepared8, layer.out, outputs};

    for (int i = atoi(argv[6]); i > 0; i--) {
        if (strcmp(argv[2], "sample") == 0) kernel->sample(&sample, 0, pixels);
        if (strcmp(argv[2], "tiled") == 0) kernel->tiled(&tiled, 0, pixels);
        if (strcmp(argv[2], "conv3x3") == 0) kernel->conv3x3(&conv3x3, 0, acwface_conv3x3_tiles(side, side));
        if (strcmp(argv[2], "int8-tiled") == 0) int8->deform(&int8_tiled, 0, pixels);
        if (strcmp(argv[2], "int8-conv3x3") == 0) int8->conv3x3(&int8_conv3x3, 0, pixels);
    }
    printf("%g\n", layer.out[pixels / 2]);
    return 0;
}

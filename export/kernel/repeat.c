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
        fprintf(stderr, "usage: %s KERNEL sample|conv SIDE INPUTS OUTPUTS TIMES\n", argv[0]);
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
    const AcwfaceDeform layer = {side, side, outputs, values((size_t)ACWFACE_PREDICTED * pixels, 1.5f), 1, pixels, values(outputs, 1.0f),
                                 values((size_t)outputs * pixels, 0.0f), 1, pixels, INFINITY, 0.1f};
    const int conv = strcmp(argv[2], "conv") == 0;
    const AcwfaceDeformSample sample_op = {layer, conv ? NULL : values((size_t)ACWFACE_TAPS * outputs * pixels, 1.0f), ACWFACE_TAPS * outputs};
    const AcwfaceDeformConv conv_op = {layer, inputs, conv ? values((size_t)inputs * pixels, 1.0f) : NULL, inputs,
                                       conv ? values((size_t)ACWFACE_TAPS * inputs * outputs, 0.1f) : NULL};
    for (int i = atoi(argv[6]); i > 0; i--)
        if (conv)
            kernel->conv(&conv_op, 0, pixels);
        else
            kernel->sample(&sample_op, 0, pixels);
    printf("%g\n", layer.out[pixels / 2]);
    return 0;
}

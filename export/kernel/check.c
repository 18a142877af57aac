// Runs every implementation that this processor has on random layers, through both memory layouts and all functions, and compares it with
// the scalar one. Offsets include borders, huge values, infinities and NaN. Behind each array begins a page that cannot be read, so that
// also an emulated processor stops at any access beyond; under AddressSanitizer arrays are the sanitizer's. Prints a checksum of what the
// best INT8 implementation computes, which is the same on every processor that has a fast one.
//
//   acwface_check [LAYERS [SEED]]

#define _DEFAULT_SOURCE  // mmap, sysconf

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "deform.h"
#include "int8.h"
#include "version.h"

static uint32_t state, seed;

// xorshift32 (Marsaglia 2003)
static uint32_t next(void) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static int32_t between(int32_t low, int32_t high) { return low + (int32_t)(next() % (uint32_t)(high - low + 1)); }
static float real(void) { return (float)between(-1000000, 1000000) * 1e-6f; }

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

// The arrays of a layer.
static struct {
    void* begin;
    size_t bytes;
} arrays[16];
static int array_count;

static void* array(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    char* begin = SANITIZED ? malloc(bytes) : mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (begin == NULL || begin == MAP_FAILED || array_count == 16) abort();
    if (!SANITIZED && mprotect(begin + whole, page, PROT_NONE) != 0) abort();
    arrays[array_count].begin = begin;
    arrays[array_count++].bytes = whole + page;
    return SANITIZED ? begin : begin + whole - bytes;
}

static float* reals(size_t count) {
    float* values = array(count * sizeof(float));
    for (size_t i = 0; i < count; i++) values[i] = real();
    return values;
}

static uint8_t* bytes(size_t count) {
    uint8_t* values = array(count);
    for (size_t i = 0; i < count; i++) values[i] = (uint8_t)(next() >> 8);
    return values;
}

static void release(void) {
    while (array_count > 0) {
        array_count--;
        if (SANITIZED)
            free(arrays[array_count].begin);
        else
            munmap(arrays[array_count].begin, arrays[array_count].bytes);
    }
}

static float offset(void) {
    static const float SPECIAL[] = {0.0f,   1.0f, -1.0f, 0.5f, 3.0f,  -4.0f,     NAN,     INFINITY, -INFINITY,
                                    3e38f, -3e38f, 1e9f,  -1e9f, 0x1p30f, -0x1p31f, 1e-40f, 16777216.0f};
    const uint32_t kind = next() % 8;
    if (kind == 0) return SPECIAL[next() % (sizeof(SPECIAL) / sizeof(SPECIAL[0]))];
    return real() * (kind == 1 ? 100.0f : kind < 5 ? 3.0f : 1.0f);
}

// NaN must be where NaN is.
static int differs(float a, float b) { return isnan(a) || isnan(b) ? isnan(a) != isnan(b) : fabsf(a - b) > 1e-4f; }

static int check_layer(int index) {
    const int32_t height = between(1, next() % 4 ? 9 : 2), width = between(1, next() % 4 ? 30 : 3), pixels = height * width;
    const int32_t outputs = next() % 2 ? 16 * between(1, 9) : between(1, 70), inputs = between(0, 3) ? 16 * between(1, 4) : between(1, 210);
    const int nhwc = next() % 2;
    const int32_t extra = between(0, 3);  // channels beside the layer's
    const int32_t predicted_channels = ACWFACE_PREDICTED + extra, sampled = ACWFACE_TAPS * outputs;
    float *predicted = reals((size_t)predicted_channels * pixels), *bias = reals(outputs), *out = reals((size_t)outputs * pixels);
    float *expected = reals((size_t)outputs * pixels), *mixed = reals((size_t)(sampled + extra) * pixels);
    float *in = reals((size_t)(inputs + extra) * pixels), *weight = reals((size_t)ACWFACE_TAPS * inputs * outputs);
    for (int32_t i = 0; i < predicted_channels * pixels; i++) predicted[i] = offset();
    for (int32_t i = 0; i < ACWFACE_TAPS * inputs * outputs; i++) weight[i] /= (float)inputs;
    const AcwfaceDeform layer = {
        .height = height,
        .width = width,
        .channels = outputs,
        .predicted = predicted + (nhwc ? extra : extra * pixels),
        .predicted_pixel = nhwc ? predicted_channels : 1,
        .predicted_channel = nhwc ? 1 : pixels,
        .bias = bias,
        .out = expected,
        .out_pixel = nhwc ? outputs : 1,
        .out_channel = nhwc ? 1 : pixels,
        .offset_limit = next() % 2 ? INFINITY : 1.0f,
        .negative_slope = next() % 2 ? 0.1f : 1.0f,
    };
    AcwfaceDeformSample sample = {layer, mixed + extra, sampled + extra};
    AcwfaceDeformTiled tiled = {layer, inputs, in + extra, inputs + extra, weight};

    int failures = 0, scalar = 0;
    while (acwface_kernel(scalar + 1) != NULL) scalar++;
    for (int form = 0; form < 2; form++) {
        sample.layer.out = tiled.layer.out = expected;
        form ? acwface_kernel(scalar)->tiled(&tiled, 0, pixels) : acwface_kernel(scalar)->sample(&sample, 0, pixels);
        sample.layer.out = tiled.layer.out = out;
        for (int k = 0; k < scalar; k++) {
            const int32_t cut = between(0, pixels);  // two calls, in any order
            const int32_t bounds[2][2] = {{cut, pixels}, {0, cut}};
            for (int32_t i = 0; i < outputs * pixels; i++) out[i] = 1e30f;
            for (int part = 0; part < 2; part++)
                form ? acwface_kernel(k)->tiled(&tiled, bounds[part][0], bounds[part][1])
                     : acwface_kernel(k)->sample(&sample, bounds[part][0], bounds[part][1]);
            for (int32_t i = 0; i < outputs * pixels; i++)
                if (differs(out[i], expected[i])) {
                    printf("layer %d, %s, %s, %dx%d, %d to %d channels, %s, element %d: %g, not %g\n", index, acwface_kernel(k)->name,
                           form ? "tiled" : "sample", height, width, inputs, outputs, nhwc ? "NHWC" : "NCHW", i, out[i], expected[i]);
                    failures++;
                    break;
                }
        }
    }
    release();
    return failures;
}

static int check_conv3x3(int index) {
    const int32_t height = between(1, next() % 4 ? 9 : 2), width = between(1, next() % 4 ? 30 : 3), pixels = height * width;
    const int32_t outputs = next() % 2 ? ACWFACE_PREDICTED * between(1, 3) : between(1, 90);
    const int32_t inputs = next() % 2 ? 16 * between(1, 3) : between(1, 40), extra = between(0, 3);
    const int32_t tiles = acwface_conv3x3_tiles(height, width);
    float *in = reals((size_t)(inputs + extra) * pixels), *weight = reals((size_t)ACWFACE_TAPS * inputs * outputs), *bias = reals(outputs);
    float *prepared = reals(acwface_conv3x3_floats(inputs, outputs)), *expected = reals((size_t)outputs * pixels);
    float* out = reals((size_t)outputs * pixels);
    acwface_conv3x3_prepare(inputs, outputs, weight, bias, prepared);
    AcwfaceConv3x3 op = {height, width, inputs, outputs, in + extra, inputs + extra, prepared, expected, outputs};

    int failures = 0, scalar = 0;
    while (acwface_kernel(scalar + 1) != NULL) scalar++;
    acwface_kernel(scalar)->conv3x3(&op, 0, tiles);
    op.out = out;
    for (int k = 0; k < scalar; k++) {
        const int32_t cut = between(0, tiles);
        for (int32_t i = 0; i < outputs * pixels; i++) out[i] = 1e30f;
        acwface_kernel(k)->conv3x3(&op, cut, tiles);
        acwface_kernel(k)->conv3x3(&op, 0, cut);
        for (int32_t i = 0; i < outputs * pixels; i++)
            if (differs(out[i], expected[i])) {
                printf("layer %d, %s, conv3x3, %dx%d, %d to %d channels, element %d: %g, not %g\n", index, acwface_kernel(k)->name, height,
                       width, inputs, outputs, i, out[i], expected[i]);
                failures++;
                break;
            }
    }
    release();
    return failures;
}

// FNV-1a (Fowler, Noll and Vo)
static uint32_t checksum = 2166136261u;
static uint32_t added_to(uint32_t sum, const void* from, size_t count) {
    for (const uint8_t* byte = from; count > 0; count--) sum = (sum ^ *byte++) * 16777619u;
    return sum;
}

static int check_int8(int index) {
    state = (seed + (uint32_t)index) * 2654435761u | 1u;  // the same layers whatever was checked before
    const int32_t height = between(1, next() % 4 ? 9 : 2), width = between(1, next() % 4 ? 40 : 3), pixels = height * width;
    const int32_t outputs = next() % 2 ? 16 * between(1, 9) : between(1, 150);
    const int32_t inputs = between(0, 3) ? 16 * between(1, 4) : between(1, 700), extra = between(0, 3);
    float *predicted = reals((size_t)ACWFACE_PREDICTED * pixels), *scale = reals(outputs), *bias = reals(outputs);
    uint8_t *in = bytes((size_t)(inputs + extra) * pixels - extra), *out = bytes((size_t)outputs * pixels);
    uint8_t* expected = bytes((size_t)outputs * pixels);
    int8_t* weight = array((size_t)ACWFACE_TAPS * inputs * outputs);
    float *sums = reals((size_t)outputs * pixels), *expected_sums = reals((size_t)outputs * pixels);
    void* prepared = array(acwface_int8_bytes(inputs, outputs));
    for (int32_t i = 0; i < ACWFACE_PREDICTED * pixels; i++) predicted[i] = offset();
    for (int32_t i = 0; i < ACWFACE_TAPS * inputs * outputs; i++) weight[i] = (int8_t)between(-127, 127);
    // Values and weights scatter by 74 about their middles: outputs by 40.
    for (int32_t o = 0; o < outputs; o++) {
        scale[o] = (float)between(90, 110) * 0.4f / (74.0f * 74.0f * 3.0f * sqrtf((float)inputs));
        bias[o] *= 20.0f;
    }
    acwface_int8_prepare(inputs, outputs, weight, scale, bias, prepared);
    const int32_t in_zero = between(0, 255), out_zero = between(0, 255), cut = between(0, pixels);
    const int limited = next() % 2, active = next() % 2;
    AcwfaceInt8Deform deform = {
        .layer =
            {
                .height = height,
                .width = width,
                .channels = outputs,
                .predicted = predicted,
                .predicted_pixel = ACWFACE_PREDICTED,
                .predicted_channel = 1,
                .offset_limit = limited ? 1.0f : INFINITY,
                .negative_slope = active ? 0.1f : 1.0f,
            },
        .in_channels = inputs,
        .in_zero = in_zero,
        .in = in,
        .in_pixel = inputs + extra,
        .weight = prepared,
        .out_zero = out_zero,
        .out_pixel = outputs,
    };
    AcwfaceInt8Conv3x3 conv = {height, width, inputs, outputs, in_zero, in, inputs + extra, prepared, NULL, outputs};

    int failures = 0, scalar = 0;
    uint32_t last = 0;
    while (acwface_int8_kernel(scalar + 1) != NULL) scalar++;
    for (int k = scalar; k >= 0; k--) {
        const AcwfaceInt8Kernel* kernel = acwface_int8_kernel(k);
        deform.out = k == scalar ? expected : out;
        conv.out = k == scalar ? expected_sums : sums;
        for (int32_t i = 0; i < outputs * pixels; i++) deform.out[i] = 99, conv.out[i] = 1e30f;
        kernel->deform(&deform, cut, pixels);
        kernel->deform(&deform, 0, cut);
        kernel->conv3x3(&conv, cut, pixels);
        kernel->conv3x3(&conv, 0, cut);
        const uint32_t sum = added_to(added_to(checksum, deform.out, (size_t)outputs * pixels), conv.out, outputs * pixels * sizeof(float));
        if (k < scalar - 1 && sum != last) {
            printf("layer %d, int8: %s and %s differ\n", index, kernel->name, acwface_int8_kernel(k + 1)->name);
            failures++;
        }
        last = sum;
        // A weight that is rounded the other way changes a tap's samples by one.
        for (int32_t i = 0; i < outputs * pixels; i++)
            if (abs(deform.out[i] - expected[i]) > 2 || !(fabsf(conv.out[i] - expected_sums[i]) <= 1e-4f)) {
                printf("layer %d, int8 %s, %dx%d, %d to %d channels, element %d: deform %d, not %d; conv3x3 %g, not %g\n", index,
                       kernel->name, height, width, inputs, outputs, i, deform.out[i], expected[i], conv.out[i], expected_sums[i]);
                failures++;
                break;
            }
    }
    checksum = last;
    release();
    return failures;
}

int main(int argc, char** argv) {
    const int layers = argc > 1 ? atoi(argv[1]) : 200;
    state = seed = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) | 1u : 1u;
    int failures = 0;
    for (int i = 0; i < layers; i++) failures += check_layer(i) + check_conv3x3(i) + check_int8(i);
    printf("kernel %s:", ACWFACE_KERNEL_VERSION);
    for (int i = 0; acwface_kernel(i) != NULL; i++) printf(" %s", acwface_kernel(i)->name);
    printf("; int8:");
    for (int i = 0; acwface_int8_kernel(i) != NULL; i++) printf(" %s", acwface_int8_kernel(i)->name);
    printf(", checksum %08x; %d layers, %d failures\n", checksum, layers, failures);
    return failures != 0;
}

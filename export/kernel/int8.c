// Which INT8 implementations there are, which of them this processor can run, and their weights.

#include "int8.h"

#include <string.h>

#include "int8_weights.h"

#if defined(ACWFACE_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(ACWFACE_NEON) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static int always(void) { return 1; }

#if defined(ACWFACE_X86)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_vnni(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
}
#elif defined(ACWFACE_NEON)
static int has_dot(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof(has);
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#else
    return 0;
#endif
}
#endif

static const struct {
    const AcwfaceInt8Kernel* kernel;
    int (*runs)(void);
} KERNELS[] = {
#if defined(ACWFACE_X86)
    {&acwface_int8_avx512, has_vnni},
    {&acwface_int8_avx2, has_avx2},
#elif defined(ACWFACE_NEON)
    {&acwface_int8_neon_dot, has_dot},
    {&acwface_int8_neon, always},
#endif
    {&acwface_int8_scalar, always},
};

const AcwfaceInt8Kernel* acwface_int8_kernel(int32_t index) {
    for (size_t i = 0; i < sizeof(KERNELS) / sizeof(KERNELS[0]); i++)
        if (KERNELS[i].runs() && index-- == 0) return KERNELS[i].kernel;
    return NULL;
}

size_t acwface_int8_bytes(int32_t in_channels, int32_t out_channels) {
    const size_t weights = (size_t)ACWFACE_TAPS * acwface_fours(in_channels);
    return acwface_padded(out_channels) * (weights + sizeof(int32_t) + 2 * sizeof(float));
}

void acwface_int8_prepare(int32_t in_channels, int32_t out_channels, const int8_t* weight, const float* scale, const float* bias,
                          void* to) {
    memset(to, 0, acwface_int8_bytes(in_channels, out_channels));
    const AcwfaceInt8Weights at = acwface_int8_weights(to, in_channels, out_channels);
    // What is constant there is written here, once.
    int8_t* weights = (int8_t*)at.weight;
    int32_t* sums = (int32_t*)at.sum;
    for (int32_t k = 0; k < ACWFACE_TAPS; k++)
        for (int32_t i = 0; i < in_channels; i++)
            for (int32_t o = 0; o < out_channels; o++) {
                const int8_t value = *weight++;
                weights[((ptrdiff_t)(k * at.inputs + i) / 4 * at.outputs + o) * 4 + i % 4] = value;
                sums[o] += value;
            }
    memcpy((float*)at.scale, scale, out_channels * sizeof(float));
    memcpy((float*)at.bias, bias, out_channels * sizeof(float));
}

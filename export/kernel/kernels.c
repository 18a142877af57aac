// Which implementations there are, and which of them this processor can run.

#include "deform.h"
#include "kernels.h"
#include "version.h"

static int always(void) { return 1; }

#if defined(ACWFACE_X86)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
#endif

static const struct {
    const AcwfaceKernel* kernel;
    int (*runs)(void);
} KERNELS[] = {
#if defined(ACWFACE_X86)
    {&acwface_avx512, has_avx512},
    {&acwface_avx2, has_avx2},
#elif defined(ACWFACE_NEON)
    {&acwface_neon, always},  // part of every 64-bit ARM processor
#endif
    {&acwface_scalar, always},
};

const AcwfaceKernel* acwface_kernel(int32_t index) {
    for (size_t i = 0; i < sizeof(KERNELS) / sizeof(KERNELS[0]); i++)
        if (KERNELS[i].runs() && index-- == 0) return KERNELS[i].kernel;
    return NULL;
}

const char* acwface_kernel_version(void) { return ACWFACE_KERNEL_VERSION; }

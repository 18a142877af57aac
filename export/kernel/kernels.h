// The implementations, each in a file of its own that is compiled for its instruction set.
#ifndef ACWFACE_KERNELS_H
#define ACWFACE_KERNELS_H

#include "deform.h"

#if defined(__x86_64__) || defined(_M_X64)
#define ACWFACE_X86
#elif defined(__aarch64__)
#define ACWFACE_NEON
#endif

// Points of Winograd's F(2x2, 3x3).
enum { ACWFACE_POINTS = 16 };

// Outputs as acwface_conv3x3's weights hold them: whole blocks of 16.
static inline int32_t acwface_padded(int32_t channels) { return (channels + 15) / 16 * 16; }

extern const AcwfaceKernel acwface_scalar, acwface_avx2, acwface_avx512, acwface_neon;

#endif

// AVX-512F: 16 lanes.

#include "kernels.h"

#ifdef ACWFACE_X86

#include "avx512.h"

#include "simd.h"

const AcwfaceKernel acwface_avx512 = {"avx512", sample, tiled, conv3x3};

#endif

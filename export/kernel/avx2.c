// AVX2 and FMA: 8 lanes.

#include "kernels.h"

#ifdef ACWFACE_X86

#include "avx2.h"

#include "simd.h"

const AcwfaceKernel acwface_avx2 = {"avx2", sample, tiled, conv3x3};

#endif

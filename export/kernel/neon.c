// NEON, as every 64-bit ARM processor has it: 4 lanes.

#include "kernels.h"

#ifdef ACWFACE_NEON

#include "neon.h"

#include "simd.h"

const AcwfaceKernel acwface_neon = {"neon", sample, tiled, conv3x3};

#endif

// The functions of an AcwfaceKernel in vectors of LANES floats. A file for one instruction set includes its instructions, then this, and
// gets `sample`, `tiled` and `conv3x3`.

#include "simd_base.h"

// In this order: each needs those above it.
#include "simd_sample.h"
#include "simd_multiply.h"
#include "simd_tiled.h"
#include "simd_conv3x3.h"

// What the fast forms have in common: in vectors of LANES floats, whose instructions avx512.h, avx2.h and neon.h define:
//
//   LANES                 4, 8 or 16
//   vec, ivec             LANES floats, LANES int32
//   v_load v_store v_set  v_add v_sub v_mul v_div v_fma (a * b + c)  v_abs v_floor v_round
//   v_max_number(a, b)    the greater; b where a is NaN          v_min_number  likewise
//   v_max_nan(a, b)       the greater; NaN where a is NaN        v_min_nan     likewise
//   v_times_exp2(a, n)    a * 2^n for whole n in [-126, 126]
//   v_leaky(v, slope)     v where v > 0, else slope * v
//   v_lane                0, 1, 2, ... as floats
//   i_from, i_set, i_madd (a * b + c), i_store
//   quad, q_load          four floats, of which v_fma_quad(a, q, j, c) is a * q[j] + c for a constant j, v_mul_quad a * q[j];
//                         cheapest where all four j follow each other
//   run, r_load           likewise, v_fma_run; cheapest where many q take turns
//   store_quads(a, b, c, d, to)                   (a, b, c, d) of each lane side by side, lanes in the order of slot()
//   transpose(from, from_stride, to, to_stride)   a block of LANES x LANES floats
//
// Work goes by groups of GROUP output pixels (or tiles of them). Lanes are pixels where sampling points are computed and channels
// everywhere else.

#include <math.h>
#include <string.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

enum { GROUP = 16, BLOCK = 16, BLOCK_VECTORS = BLOCK / LANES };

#include "simd_locate.h"

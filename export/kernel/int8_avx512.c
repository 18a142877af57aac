// AVX-512 with VNNI: 16 lanes.

#include "kernels.h"

#ifdef ACWFACE_X86

#include "avx512.h"
#include "weigh_x86.h"

typedef __m512i four, fours;
enum { SHIFT = 0, AT_ONCE = 8, VECTORS = 2 };

static inline four four_load(const uint8_t* from) {
    int32_t values;
    __builtin_memcpy(&values, from, 4);
    return _mm512_set1_epi32(values);
}
static inline fours fours_load(const int8_t* from) { return _mm512_loadu_si512(from); }
static inline ivec i_dot(ivec sum, four values, fours weights) { return _mm512_dpbusd_epi32(sum, values, weights); }
static inline ivec i_load(const int32_t* from) { return _mm512_loadu_si512(from); }
static inline vec v_from(ivec a) { return _mm512_cvtepi32_ps(a); }
static inline void narrow(ivec a, uint8_t* to) { _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(a)); }

#include "simd_int8.h"

const AcwfaceInt8Kernel acwface_int8_avx512 = {"avx512-vnni", deform, conv3x3};

#endif

// AVX2: 8 lanes.

#include "kernels.h"

#ifdef ACWFACE_X86

#include "avx2.h"
#include "weigh_x86.h"

// As 16-bit words, values 0 and 2 of each four apart from 1 and 3: products of bytes would be added with saturation.
typedef struct {
    __m256i even, odd;
} four, fours;
enum { SHIFT = 0, AT_ONCE = 4, VECTORS = 2 };

static inline four four_load(const uint8_t* from) {
    int32_t values;
    __builtin_memcpy(&values, from, 4);
    const __m256i all = _mm256_set1_epi32(values);
    return (four){_mm256_and_si256(all, _mm256_set1_epi32(0xff00ff)), _mm256_srli_epi16(all, 8)};
}
static inline fours fours_load(const int8_t* from) {
    const __m256i all = _mm256_loadu_si256((const __m256i*)from);
    return (fours){_mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8), _mm256_srai_epi16(all, 8)};
}
static inline ivec i_dot(ivec sum, four values, fours weights) {
    const __m256i even = _mm256_madd_epi16(values.even, weights.even), odd = _mm256_madd_epi16(values.odd, weights.odd);
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
static inline ivec i_load(const int32_t* from) { return _mm256_loadu_si256((const __m256i*)from); }
static inline vec v_from(ivec a) { return _mm256_cvtepi32_ps(a); }
static inline void narrow(ivec a, uint8_t* to) {
    const __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i*)to, _mm_packus_epi16(half, half));
}

#include "simd_int8.h"

const AcwfaceInt8Kernel acwface_int8_avx2 = {"avx2", deform, conv3x3};

#endif

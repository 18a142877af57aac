// AVX2 and FMA: 8 lanes. What simd_base.h asks for; for the files that are compiled for it.
#ifndef ACWFACE_AVX2_H
#define ACWFACE_AVX2_H

#include <immintrin.h>

#define LANES 8
typedef __m256 vec;
typedef __m256i ivec;

static inline vec v_load(const float* from) { return _mm256_loadu_ps(from); }
static inline void v_store(float* to, vec a) { _mm256_storeu_ps(to, a); }
static inline vec v_set(float a) { return _mm256_set1_ps(a); }
static inline vec v_lane(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec v_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vec v_floor(vec a) { return _mm256_floor_ps(a); }
static inline vec v_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// Where an operand is NaN these instructions answer with the second one.
static inline vec v_max_number(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_min_number(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec v_max_nan(vec a, vec b) { return _mm256_max_ps(b, a); }
static inline vec v_min_nan(vec a, vec b) { return _mm256_min_ps(b, a); }
static inline vec v_times_exp2(vec a, vec n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
}
static inline vec v_leaky(vec a, vec slope) {
    return _mm256_blendv_ps(_mm256_mul_ps(a, slope), a, _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_GT_OQ));
}
static inline ivec i_from(vec a) { return _mm256_cvttps_epi32(a); }
static inline ivec i_set(int32_t a) { return _mm256_set1_epi32(a); }
static inline ivec i_madd(ivec a, ivec b, ivec c) { return _mm256_add_epi32(_mm256_mullo_epi32(a, b), c); }
static inline void i_store(int32_t* to, ivec a) { _mm256_storeu_si256((__m256i*)to, a); }

// A shuffle of a register spares the load ports, which the corners keep busy; a single broadcast comes with the instruction.
typedef __m256 quad;
typedef const float* run;
static inline quad q_load(const float* from) { return _mm256_broadcast_ps((const __m128*)from); }
static inline run r_load(const float* from) { return from; }
#define v_mul_quad(a, q, j) _mm256_mul_ps(a, _mm256_permute_ps(q, (j) * 0x55))
#define v_fma_quad(a, q, j, c) _mm256_fmadd_ps(a, _mm256_permute_ps(q, (j) * 0x55), c)
#define v_fma_run(a, r, j, c) _mm256_fmadd_ps(a, _mm256_set1_ps((r)[j]), c)

static inline void store_quads(vec a, vec b, vec c, vec d, float* to) {
    const __m256 ab_low = _mm256_unpacklo_ps(a, b), ab_high = _mm256_unpackhi_ps(a, b);
    const __m256 cd_low = _mm256_unpacklo_ps(c, d), cd_high = _mm256_unpackhi_ps(c, d);
    _mm256_storeu_ps(to, _mm256_shuffle_ps(ab_low, cd_low, 0x44));
    _mm256_storeu_ps(to + 8, _mm256_shuffle_ps(ab_low, cd_low, 0xee));
    _mm256_storeu_ps(to + 16, _mm256_shuffle_ps(ab_high, cd_high, 0x44));
    _mm256_storeu_ps(to + 24, _mm256_shuffle_ps(ab_high, cd_high, 0xee));
}

static inline void transpose(const float* from, ptrdiff_t from_stride, float* to, ptrdiff_t to_stride) {
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(from + i * from_stride);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
        a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
        a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
        a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
    }
}

#endif

// AVX-512F: 16 lanes. What simd_base.h asks for; for the files that are compiled for it.
#ifndef ACWFACE_AVX512_H
#define ACWFACE_AVX512_H

#include <immintrin.h>

#define LANES 16
typedef __m512 vec;
typedef __m512i ivec;

static inline vec v_load(const float* from) { return _mm512_loadu_ps(from); }
static inline void v_store(float* to, vec a) { _mm512_storeu_ps(to, a); }
static inline vec v_set(float a) { return _mm512_set1_ps(a); }
static inline vec v_lane(void) { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec v_abs(vec a) { return _mm512_abs_ps(a); }
static inline vec v_floor(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
static inline vec v_round(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// Where an operand is NaN these instructions answer with the second one.
static inline vec v_max_number(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_min_number(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec v_max_nan(vec a, vec b) { return _mm512_max_ps(b, a); }
static inline vec v_min_nan(vec a, vec b) { return _mm512_min_ps(b, a); }
static inline vec v_times_exp2(vec a, vec n) { return _mm512_scalef_ps(a, n); }
static inline vec v_leaky(vec a, vec slope) {
    return _mm512_mask_mul_ps(a, _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NGT_UQ), a, slope);
}
static inline ivec i_from(vec a) { return _mm512_cvttps_epi32(a); }
static inline ivec i_set(int32_t a) { return _mm512_set1_epi32(a); }
static inline ivec i_madd(ivec a, ivec b, ivec c) { return _mm512_add_epi32(_mm512_mullo_epi32(a, b), c); }
static inline void i_store(int32_t* to, ivec a) { _mm512_storeu_si512(to, a); }

// A shuffle of a register spares the load ports, which the corners keep busy; a single broadcast comes with the instruction.
typedef __m512 quad;
typedef const float* run;
static inline quad q_load(const float* from) { return _mm512_broadcast_f32x4(_mm_loadu_ps(from)); }
static inline run r_load(const float* from) { return from; }
#define v_mul_quad(a, q, j) _mm512_mul_ps(a, _mm512_permute_ps(q, (j) * 0x55))
#define v_fma_quad(a, q, j, c) _mm512_fmadd_ps(a, _mm512_permute_ps(q, (j) * 0x55), c)
#define v_fma_run(a, r, j, c) _mm512_fmadd_ps(a, _mm512_set1_ps((r)[j]), c)

static inline void store_quads(vec a, vec b, vec c, vec d, float* to) {
    const __m512 ab_low = _mm512_unpacklo_ps(a, b), ab_high = _mm512_unpackhi_ps(a, b);
    const __m512 cd_low = _mm512_unpacklo_ps(c, d), cd_high = _mm512_unpackhi_ps(c, d);
    _mm512_storeu_ps(to, _mm512_shuffle_ps(ab_low, cd_low, 0x44));
    _mm512_storeu_ps(to + 16, _mm512_shuffle_ps(ab_low, cd_low, 0xee));
    _mm512_storeu_ps(to + 32, _mm512_shuffle_ps(ab_high, cd_high, 0x44));
    _mm512_storeu_ps(to + 48, _mm512_shuffle_ps(ab_high, cd_high, 0xee));
}

// Lanes four by four within quarters of the vectors first, then the quarters.
static inline void transpose(const float* from, ptrdiff_t from_stride, float* to, ptrdiff_t to_stride) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * from_stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
        a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
        a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
        a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        _mm512_storeu_ps(to + i * to_stride, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
        _mm512_storeu_ps(to + (i + 8) * to_stride, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));
    }
}

#endif

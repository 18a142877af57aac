// NEON, as every 64-bit ARM processor has it: 4 lanes. What simd_base.h asks for; for the files that are compiled for it.
#ifndef ACWFACE_NEON_H
#define ACWFACE_NEON_H

#include <arm_neon.h>

#define LANES 4
typedef float32x4_t vec;
typedef int32x4_t ivec;

static inline vec v_load(const float* from) { return vld1q_f32(from); }
static inline void v_store(float* to, vec a) { vst1q_f32(to, a); }
static inline vec v_set(float a) { return vdupq_n_f32(a); }
static inline vec v_lane(void) {
    static const float lanes[4] = {0, 1, 2, 3};
    return vld1q_f32(lanes);
}
static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec v_abs(vec a) { return vabsq_f32(a); }
static inline vec v_floor(vec a) { return vrndmq_f32(a); }
static inline vec v_round(vec a) { return vrndnq_f32(a); }
static inline vec v_max_number(vec a, vec b) { return vmaxnmq_f32(a, b); }
static inline vec v_min_number(vec a, vec b) { return vminnmq_f32(a, b); }
static inline vec v_max_nan(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec v_min_nan(vec a, vec b) { return vminq_f32(a, b); }
static inline vec v_times_exp2(vec a, vec n) {
    return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
}
static inline vec v_leaky(vec a, vec slope) { return vbslq_f32(vcgtzq_f32(a), a, vmulq_f32(a, slope)); }
static inline ivec i_from(vec a) { return vcvtq_s32_f32(a); }
static inline ivec i_set(int32_t a) { return vdupq_n_s32(a); }
static inline ivec i_madd(ivec a, ivec b, ivec c) { return vmlaq_s32(c, a, b); }
static inline void i_store(int32_t* to, ivec a) { vst1q_s32(to, a); }

// Multiplications take any lane of a register.
typedef float32x4_t quad, run;
static inline quad q_load(const float* from) { return vld1q_f32(from); }
static inline run r_load(const float* from) { return vld1q_f32(from); }
#define v_mul_quad(a, q, j) vmulq_laneq_f32(a, q, j)
#define v_fma_quad(a, q, j, c) vfmaq_laneq_f32(c, a, q, j)
#define v_fma_run(a, r, j, c) vfmaq_laneq_f32(c, a, r, j)

static inline void store_quads(vec a, vec b, vec c, vec d, float* to) {
    const float32x4x4_t quads = {{a, b, c, d}};
    vst4q_f32(to, quads);
}

static inline void transpose(const float* from, ptrdiff_t from_stride, float* to, ptrdiff_t to_stride) {
    const float32x4x2_t upper = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + from_stride));
    const float32x4x2_t lower = vtrnq_f32(vld1q_f32(from + 2 * from_stride), vld1q_f32(from + 3 * from_stride));
    vst1q_f32(to, vcombine_f32(vget_low_f32(upper.val[0]), vget_low_f32(lower.val[0])));
    vst1q_f32(to + to_stride, vcombine_f32(vget_low_f32(upper.val[1]), vget_low_f32(lower.val[1])));
    vst1q_f32(to + 2 * to_stride, vcombine_f32(vget_high_f32(upper.val[0]), vget_high_f32(lower.val[0])));
    vst1q_f32(to + 3 * to_stride, vcombine_f32(vget_high_f32(upper.val[1]), vget_high_f32(lower.val[1])));
}

#endif

// NEON, as every 64-bit ARM processor has it: 4 lanes. int8_neon_dot.c compiles this once more, for processors with dot products.

#include "kernels.h"

#ifdef ACWFACE_NEON

#include "neon.h"

typedef int8x16_t four, fours;
enum { SHIFT = 128, AT_ONCE = 4, VECTORS = 4 };

static inline four four_load(const uint8_t* from) {
    int32_t values;
    __builtin_memcpy(&values, from, 4);
    return veorq_s8(vreinterpretq_s8_s32(vdupq_n_s32(values)), vdupq_n_s8(-128));
}
static inline fours fours_load(const int8_t* from) { return vld1q_s8(from); }
#ifdef ACWFACE_DOT
static inline int32x4_t i_dot(int32x4_t sum, four values, fours weights) { return vdotq_s32(sum, values, weights); }
#else
static inline int32x4_t i_dot(int32x4_t sum, four values, fours weights) {
    const int16x8_t low = vmull_s8(vget_low_s8(values), vget_low_s8(weights)), high = vmull_high_s8(values, weights);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
#endif
static inline ivec i_load(const int32_t* from) { return vld1q_s32(from); }
static inline vec v_from(ivec a) { return vcvtq_f32_s32(a); }
static inline void narrow(ivec a, uint8_t* to) {
    const uint16x4_t half = vmovn_u32(vreinterpretq_u32_s32(a));
    const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(half, half))), 0);
    __builtin_memcpy(to, &bytes, 4);
}
static inline void weigh(const uint8_t* corner, ptrdiff_t right, ptrdiff_t down, const int32_t* weight, uint8_t* to) {
    const uint8_t* at[4] = {corner, corner + right, corner + down, corner + down + right};
    uint16x8_t low = vdupq_n_u16((uint16_t)weight[64]), high = low;
    for (int c = 0; c < 4; c++) {
        const uint8x16_t pixel = vld1q_u8(at[c]);
        const uint8x8_t by = vdup_n_u8((uint8_t)weight[16 * c]);
        low = vmlal_u8(low, vget_low_u8(pixel), by);
        high = vmlal_high_u8(high, pixel, vcombine_u8(by, by));
    }
    vst1q_u8(to, vshrn_high_n_u16(vshrn_n_u16(low, 8), high, 8));
}

#include "simd_int8.h"

#ifdef ACWFACE_DOT
const AcwfaceInt8Kernel acwface_int8_neon_dot = {"neon-dot", deform, conv3x3};
#else
const AcwfaceInt8Kernel acwface_int8_neon = {"neon", deform, conv3x3};
#endif

#endif

// weigh() for x86: 16 channels as 16-bit words, whose products and sums are at most 256 * 255 + 128.
#ifndef ACWFACE_WEIGH_X86_H
#define ACWFACE_WEIGH_X86_H

#include <immintrin.h>

static inline __m256i words(const uint8_t* from) { return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)from)); }

static inline void weigh(const uint8_t* corner, ptrdiff_t right, ptrdiff_t down, const int32_t* weight, uint8_t* to) {
    const uint8_t* below = corner + down;
    const __m256i a = _mm256_mullo_epi16(words(corner), _mm256_set1_epi32(weight[0]));
    const __m256i b = _mm256_mullo_epi16(words(corner + right), _mm256_set1_epi32(weight[16]));
    const __m256i c = _mm256_mullo_epi16(words(below), _mm256_set1_epi32(weight[32]));
    const __m256i d = _mm256_mullo_epi16(words(below + right), _mm256_set1_epi32(weight[48]));
    const __m256i ab = _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi32(weight[64]));
    const __m256i sum = _mm256_srli_epi16(_mm256_add_epi16(ab, _mm256_add_epi16(c, d)), 8);
    _mm_storeu_si128((__m128i*)to, _mm_packus_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
}

#endif

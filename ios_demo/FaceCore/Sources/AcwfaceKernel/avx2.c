// kernel/avx2.c for processors that have it: packages cannot give one file flags of its own, which CMake does.

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "kernel/avx2.c"
#pragma clang attribute pop
#endif

// kernel/avx512.c for processors that have it: packages cannot give one file flags of its own, which CMake does.

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx512f,fma"))), apply_to = function)
#include "kernel/avx512.c"
#pragma clang attribute pop
#endif

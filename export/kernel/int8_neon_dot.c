// NEON with dot products: an option of ARMv8.2, part of ARMv8.4.

#define ACWFACE_DOT
#include "int8_neon.c"

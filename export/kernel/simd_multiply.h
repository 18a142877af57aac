// A small matrix product out of the cache. Part of simd.h.

// Of GROUP rows of values, so many are multiplied at once: their sums and one row of weights fit the registers.
enum { AT_ONCE = LANES == 16 ? 16 : 4 };

// sums[i * sums_stride + o] = (what it was, if `add`) + values[i * values_stride + j] * weight[j * outputs + o] over j, for `vectors`
// vectors of o and GROUP rows i.
INLINE void multiply(const float* values, ptrdiff_t values_stride, int depth, const float* weight, ptrdiff_t outputs, float* sums,
                     ptrdiff_t sums_stride, int vectors, int add) {
    for (int i = 0; i < GROUP; i += AT_ONCE, values += AT_ONCE * values_stride, sums += AT_ONCE * sums_stride) {
        vec sum[AT_ONCE][BLOCK_VECTORS];
        UNROLL for (int n = 0; n < AT_ONCE; n++)
            UNROLL for (int v = 0; v < vectors; v++) sum[n][v] = add ? v_load(sums + n * sums_stride + v * LANES) : v_set(0.0f);
        int j = 0;
        for (; j + 4 <= depth; j += 4) {
            run value[AT_ONCE];
            UNROLL for (int n = 0; n < AT_ONCE; n++) value[n] = r_load(values + n * values_stride + j);
#define ADD_ROW(R)                                                                                          \
    do {                                                                                                    \
        vec row[BLOCK_VECTORS];                                                                             \
        UNROLL for (int v = 0; v < vectors; v++) row[v] = v_load(weight + (j + R) * outputs + v * LANES);   \
        UNROLL for (int n = 0; n < AT_ONCE; n++)                                                            \
            UNROLL for (int v = 0; v < vectors; v++) sum[n][v] = v_fma_run(row[v], value[n], R, sum[n][v]); \
    } while (0)
            ADD_ROW(0);
            ADD_ROW(1);
            ADD_ROW(2);
            ADD_ROW(3);
#undef ADD_ROW
        }
        for (; j < depth; j++)
            for (int n = 0; n < AT_ONCE; n++)
                UNROLL for (int v = 0; v < vectors; v++)
                    sum[n][v] = v_fma(v_set(values[n * values_stride + j]), v_load(weight + j * outputs + v * LANES), sum[n][v]);
        UNROLL for (int n = 0; n < AT_ONCE; n++)
            UNROLL for (int v = 0; v < vectors; v++) v_store(sums + n * sums_stride + v * LANES, sum[n][v]);
    }
}

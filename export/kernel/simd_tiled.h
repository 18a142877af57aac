// acwface_deform_tiled. Part of simd.h.
//
// DEPTH sampled values of each pixel of a group at a time (taps one after the other, as the rows of the tap
// matrices come) are multiplied by their rows of the tap matrices; OUTPUTS outputs of the group are summed up meanwhile.
enum { DEPTH = 192, OUTPUTS = 64 };

// Samples `vectors` vectors of input channels of one tap for every pixel of a group: to[i * DEPTH]. `pixel` and `weight` are the tap's.
INLINE void sample_vectors(const float* in, Grid grid, const int32_t* pixel, const float (*weight)[4], int vectors, float* to) {
    for (int i = 0; i < GROUP; i++, to += DEPTH) {
        const float* corner = in + pixel[i] * grid.pixel;
        const quad weights = q_load(weight[slot(i)]);
        vec sum[4];
        UNROLL for (int v = 0; v < vectors; v++) sum[v] = v_mul_quad(v_load(corner + v * LANES), weights, 0);
        corner += grid.right;
        UNROLL for (int v = 0; v < vectors; v++) sum[v] = v_fma_quad(v_load(corner + v * LANES), weights, 1, sum[v]);
        corner += grid.down;
        UNROLL for (int v = 0; v < vectors; v++) sum[v] = v_fma_quad(v_load(corner + v * LANES), weights, 3, sum[v]);
        corner -= grid.right;
        UNROLL for (int v = 0; v < vectors; v++) sum[v] = v_fma_quad(v_load(corner + v * LANES), weights, 2, sum[v]);
        UNROLL for (int v = 0; v < vectors; v++) v_store(to + v * LANES, sum[v]);
    }
}

// Out of line: inlined into loops over channels, compilers compute all addresses and weights of a group ahead, and spill them.
NOINLINE void sample_four(const float* in, Grid grid, const int32_t* pixel, const float (*weight)[4], float* to) {
    sample_vectors(in, grid, pixel, weight, 4, to);
}
NOINLINE void sample_block(const float* in, Grid grid, const int32_t* pixel, const float (*weight)[4], float* to) {
    sample_vectors(in, grid, pixel, weight, BLOCK_VECTORS, to);
}
NOINLINE void sample_one(const float* in, Grid grid, const int32_t* pixel, const float (*weight)[4], float* to) {
    sample_vectors(in, grid, pixel, weight, 1, to);
}

// The same for any number of channels, from `channel` on.
static void sample_inputs(const AcwfaceDeformTiled* op, const Samples* samples, int k, int32_t channel, int channels, float* to) {
    const Grid grid = grid_of(&op->layer, op->in_pixel);
    const float* in = op->in + channel;
    const int32_t* pixel = samples->pixel[k];
    const float(*weight)[4] = samples->weight[k];
    int j = 0;
    for (; j + 4 * LANES <= channels; j += 4 * LANES) sample_four(in + j, grid, pixel, weight, to + j);
    for (; j + BLOCK <= channels; j += BLOCK) sample_block(in + j, grid, pixel, weight, to + j);
    for (; j + LANES <= channels; j += LANES) sample_one(in + j, grid, pixel, weight, to + j);
    for (; j < channels; j++)
        for (int i = 0; i < GROUP; i++) {
            const float *corner = in + pixel[i] * grid.pixel + j, *below = corner + grid.down, *w = weight[slot(i)];
            to[i * DEPTH + j] = w[0] * corner[0] + w[1] * corner[grid.right] + w[2] * below[0] + w[3] * below[grid.right];
        }
}

// sums += values * weight, for all of `width` outputs.
static void multiply_all(const float* values, int depth, const float* weight, ptrdiff_t outputs, float* sums, int width) {
    int o = 0;
    for (; o + BLOCK <= width; o += BLOCK) multiply(values, DEPTH, depth, weight + o, outputs, sums + o, OUTPUTS, BLOCK_VECTORS, 1);
    for (; o + LANES <= width; o += LANES) multiply(values, DEPTH, depth, weight + o, outputs, sums + o, OUTPUTS, 1, 1);
    for (; o < width; o++)
        for (int i = 0; i < GROUP; i++)
            for (int j = 0; j < depth; j++) sums[i * OUTPUTS + o] += values[i * DEPTH + j] * weight[j * outputs + o];
}

static void start_sums(const float* bias, int width, float* sums) {
    for (int i = 0; i < GROUP; i++, sums += OUTPUTS) {
        int o = 0;
        for (; o + LANES <= width; o += LANES) v_store(sums + o, v_load(bias + o));
        for (; o < width; o++) sums[o] = bias[o];
    }
}

static void activate_sums(float negative_slope, int width, float* sums) {
    for (int i = 0; i < GROUP; i++, sums += OUTPUTS) {
        int o = 0;
        for (; o + LANES <= width; o += LANES) v_store(sums + o, v_leaky(v_load(sums + o), v_set(negative_slope)));
        for (; o < width; o++) sums[o] = sums[o] > 0.0f ? sums[o] : negative_slope * sums[o];
    }
}

static void tiled(const AcwfaceDeformTiled* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    Samples samples;
    float values[GROUP * DEPTH], sums[GROUP * OUTPUTS];
    for (; first < last; first += GROUP) {
        const int count = last - first < GROUP ? last - first : GROUP;
        locate_group(layer, first, count, &samples);
        for (int32_t channel = 0; channel < layer->channels; channel += OUTPUTS) {
            const int width = layer->channels - channel < OUTPUTS ? layer->channels - channel : OUTPUTS;
            start_sums(layer->bias + channel, width, sums);
            const float* weight = op->weight + channel;
            int depth = 0;
            for (int k = 0; k < ACWFACE_TAPS; k++)
                for (int32_t input = 0, inputs; input < op->in_channels; input += inputs) {
                    inputs = op->in_channels - input < DEPTH ? op->in_channels - input : DEPTH;
                    if (depth + inputs > DEPTH) {
                        multiply_all(values, depth, weight, layer->channels, sums, width);
                        weight += (ptrdiff_t)depth * layer->channels;
                        depth = 0;
                    }
                    sample_inputs(op, &samples, k, input, inputs, values + depth);
                    depth += inputs;
                }
            multiply_all(values, depth, weight, layer->channels, sums, width);
            activate_sums(layer->negative_slope, width, sums);
            store_group(layer, sums, OUTPUTS, first, count, channel, width);
        }
    }
}

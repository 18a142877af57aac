// acwface_deform_sample: the sums of channels that are mixed already, pixel by pixel; then the store, through a transposition where the
// output is NCHW. Part of simd.h.

// The sampling points of a group of pixels: the pixel at the upper left corner, and the weights of four. Pixel i's weights are at slot(i).
typedef struct {
    int32_t pixel[ACWFACE_TAPS][GROUP];
    float weight[ACWFACE_TAPS][GROUP][4];
} Samples;

// Where store_quads leaves lane i, counted in quads: x86 shuffles within 128 bits, so each vector that it stores holds every fourth lane.
INLINE int slot(int i) { return i - i % LANES + i % 4 * (LANES / 4) + i % LANES / 4; }

static void locate_group(const AcwfaceDeform* layer, int32_t first, int32_t count, Samples* samples) {
    float local[ACWFACE_PREDICTED * GROUP];
    ptrdiff_t stride;
    const float* channel = predicted_of(layer, first, count, local, &stride);
    const AcwfaceDeform of = *layer;  // which no store can change, for all that compilers know
    const vec one = v_set(1.0f);
    for (int i = 0; i < GROUP; i += LANES, channel += LANES) {
        vec y, first_x;
        first_tap(&of, first, i, &y, &first_x);
        for (int k = 0; k < ACWFACE_TAPS; y = v_add(y, one)) {
            vec x = first_x;
            for (int end = k + 3; k < end; k++, x = v_add(x, one)) {
                const Corners at = corners(&of, channel + 2 * k * stride, stride, y, x);
                vec weight[4];
                weigh_corners(at, modulator(v_load(channel + (2 * ACWFACE_TAPS + k) * stride)), weight);
                i_store(samples->pixel[k] + i, at.pixel);
                store_quads(weight[0], weight[1], weight[2], weight[3], samples->weight[k][i]);
            }
        }
    }
}

// sum[v] += the four weighted corners of one tap of a pixel, for `vectors` vectors of channels. Each vector has `chains` sums, so that
// enough additions are under way at once.
INLINE void add_corners(const float* corner, Grid grid, const float weights[4], int vectors, int chains, vec sum[][8]) {
    const quad weight = q_load(weights);
    const float *next = corner + grid.right, *below = corner + grid.down, *across = below + grid.right;
    UNROLL for (int v = 0; v < vectors; v++) sum[0][v] = v_fma_quad(v_load(corner + v * LANES), weight, 0, sum[0][v]);
    UNROLL for (int v = 0; v < vectors; v++) sum[1 % chains][v] = v_fma_quad(v_load(next + v * LANES), weight, 1, sum[1 % chains][v]);
    UNROLL for (int v = 0; v < vectors; v++) sum[2 % chains][v] = v_fma_quad(v_load(below + v * LANES), weight, 2, sum[2 % chains][v]);
    UNROLL for (int v = 0; v < vectors; v++) sum[3 % chains][v] = v_fma_quad(v_load(across + v * LANES), weight, 3, sum[3 % chains][v]);
}

INLINE vec joined(vec sum[][8], int v, int chains) {
    if (chains == 1) return sum[0][v];
    const vec pair = v_add(sum[0][v], sum[1][v]);
    return chains == 2 ? pair : v_add(pair, v_add(sum[2][v], sum[3][v]));
}

// act(bias + sum) of `vectors` vectors of channels for every pixel of a group, channels-last: to[i * stride].
INLINE void sample_group(const AcwfaceDeformSample* op, const float* mixed, const float* bias, const Samples* samples, int count,
                         int vectors, int chains, float* to, ptrdiff_t stride) {
    const Grid grid = grid_of(&op->layer, op->mixed_pixel);
    const ptrdiff_t tap = op->layer.channels;
    const vec slope = v_set(op->layer.negative_slope);
    for (int i = 0; i < count; i++, to += stride) {
        vec sum[4][8];
        UNROLL for (int v = 0; v < vectors; v++) {
            sum[0][v] = v_load(bias + v * LANES);
            UNROLL for (int c = 1; c < chains; c++) sum[c][v] = v_set(0.0f);
        }
        UNROLL for (int k = 0; k < ACWFACE_TAPS; k++)
            add_corners(mixed + samples->pixel[k][i] * grid.pixel + k * tap, grid, samples->weight[k][slot(i)], vectors, chains, sum);
        UNROLL for (int v = 0; v < vectors; v++) v_store(to + v * LANES, v_leaky(joined(sum, v, chains), slope));
    }
}

// The same for channels that do not fill a vector.
static void sample_rest(const AcwfaceDeformSample* op, const float* mixed, const float* bias, const Samples* samples, int count,
                        int channels, float* to, ptrdiff_t stride) {
    const Grid grid = grid_of(&op->layer, op->mixed_pixel);
    for (int i = 0; i < count; i++)
        for (int o = 0; o < channels; o++) {
            float sum = bias[o];
            for (int k = 0; k < ACWFACE_TAPS; k++) {
                const float* corner = mixed + samples->pixel[k][i] * grid.pixel + (ptrdiff_t)k * op->layer.channels + o;
                const float* weight = samples->weight[k][slot(i)];
                for (int c = 0; c < 4; c++) sum += weight[c] * corner[(c / 2 ? grid.down : 0) + (c % 2 ? grid.right : 0)];
            }
            to[i * stride + o] = sum > 0.0f ? sum : op->layer.negative_slope * sum;
        }
}

// From channels-last rows of a group to the output's layout: `channels` of its channels, from `channel` on.
static void store_group(const AcwfaceDeform* layer, const float* rows, ptrdiff_t stride, int32_t first, int count, int32_t channel,
                        int channels) {
    float* out = layer->out + first * layer->out_pixel + channel * layer->out_channel;
    if (layer->out_channel == 1) {
        for (int i = 0; i < count; i++) memcpy(out + i * layer->out_pixel, rows + i * stride, channels * sizeof(float));
    } else if (layer->out_pixel == 1 && count == GROUP && channels % LANES == 0) {
        for (int o = 0; o < channels; o += LANES)
            for (int i = 0; i < GROUP; i += LANES)
                transpose(rows + i * stride + o, stride, out + o * layer->out_channel + i, layer->out_channel);
    } else {
        for (int o = 0; o < channels; o++)
            for (int i = 0; i < count; i++) out[i * layer->out_pixel + o * layer->out_channel] = rows[i * stride + o];
    }
}

// So many channels at once: each weight is fetched once for all of them. Few enough that their sums stay in registers.
enum { WIDE = 8 * LANES < 64 ? 8 * LANES : 64 };
#define CHAINS(vectors) ((vectors) >= 8 ? 1 : (vectors) == 4 ? 2 : 4)

static void sample(const AcwfaceDeformSample* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    const int direct = layer->out_channel == 1;
    Samples samples;
    float rows[GROUP * WIDE];
    for (; first < last; first += GROUP) {
        const int count = last - first < GROUP ? last - first : GROUP;
        locate_group(layer, first, count, &samples);
        for (int32_t channel = 0, width; channel < layer->channels; channel += width) {
            const int32_t left = layer->channels - channel;
            const float *mixed = op->mixed + channel, *bias = layer->bias + channel;
            float* to = direct ? layer->out + first * layer->out_pixel + channel : rows;
            const ptrdiff_t stride = direct ? layer->out_pixel : WIDE;
            if (left >= WIDE)
                sample_group(op, mixed, bias, &samples, count, WIDE / LANES, CHAINS(WIDE / LANES), to, stride), width = WIDE;
            else if (left >= BLOCK)
                sample_group(op, mixed, bias, &samples, count, BLOCK / LANES, CHAINS(BLOCK / LANES), to, stride), width = BLOCK;
            else if (left >= LANES)
                sample_group(op, mixed, bias, &samples, count, 1, CHAINS(1), to, stride), width = LANES;
            else
                sample_rest(op, mixed, bias, &samples, count, left, to, stride), width = left;
            if (!direct) store_group(layer, rows, WIDE, first, count, channel, width);
        }
    }
}

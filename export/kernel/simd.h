// Both forms of the operator in vectors of LANES floats. A file for one instruction set defines what is listed below, includes this,
// and gets `sample` and `conv`.
//
//   LANES                 4, 8 or 16
//   vec, ivec             LANES floats, LANES int32
//   v_load v_store v_set  v_add v_sub v_mul v_div v_fma (a * b + c)  v_abs v_floor v_round
//   v_max_number(a, b)    the greater; b where a is NaN          v_min_number  likewise
//   v_max_nan(a, b)       the greater; NaN where a is NaN        v_min_nan     likewise
//   v_times_exp2(a, n)    a * 2^n for whole n in [-126, 126]
//   v_leaky(v, slope)     v where v > 0, else slope * v
//   v_lane                0, 1, 2, ... as floats
//   i_from, i_set, i_madd (a * b + c), i_store
//   quad, q_load, v_fma_quad(a, q, j, c)      four floats; a * q[j] + c for a constant j (v_mul_quad: a * q[j]). Cheapest where q stays for all four j
//   run, r_load, v_fma_run(a, r, j, c)        the same, cheapest where other values are added in between
//   store_quads(a, b, c, d, to)               (a, b, c, d) of each lane side by side, lanes in the order of slot()
//   transpose(from, from_stride, to, to_stride)   a block of LANES x LANES floats
//
// Work goes by groups of GROUP output pixels, in three steps: the sampling points of the whole group, lanes being pixels; then the
// sums, pixel by pixel, lanes being channels; then the store, through a transposition where the output is NCHW.

#include <math.h>
#include <string.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

enum { GROUP = 16, BLOCK = 16, BLOCK_VECTORS = BLOCK / LANES };

// The sampling points of a group of pixels. Each tap has the pixel at its upper left corner and four weights, row by row, the
// modulator in them. All four corners are always inside the image: see tent(). Pixel i's weights are at slot(i).
typedef struct {
    int32_t pixel[ACWFACE_TAPS][GROUP];
    float weight[ACWFACE_TAPS][GROUP][4];
} Samples;

// Where store_quads leaves lane i, counted in quads: x86 shuffles within 128 bits, so each vector that it stores holds every fourth lane.
INLINE int slot(int i) { return i - i % LANES + i % 4 * (LANES / 4) + i % LANES / 4; }

// exp(x) to 3e-9 and rounding, for x in [-87, 87]: 2^n * exp(r), |r| <= log(2) / 2; the polynomial is a minimax fit. NaN gives NaN.
INLINE vec v_exp(vec x) {
    const vec n = v_round(v_mul(x, v_set(1.44269504f)));
    const vec r = v_fma(n, v_set(-1.42860677e-6f), v_fma(n, v_set(-0.693145752f), x));  // log(2) in two parts
    vec p = v_fma(v_set(0x1.6a244cp-10f), r, v_set(0x1.1239d4p-7f));
    p = v_fma(p, r, v_set(0x1.5558f2p-5f));
    p = v_fma(p, r, v_set(0x1.555492p-3f));
    p = v_fma(p, r, v_set(0x1.fffffcp-2f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_times_exp2(p, n);
}

// The weight of row (or column) `at` for a sample at `point`. It is zero from one row away on, so a point at or beyond the border
// needs no case of its own: whichever two rows inside the image stand for its neighbours, their weights come out right.
INLINE vec tent(vec point, vec at) { return v_max_number(v_sub(v_set(1.0f), v_abs(v_sub(point, at))), v_set(0.0f)); }

// Where the sampling points of pixels [first, first + GROUP) are. `channel` is predicted channel 0 of pixel `first`, its pixels one
// after the other, channels `stride` apart.
static void locate(const AcwfaceDeform* layer, int32_t first, const float* channel, ptrdiff_t stride, Samples* samples) {
    const int32_t width = layer->width, height = layer->height;
    const int32_t row = first / width, column = first % width;
    const vec one = v_set(1.0f), limit = v_set(layer->offset_limit), below = v_set(-layer->offset_limit);
    // The first of the two rows that are read is one of 0 .. height - 2. An image of one row has no second: infinitely far
    // away, its weight is zero, and the sums read row 0 for it.
    const vec top_last = v_set((float)(height > 1 ? height - 2 : 0)), left_last = v_set((float)(width > 1 ? width - 2 : 0));
    const vec down = v_set(height > 1 ? 1.0f : INFINITY), right = v_set(width > 1 ? 1.0f : INFINITY);
    const ivec row_pixels = i_set(width);
    for (int i = 0; i < GROUP; i += LANES, channel += LANES) {
        // Exact: x + 1/2 is at least 1/2 away from a multiple of the width, and quotients are small.
        const vec along = v_add(v_lane(), v_set((float)(column + i)));
        const vec rows = v_floor(v_div(v_add(along, v_set(0.5f)), v_set((float)width)));
        vec tap_y = v_add(rows, v_set((float)(row - 1)));
        const vec first_x = v_sub(v_fma(rows, v_set(-(float)width), along), one);
        for (int k = 0; k < ACWFACE_TAPS; tap_y = v_add(tap_y, one)) {
            vec tap_x = first_x;
            for (int end = k + 3; k < end; k++, tap_x = v_add(tap_x, one)) {
                const float* shift = channel + 2 * k * stride;
                const vec y = v_add(tap_y, v_min_nan(v_max_nan(v_load(shift), below), limit));
                const vec x = v_add(tap_x, v_min_nan(v_max_nan(v_load(shift + stride), below), limit));
                const vec top = v_min_number(v_max_number(v_floor(y), v_set(0.0f)), top_last);
                const vec left = v_min_number(v_max_number(v_floor(x), v_set(0.0f)), left_last);
                i_store(samples->pixel[k] + i, i_madd(i_from(top), row_pixels, i_from(left)));

                const vec m = v_max_nan(v_load(channel + (2 * ACWFACE_TAPS + k) * stride), v_set(-87.0f));
                const vec modulator = v_div(v_set(2.0f), v_add(one, v_exp(v_sub(v_set(0.0f), v_min_nan(m, v_set(87.0f))))));
                const vec upper = v_mul(modulator, tent(y, top)), lower = v_mul(modulator, tent(y, v_add(top, down)));
                const vec near = tent(x, left), far = tent(x, v_add(left, right));
                store_quads(v_mul(upper, near), v_mul(upper, far), v_mul(lower, near), v_mul(lower, far), samples->weight[k][i]);
            }
        }
    }
}

// The same from any layout, and for a last group of fewer pixels: those that are missing are given zeros.
static void locate_group(const AcwfaceDeform* layer, int32_t first, int32_t count, Samples* samples) {
    const float* predicted = layer->predicted + first * layer->predicted_pixel;
    const ptrdiff_t step = layer->predicted_pixel, stride = layer->predicted_channel;
    if (step == 1 && count == GROUP) {
        locate(layer, first, predicted, stride, samples);
        return;
    }
    float local[ACWFACE_PREDICTED * GROUP];
    if (stride == 1 && count == GROUP) {
        for (int i = 0; i < GROUP; i += LANES)
            for (int c = 0; c < ACWFACE_PREDICTED; c += LANES) {
                const int from = c + LANES <= ACWFACE_PREDICTED ? c : ACWFACE_PREDICTED - LANES;  // the last block overlaps
                transpose(predicted + i * step + from, step, local + from * GROUP + i, GROUP);
            }
    } else {
        memset(local, 0, sizeof(local));
        for (int c = 0; c < ACWFACE_PREDICTED; c++)
            for (int i = 0; i < count; i++) local[c * GROUP + i] = predicted[i * step + c * stride];
    }
    locate(layer, first, local, GROUP, samples);
}

// An image in channels-last memory, as the sums read it: floats from a pixel to the next, to its right neighbour, to the one below.
typedef struct {
    ptrdiff_t pixel, right, down;
} Grid;

INLINE Grid grid_of(const AcwfaceDeform* layer, ptrdiff_t pixel) {
    return (Grid){pixel, layer->width > 1 ? pixel : 0, layer->height > 1 ? layer->width * pixel : 0};
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

// The other form. DEPTH sampled values of each pixel of a group at a time (taps one after the other, as the rows of the tap
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
#define NOINLINE static __attribute__((noinline))
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
static void sample_inputs(const AcwfaceDeformConv* op, const Samples* samples, int k, int32_t channel, int channels, float* to) {
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

// rows[i * OUTPUTS + o] += values[i * DEPTH + j] * weight[j * outputs + o] over j, for `vectors` vectors of o and for every pixel i of
// a group, some at a time.
INLINE void multiply(const float* values, int depth, const float* weight, ptrdiff_t outputs, float* rows, int vectors) {
    enum { AT_ONCE = LANES == 16 ? 16 : 4 };  // their sums and one row of weights fit the registers
    for (int i = 0; i < GROUP; i += AT_ONCE, values += AT_ONCE * DEPTH, rows += AT_ONCE * OUTPUTS) {
        vec sum[AT_ONCE][BLOCK_VECTORS];
        UNROLL for (int n = 0; n < AT_ONCE; n++)
            UNROLL for (int v = 0; v < vectors; v++) sum[n][v] = v_load(rows + n * OUTPUTS + v * LANES);
        int j = 0;
        for (; j + 4 <= depth; j += 4) {
            run value[AT_ONCE];
            UNROLL for (int n = 0; n < AT_ONCE; n++) value[n] = r_load(values + n * DEPTH + j);
#define ADD_ROW(R)                                                                                                       \
    do {                                                                                                                 \
        vec row[BLOCK_VECTORS];                                                                                          \
        UNROLL for (int v = 0; v < vectors; v++) row[v] = v_load(weight + (j + R) * outputs + v * LANES);                \
        UNROLL for (int n = 0; n < AT_ONCE; n++)                                                                         \
            UNROLL for (int v = 0; v < vectors; v++) sum[n][v] = v_fma_run(row[v], value[n], R, sum[n][v]);              \
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
                    sum[n][v] = v_fma(v_set(values[n * DEPTH + j]), v_load(weight + j * outputs + v * LANES), sum[n][v]);
        UNROLL for (int n = 0; n < AT_ONCE; n++)
            UNROLL for (int v = 0; v < vectors; v++) v_store(rows + n * OUTPUTS + v * LANES, sum[n][v]);
    }
}

// The same for all of `width` outputs.
static void multiply_all(const float* values, int depth, const float* weight, ptrdiff_t outputs, float* rows, int width) {
    int o = 0;
    for (; o + BLOCK <= width; o += BLOCK) multiply(values, depth, weight + o, outputs, rows + o, BLOCK_VECTORS);
    for (; o + LANES <= width; o += LANES) multiply(values, depth, weight + o, outputs, rows + o, 1);
    for (; o < width; o++)
        for (int i = 0; i < GROUP; i++)
            for (int j = 0; j < depth; j++) rows[i * OUTPUTS + o] += values[i * DEPTH + j] * weight[j * outputs + o];
}

static void start_rows(const float* bias, int width, float* rows) {
    for (int i = 0; i < GROUP; i++) {
        int o = 0;
        for (; o + LANES <= width; o += LANES) v_store(rows + i * OUTPUTS + o, v_load(bias + o));
        for (; o < width; o++) rows[i * OUTPUTS + o] = bias[o];
    }
}

static void activate_rows(float negative_slope, int width, float* rows) {
    const vec slope = v_set(negative_slope);
    for (int i = 0; i < GROUP; i++)
        for (int o = 0; o < width; o += LANES)  // the last vector may reach into what is not used, but never beyond OUTPUTS
            v_store(rows + i * OUTPUTS + o, v_leaky(v_load(rows + i * OUTPUTS + o), slope));
}

static void conv(const AcwfaceDeformConv* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    Samples samples;
    float values[GROUP * DEPTH], rows[GROUP * OUTPUTS];
    for (; first < last; first += GROUP) {
        const int count = last - first < GROUP ? last - first : GROUP;
        locate_group(layer, first, count, &samples);
        for (int32_t channel = 0; channel < layer->channels; channel += OUTPUTS) {
            const int width = layer->channels - channel < OUTPUTS ? layer->channels - channel : OUTPUTS;
            start_rows(layer->bias + channel, width, rows);
            const float* weight = op->weight + channel;
            int depth = 0;
            for (int k = 0; k < ACWFACE_TAPS; k++)
                for (int32_t input = 0, inputs; input < op->in_channels; input += inputs) {
                    inputs = op->in_channels - input < DEPTH ? op->in_channels - input : DEPTH;
                    if (depth + inputs > DEPTH) {
                        multiply_all(values, depth, weight, layer->channels, rows, width);
                        weight += (ptrdiff_t)depth * layer->channels;
                        depth = 0;
                    }
                    sample_inputs(op, &samples, k, input, inputs, values + depth);
                    depth += inputs;
                }
            multiply_all(values, depth, weight, layer->channels, rows, width);
            activate_rows(layer->negative_slope, width, rows);
            store_group(layer, rows, OUTPUTS, first, count, channel, width);
        }
    }
}

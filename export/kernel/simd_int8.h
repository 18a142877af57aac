// The functions of an AcwfaceInt8Kernel, `deform` and `conv3x3`. A file for one instruction set includes its instructions for floats,
// defines what follows, and includes this.
//
//   four, four_load(from)      four values of 0..255, in every lane
//   fours, fours_load(from)    four weights in each lane
//   i_dot(sum, four, fours)    sum + the four products of (value - SHIFT) and weight, in each lane
//   SHIFT                      128 where an instruction multiplies signed values only, else 0
//   v_from(i)                  int32 to float
//   i_load
//   narrow(i, to)              LANES bytes of int32 that are 0..255
//   weigh(corner, right, down, weight, to)   16 channels of what a tap samples; weight[0] to weight[3 * GROUP] of the four pixels, row by
//                              row, and weight[4 * GROUP] what is added; each is twice in its 32 bits
//   AT_ONCE, VECTORS           pixels, and vectors of outputs, whose sums fit the registers
//
// Values of a group of pixels are multiplied where they are together: what a deformable layer samples, tap after tap, RUN of a pixel at
// most; what conv3x3 reads in the image itself, or in a copy where taps reach over its border.

#include "int8_weights.h"
#include "simd_base.h"

enum { RUN = 576, SUMS = 64 };

// The sampling points of a group of pixels.
typedef struct {
    int32_t pixel[ACWFACE_TAPS][GROUP];
    int32_t weight[ACWFACE_TAPS][5][GROUP];  // as weigh() takes them
    float greatest[GROUP];                   // modulator, times 256 / 254
} FixedSamples;

INLINE vec logit_of(const float* channel, ptrdiff_t stride, int k) {
    return v_max_number(v_load(channel + (2 * ACWFACE_TAPS + k) * stride), v_set(-87.0f));  // NaN is -87
}

static void locate_group(const AcwfaceDeform* layer, int32_t in_zero, int32_t first, int32_t count, FixedSamples* samples) {
    float local[ACWFACE_PREDICTED * GROUP];
    ptrdiff_t stride;
    const float* channel = predicted_of(layer, first, count, local, &stride);
    const AcwfaceDeform of = *layer;  // which no store can change, for all that compilers know
    const vec one = v_set(1.0f), twice = v_set(65537.0f);  // exact: weights are below 256
    for (int i = 0; i < GROUP; i += LANES, channel += LANES) {
        vec y, first_x, greatest = logit_of(channel, stride, 0);
        first_tap(&of, first, i, &y, &first_x);
        for (int k = 1; k < ACWFACE_TAPS; k++) greatest = v_max_number(greatest, logit_of(channel, stride, k));
        greatest = modulator(greatest);
        v_store(samples->greatest + i, v_mul(greatest, v_set(256.0f / 254.0f)));
        const vec unit = v_div(v_set(254.0f), greatest);
        for (int k = 0; k < ACWFACE_TAPS; y = v_add(y, one)) {
            vec x = first_x;
            for (int end = k + 3; k < end; k++, x = v_add(x, one)) {
                const Corners at = corners(&of, channel + 2 * k * stride, stride, y, x);
                vec weights[4];
                weigh_corners(at, v_mul(modulator(logit_of(channel, stride, k)), unit), weights);
                i_store(samples->pixel[k] + i, at.pixel);
                vec sum = v_set(0.0f);
                for (int c = 0; c < 4; c++) {
                    const vec weight = v_floor(v_add(weights[c], v_set(0.5f)));
                    sum = v_add(sum, weight);
                    i_store(samples->weight[k][c] + i, i_from(v_mul(weight, twice)));
                }
                const ivec rest = i_madd(i_from(sum), i_set(-in_zero), i_set(in_zero * 256 + 128));
                i_store(samples->weight[k][4] + i, i_madd(rest, i_set(65537), i_set(0)));
            }
        }
    }
}

// Samples `channels` input channels, whole blocks, of one tap for every pixel of a group: to[i * RUN].
INLINE void sample_blocks(const uint8_t* in, Grid grid, const FixedSamples* samples, int k, int32_t channels, uint8_t* to) {
    for (int i = 0; i < GROUP; i++, to += RUN) {
        const uint8_t* corner = in + samples->pixel[k][i] * grid.pixel;
        for (int32_t j = 0; j < channels; j += BLOCK) weigh(corner + j, grid.right, grid.down, samples->weight[k][0] + i, to + j);
    }
}

// The same for channels that do not fill a block.
NOINLINE void sample_rest(const uint8_t* in, Grid grid, const FixedSamples* samples, int k, int32_t channels, uint8_t* to) {
    for (int i = 0; i < GROUP; i++, to += RUN) {
        const int32_t* weight = samples->weight[k][0] + i;
        const uint8_t *corner = in + samples->pixel[k][i] * grid.pixel, *below = corner + grid.down;
        for (int32_t j = 0; j < channels; j++) {
            const int32_t pixels[4] = {corner[j], corner[grid.right + j], below[j], below[grid.right + j]};
            int32_t sum = weight[4 * GROUP] & 0xffff;
            for (int c = 0; c < 4; c++) sum += (weight[c * GROUP] & 0xffff) * pixels[c];
            to[j] = (uint8_t)(sum >> 8);
        }
    }
}

static void sample_tap(const uint8_t* in, Grid grid, const FixedSamples* samples, int k, int32_t channels, uint8_t* to) {
    const int32_t whole = channels / BLOCK * BLOCK;
    if (whole == BLOCK)
        sample_blocks(in, grid, samples, k, BLOCK, to);
    else
        sample_blocks(in, grid, samples, k, whole, to);
    if (whole < channels) sample_rest(in + whole, grid, samples, k, channels - whole, to + whole);
}

// sums[i * SUMS + o] += values[i * step + j] * weight, over j, for `vectors` vectors of o and GROUP rows i, `at_once` of them at a time.
INLINE void multiply(const uint8_t* values, ptrdiff_t step, int depth, const int8_t* weight, ptrdiff_t outputs, int32_t* sums, int at_once,
                     int vectors) {
    for (int i = 0; i < GROUP; i += at_once, values += at_once * step, sums += at_once * SUMS) {
        ivec sum[GROUP][VECTORS];
        UNROLL for (int n = 0; n < at_once; n++)
            UNROLL for (int v = 0; v < vectors; v++) sum[n][v] = i_load(sums + n * SUMS + v * LANES);
        for (int j = 0; j < depth; j += 4) {
            fours row[VECTORS];
            UNROLL for (int v = 0; v < vectors; v++) row[v] = fours_load(weight + j * outputs + 4 * v * LANES);
            UNROLL for (int n = 0; n < at_once; n++) {
                const four value = four_load(values + n * step + j);
                UNROLL for (int v = 0; v < vectors; v++) sum[n][v] = i_dot(sum[n][v], value, row[v]);
            }
        }
        UNROLL for (int n = 0; n < at_once; n++)
            UNROLL for (int v = 0; v < vectors; v++) i_store(sums + n * SUMS + v * LANES, sum[n][v]);
    }
}

// The same for `width` outputs, whole blocks.
static void multiply_all(const uint8_t* values, ptrdiff_t step, int depth, const int8_t* weight, ptrdiff_t outputs, int32_t* sums,
                         int width) {
    int o = 0;
    for (; o + VECTORS * LANES <= width; o += VECTORS * LANES)
        multiply(values, step, depth, weight + 4 * o, outputs, sums + o, AT_ONCE, VECTORS);
    for (; o < width; o += BLOCK) multiply(values, step, depth, weight + 4 * o, outputs, sums + o, AT_ONCE, BLOCK_VECTORS);
}

// -zero * (sum of weights): what products of values have too much.
static void start_sums(const AcwfaceInt8Weights* weights, int32_t zero, int32_t channel, int width, int32_t* sums) {
    for (int o = 0; o < width; o += LANES) {
        const ivec start = i_madd(i_load(weights->sum + channel + o), i_set(SHIFT - zero), i_set(0));
        for (int i = 0; i < GROUP; i++) i_store(sums + i * SUMS + o, start);
    }
}

// act(amount * scale * sum + bias) of one vector of outputs, or without activation for a slope of 1.
INLINE vec finished(const AcwfaceInt8Weights* weights, const int32_t* sums, int32_t channel, vec amount, vec slope) {
    const vec scale = v_mul(amount, v_load(weights->scale + channel));
    return v_leaky(v_fma(v_from(i_load(sums)), scale, v_load(weights->bias + channel)), slope);
}

// Where the vector of outputs at `o` begins, of `width` outputs: the last one overlaps where they are no whole vectors.
INLINE int vector_at(int o, int width) { return o + LANES <= width ? o : width - LANES; }

// A group's rows of values on their way: taps are added until a run is full.
typedef struct {
    uint8_t values[GROUP * RUN];
    int32_t sums[GROUP * SUMS];
    const int8_t* weight;
    int depth;
} Run;

static void flush(Run* run, const AcwfaceInt8Weights* weights, int width) {
    multiply_all(run->values, RUN, run->depth, run->weight, weights->outputs, run->sums, width);
    run->weight += (ptrdiff_t)run->depth * weights->outputs;
    run->depth = 0;
}

static void add_taps(const AcwfaceInt8Deform* op, const AcwfaceInt8Weights* weights, const FixedSamples* samples, int width, Run* run) {
    const Grid grid = grid_of(&op->layer, op->in_pixel);
    for (int k = 0; k < ACWFACE_TAPS; k++)
        for (int32_t input = 0, inputs; input < op->in_channels; input += inputs) {
            inputs = op->in_channels - input < RUN ? op->in_channels - input : RUN;
            if (run->depth + acwface_fours(inputs) > RUN) flush(run, weights, width);
            sample_tap(op->in + input, grid, samples, k, inputs, run->values + run->depth);
            run->depth += acwface_fours(inputs);
        }
    flush(run, weights, width);
}

static void deform(const AcwfaceInt8Deform* op, int32_t first, int32_t last) {
    const AcwfaceDeform* layer = &op->layer;
    const AcwfaceInt8Weights weights = acwface_int8_weights(op->weight, op->in_channels, layer->channels);
    const vec slope = v_set(layer->negative_slope), zero = v_set((float)op->out_zero);
    FixedSamples samples;
    Run run;
    memset(run.values, 0, sizeof(run.values));  // what fills up fours is multiplied by zero
    for (; first < last; first += GROUP) {
        const int count = last - first < GROUP ? last - first : GROUP;
        locate_group(layer, op->in_zero, first, count, &samples);
        for (int32_t channel = 0; channel < layer->channels; channel += SUMS) {
            const int wanted = layer->channels - channel < SUMS ? layer->channels - channel : SUMS, width = acwface_padded(wanted);
            start_sums(&weights, op->in_zero, channel, width, run.sums);
            run.weight = weights.weight + 4 * channel;
            run.depth = 0;
            add_taps(op, &weights, &samples, width, &run);
            uint8_t *out = op->out + first * op->out_pixel + channel, few[LANES];
            for (int i = 0; i < count; i++, out += op->out_pixel) {
                const vec amount = v_set(samples.greatest[i]);
                for (int o = 0; o < wanted; o += LANES) {
                    const int at = wanted < LANES ? 0 : vector_at(o, wanted);
                    const vec value = v_add(v_round(finished(&weights, run.sums + i * SUMS + at, channel + at, amount, slope)), zero);
                    narrow(i_from(v_max_number(v_min_number(value, v_set(255.0f)), v_set(0.0f))), wanted < LANES ? few : out + at);
                }
                if (wanted < LANES) memcpy(out, few, wanted);
            }
        }
    }
}

// Some input channels of the three rows of pixels that conv3x3 needs for a group in one row of outputs.
enum { STRIP = 192, COLUMNS = GROUP + 2 };

// Copies channels [input, input + channels) of pixels (y - 1, x - 1) to (y + 1, x + count): a pixel's begin `step` behind those before it.
static void copy_strip(const AcwfaceInt8Conv3x3* op, int32_t y, int32_t x, int count, int32_t input, int32_t channels, int step,
                       uint8_t* to) {
    const int from = x > 0 ? 0 : 1, end = x + count < op->width ? count + 2 : count + 1;
    for (int row = 0; row < 3; row++, to += COLUMNS * step) {
        const int32_t at = y + row - 1;
        memset(to, op->in_zero, (size_t)(count + 2) * step);
        if (at < 0 || at >= op->height) continue;
        const uint8_t* in = op->in + ((ptrdiff_t)at * op->width + x - 1) * op->in_pixel + input;
        if (op->in_pixel == channels && channels == step)
            memcpy(to + from * step, in + from * step, (size_t)(end - from) * step);
        else
            for (int i = from; i < end; i++) memcpy(to + i * step, in + i * op->in_pixel, channels);
    }
}

// Adds the three rows of taps whose values are at `from`, pixels `step` apart.
static void add_rows(const uint8_t* from, ptrdiff_t row, int step, const int8_t* weight, const AcwfaceInt8Weights* weights, int32_t* sums,
                     int width) {
    for (int y = 0; y < 3; y++, from += row) {
        if (step == weights->inputs) {  // a row of taps is one run of values, and one of weights
            multiply_all(from, step, 3 * step, weight, weights->outputs, sums, width);
            weight += (ptrdiff_t)3 * step * weights->outputs;
        } else {
            for (int x = 0; x < 3; x++, weight += (ptrdiff_t)weights->inputs * weights->outputs)
                multiply_all(from + x * step, step, step, weight, weights->outputs, sums, width);
        }
    }
}

static void conv3x3(const AcwfaceInt8Conv3x3* op, int32_t first, int32_t last) {
    const AcwfaceInt8Weights weights = acwface_int8_weights(op->weight, op->in_channels, op->out_channels);
    const vec one = v_set(1.0f);
    const int dense = op->in_pixel == op->in_channels && op->in_channels == weights.inputs;
    int32_t sums[GROUP * SUMS];
    uint8_t strip[3 * COLUMNS * STRIP];
    memset(strip, 0, sizeof(strip));  // products with what is beyond a group are not used
    for (int count; first < last; first += count) {
        const int32_t y = first / op->width, x = first % op->width;
        count = last - first < GROUP ? last - first : GROUP;
        if (count > op->width - x) count = op->width - x;
        const int inside = count == GROUP && y > 0 && y < op->height - 1 && x > 0 && x + GROUP < op->width;
        for (int32_t channel = 0; channel < op->out_channels; channel += SUMS) {
            const int wanted = op->out_channels - channel < SUMS ? op->out_channels - channel : SUMS, width = acwface_padded(wanted);
            const int8_t* weight = weights.weight + 4 * channel;
            start_sums(&weights, op->in_zero, channel, width, sums);
            if (inside && dense) {
                const ptrdiff_t row = op->width * op->in_pixel;
                add_rows(op->in + (first - 1) * op->in_pixel - row, row, weights.inputs, weight, &weights, sums, width);
            } else {
                for (int32_t input = 0, inputs; input < op->in_channels; input += inputs) {
                    inputs = op->in_channels - input < STRIP ? op->in_channels - input : STRIP;
                    const int step = acwface_fours(inputs);
                    copy_strip(op, y, x, count, input, inputs, step, strip);
                    add_rows(strip, COLUMNS * step, step, weight + (ptrdiff_t)input * weights.outputs, &weights, sums, width);
                }
            }
            float *out = op->out + first * op->out_pixel + channel, few[LANES];
            for (int i = 0; i < count; i++, out += op->out_pixel) {
                for (int o = 0; o < wanted; o += LANES) {
                    const int at = wanted < LANES ? 0 : vector_at(o, wanted);
                    v_store(wanted < LANES ? few : out + at, finished(&weights, sums + i * SUMS + at, channel + at, one, one));
                }
                if (wanted < LANES) memcpy(out, few, wanted * sizeof(float));
            }
        }
    }
}

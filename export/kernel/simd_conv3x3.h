// acwface_conv3x3: Winograd's F(2x2, 3x3), by groups of tiles. Part of simd.h.
//
// Each tile's 4x4 input pixels are transformed channel by channel; at each of the 16 points the group's tiles are multiplied by that
// point's matrix (SLICE input channels at a time, so that what is transformed stays in the cache); and 16 sums become 2x2 output pixels.

enum { SLICE = 32, SUMS = 64 };

// From a point to the next. The extra 64 bytes keep the points out of each other's places in a cache.
enum { VALUES_POINT = GROUP * SLICE + 16, SUMS_POINT = GROUP * SUMS + 16 };

// A group on its way: where its tiles' output pixels begin, SLICE transformed input channels of each tile at each point, and SUMS outputs.
typedef struct {
    int32_t top[GROUP], left[GROUP];
    float values[ACWFACE_POINTS][VALUES_POINT];
    float sums[ACWFACE_POINTS][SUMS_POINT];
} Tiles;

// `channels` channels of a tile's 4x4 pixels, `right` and `down` floats apart, to a group's values at each point: B^T d B of Lavin and
// Gray 2016, section 4.1. Whole vectors are read.
INLINE void transform_input(const float* pixel, ptrdiff_t right, ptrdiff_t down, int channels, float* to) {
    for (int channel = 0; channel < channels; channel += LANES, pixel += LANES, to += LANES) {
        vec t[4][4];
        UNROLL for (int x = 0; x < 4; x++) {
            const float* column = pixel + x * right;
            const vec a = v_load(column), b = v_load(column + down), c = v_load(column + 2 * down), d = v_load(column + 3 * down);
            t[0][x] = v_sub(a, c);
            t[1][x] = v_add(b, c);
            t[2][x] = v_sub(c, b);
            t[3][x] = v_sub(b, d);
        }
        UNROLL for (int y = 0; y < 4; y++) {
            float* point = to + 4 * y * VALUES_POINT;
            v_store(point, v_sub(t[y][0], t[y][2]));
            v_store(point + VALUES_POINT, v_add(t[y][1], t[y][2]));
            v_store(point + 2 * VALUES_POINT, v_sub(t[y][2], t[y][1]));
            v_store(point + 3 * VALUES_POINT, v_sub(t[y][1], t[y][3]));
        }
    }
}

// Input channels [channel, channel + channels) of the tile whose output pixels begin at (top, left).
static void transform_tile(const AcwfaceConv3x3* op, int32_t top, int32_t left, int32_t channel, int channels, float* to) {
    const ptrdiff_t right = op->in_pixel, down = op->width * right;
    if (top > 0 && left > 0 && top + 2 < op->height && left + 2 < op->width && channels % LANES == 0) {
        transform_input(op->in + (top - 1) * down + (left - 1) * right + channel, right, down, channels, to);
        return;
    }
    float local[16 * SLICE] = {0.0f};  // pixels outside the image and channels beyond the last are zero
    for (int i = 0; i < 16; i++) {
        const int32_t y = top - 1 + i / 4, x = left - 1 + i % 4;
        if (y < 0 || y >= op->height || x < 0 || x >= op->width) continue;
        memcpy(local + i * SLICE, op->in + y * down + x * right + channel, channels * sizeof(float));
    }
    transform_input(local, SLICE, 4 * SLICE, channels, to);
}

// Up to LANES outputs from the sums at each point, bias added, to the output pixels of the tile that begin at (top, left): A^T m A.
INLINE void transform_output(const AcwfaceConv3x3* op, const float* sums, const float* bias, int32_t top, int32_t left, int32_t channel,
                             int outputs) {
    vec rows[2][4];
    UNROLL for (int x = 0; x < 4; x++, sums += SUMS_POINT) {
        const vec b = v_load(sums + 4 * SUMS_POINT), c = v_load(sums + 8 * SUMS_POINT);
        rows[0][x] = v_add(v_add(v_load(sums), b), c);
        rows[1][x] = v_sub(v_sub(b, c), v_load(sums + 12 * SUMS_POINT));
    }
    const vec start = v_load(bias);
    const ptrdiff_t right = op->out_pixel, down = op->width * right;
    float* out = op->out + top * down + left * right + channel;
    UNROLL for (int y = 0; y < 2; y++, out += down) {
        if (top + y >= op->height) return;
        const vec first = v_add(start, v_add(v_add(rows[y][0], rows[y][1]), rows[y][2]));
        const vec second = v_add(start, v_sub(v_sub(rows[y][1], rows[y][2]), rows[y][3]));
        if (outputs == LANES) {
            v_store(out, first);
            if (left + 1 < op->width) v_store(out + right, second);
        } else {
            float lanes[2 * LANES];
            v_store(lanes, first);
            v_store(lanes + LANES, second);
            memcpy(out, lanes, outputs * sizeof(float));
            if (left + 1 < op->width) memcpy(out + right, lanes + LANES, outputs * sizeof(float));
        }
    }
}

// All outputs of a group, from its sums: `outputs` from `channel` on.
static void transform_outputs(const AcwfaceConv3x3* op, const Tiles* tiles, int count, const float* bias, int32_t channel, int outputs) {
    for (int i = 0; i < count; i++)
        for (int o = 0; o < outputs; o += LANES) {
            // The last vector begins earlier rather than end later, if it can.
            const int from = o + LANES > outputs && outputs >= LANES ? outputs - LANES : o;
            transform_output(op, tiles->sums[0] + i * SUMS + from, bias + from, tiles->top[i], tiles->left[i], channel + from,
                             outputs < LANES ? outputs : LANES);
        }
}

static void conv3x3(const AcwfaceConv3x3* op, int32_t first, int32_t last) {
    const int32_t padded = acwface_padded(op->out_channels), columns = (op->width + 1) / 2;
    const float* bias = op->weight + (ptrdiff_t)ACWFACE_POINTS * op->in_channels * padded;
    Tiles tiles;
    for (; first < last; first += GROUP) {
        const int count = last - first < GROUP ? last - first : GROUP;
        if (count < GROUP) memset(tiles.values, 0, sizeof(tiles.values));  // tiles that are not there are multiplied, too
        for (int i = 0; i < count; i++) {
            tiles.top[i] = (first + i) / columns * 2;
            tiles.left[i] = (first + i) % columns * 2;
        }
        for (int32_t channel = 0; channel < op->out_channels; channel += SUMS) {
            const int width = padded - channel < SUMS ? padded - channel : SUMS;
            for (int32_t input = 0; input < op->in_channels; input += SLICE) {
                const int depth = op->in_channels - input < SLICE ? op->in_channels - input : SLICE;
                for (int i = 0; i < count; i++)
                    transform_tile(op, tiles.top[i], tiles.left[i], input, depth, tiles.values[0] + i * SLICE);
                for (int p = 0; p < ACWFACE_POINTS; p++) {
                    const float* weight = op->weight + ((ptrdiff_t)p * op->in_channels + input) * padded + channel;
                    for (int o = 0; o < width; o += BLOCK)
                        if (input == 0)
                            multiply(tiles.values[p], SLICE, depth, weight + o, padded, tiles.sums[p] + o, SUMS, BLOCK_VECTORS, 0);
                        else
                            multiply(tiles.values[p], SLICE, depth, weight + o, padded, tiles.sums[p] + o, SUMS, BLOCK_VECTORS, 1);
                }
            }
            const int outputs = op->out_channels - channel < SUMS ? op->out_channels - channel : SUMS;
            transform_outputs(op, &tiles, count, bias + channel, channel, outputs);
        }
    }
}

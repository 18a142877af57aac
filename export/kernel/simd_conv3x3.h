// acwface_conv3x3: Winograd's F(2x2, 3x3), by groups of tiles. Part of simd.h.
//
// Each tile's 4x4 input pixels are transformed channel by channel; at each of the 16 points the group's tiles are multiplied by that
// point's matrix (SLICE input channels at a time, so that what is transformed stays in the cache); and 16 sums become 2x2 output pixels.

enum { SLICE = 32, SUMS = 64 };

// A group on its way: SLICE transformed input channels, and SUMS outputs, of each tile at each point.
typedef struct {
    float values[ACWFACE_POINTS][GROUP * SLICE];
    float sums[ACWFACE_POINTS][GROUP * SUMS];
} Tiles;

// LANES channels of a tile's 4x4 pixels, row by row, to a group's values at each point: B^T d B of Lavin and Gray 2016, section 4.1.
INLINE void transform_input(const float* const pixels[16], int channel, float* to) {
    vec t[4][4];
    UNROLL for (int x = 0; x < 4; x++) {
        const vec a = v_load(pixels[x] + channel), b = v_load(pixels[4 + x] + channel);
        const vec c = v_load(pixels[8 + x] + channel), d = v_load(pixels[12 + x] + channel);
        t[0][x] = v_sub(a, c);
        t[1][x] = v_add(b, c);
        t[2][x] = v_sub(c, b);
        t[3][x] = v_sub(b, d);
    }
    UNROLL for (int y = 0; y < 4; y++, to += 4 * GROUP * SLICE) {
        v_store(to, v_sub(t[y][0], t[y][2]));
        v_store(to + GROUP * SLICE, v_add(t[y][1], t[y][2]));
        v_store(to + 2 * GROUP * SLICE, v_sub(t[y][2], t[y][1]));
        v_store(to + 3 * GROUP * SLICE, v_sub(t[y][1], t[y][3]));
    }
}

// Input channels [channel, channel + channels) of one tile.
static void transform_tile(const AcwfaceConv3x3* op, int32_t tile, int32_t channel, int channels, float* to) {
    static const float outside[SLICE];
    const int32_t columns = (op->width + 1) / 2, top = tile / columns * 2 - 1, left = tile % columns * 2 - 1;
    const float* pixels[16];
    for (int i = 0; i < 16; i++) {
        const int32_t y = top + i / 4, x = left + i % 4;
        const int inside = y >= 0 && y < op->height && x >= 0 && x < op->width;
        pixels[i] = inside ? op->in + ((ptrdiff_t)y * op->width + x) * op->in_pixel + channel : outside;
    }
    int c = 0;
    for (; c + LANES <= channels; c += LANES) transform_input(pixels, c, to + c);
    if (c < channels) {  // a vector would reach beyond the pixel
        float rest[16][LANES] = {{0.0f}};
        for (int i = 0; i < 16; i++) {
            memcpy(rest[i], pixels[i] + c, (channels - c) * sizeof(float));
            pixels[i] = rest[i];
        }
        transform_input(pixels, 0, to + c);
    }
}

// LANES outputs of a tile from its sums at each point, bias added, to its output pixels: A^T m A. `outputs` of the lanes are wanted.
INLINE void transform_output(const AcwfaceConv3x3* op, const float* sums, const float* bias, int32_t tile, int32_t channel, int outputs) {
    const int32_t columns = (op->width + 1) / 2, top = tile / columns * 2, left = tile % columns * 2;
    vec rows[2][4];
    UNROLL for (int x = 0; x < 4; x++) {
        const vec a = v_load(sums + x * GROUP * SUMS), b = v_load(sums + (4 + x) * GROUP * SUMS);
        const vec c = v_load(sums + (8 + x) * GROUP * SUMS), d = v_load(sums + (12 + x) * GROUP * SUMS);
        rows[0][x] = v_add(v_add(a, b), c);
        rows[1][x] = v_sub(v_sub(b, c), d);
    }
    const vec start = v_load(bias);
    UNROLL for (int y = 0; y < 2; y++) {
        const vec pair[2] = {v_add(start, v_add(v_add(rows[y][0], rows[y][1]), rows[y][2])),
                             v_add(start, v_sub(v_sub(rows[y][1], rows[y][2]), rows[y][3]))};
        UNROLL for (int x = 0; x < 2; x++) {
            if (top + y >= op->height || left + x >= op->width) continue;
            float* out = op->out + ((ptrdiff_t)(top + y) * op->width + left + x) * op->out_pixel + channel;
            if (outputs == LANES) {
                v_store(out, pair[x]);
            } else {
                float lanes[LANES];
                v_store(lanes, pair[x]);
                memcpy(out, lanes, outputs * sizeof(float));
            }
        }
    }
}

static void conv3x3(const AcwfaceConv3x3* op, int32_t first, int32_t last) {
    const int32_t padded = acwface_padded(op->out_channels);
    const float* bias = op->weight + (ptrdiff_t)ACWFACE_POINTS * op->in_channels * padded;
    Tiles tiles;
    for (; first < last; first += GROUP) {
        const int count = last - first < GROUP ? last - first : GROUP;
        if (count < GROUP) memset(tiles.values, 0, sizeof(tiles.values));  // tiles that are not there are multiplied, too
        for (int32_t channel = 0; channel < op->out_channels; channel += SUMS) {
            const int width = padded - channel < SUMS ? padded - channel : SUMS;
            for (int32_t input = 0; input < op->in_channels; input += SLICE) {
                const int depth = op->in_channels - input < SLICE ? op->in_channels - input : SLICE;
                for (int i = 0; i < count; i++) transform_tile(op, first + i, input, depth, tiles.values[0] + i * SLICE);
                for (int p = 0; p < ACWFACE_POINTS; p++) {
                    const float* weight = op->weight + ((ptrdiff_t)p * op->in_channels + input) * padded + channel;
                    for (int o = 0; o < width; o += BLOCK)
                        multiply(tiles.values[p], SLICE, depth, weight + o, padded, tiles.sums[p] + o, SUMS, BLOCK_VECTORS, input > 0);
                }
            }
            const int outputs = op->out_channels - channel < SUMS ? op->out_channels - channel : SUMS;
            for (int i = 0; i < count; i++)
                for (int o = 0; o < outputs; o += LANES) {
                    // The last vector begins earlier rather than end later, if it can.
                    const int from = o + LANES > outputs && outputs >= LANES ? outputs - LANES : o;
                    transform_output(op, tiles.sums[0] + i * SUMS + from, bias + channel + from, first + i, channel + from,
                                     outputs - from < LANES ? outputs - from : LANES);
                }
        }
    }
}

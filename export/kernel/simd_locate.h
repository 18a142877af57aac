// Where the taps of a group of pixels sample, and with what weights. Part of simd.h.

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

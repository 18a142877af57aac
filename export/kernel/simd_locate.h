// Where the taps of a group of pixels sample, and with what weights. Part of simd_base.h.

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

// 2 * sigmoid(m).
INLINE vec modulator(vec m) {
    m = v_min_nan(v_max_nan(m, v_set(-87.0f)), v_set(87.0f));
    return v_div(v_set(2.0f), v_add(v_set(1.0f), v_exp(v_sub(v_set(0.0f), m))));
}

// An image in channels-last memory, as samples read it: values from a pixel to the next, to its right neighbour, to the one below.
typedef struct {
    ptrdiff_t pixel, right, down;
} Grid;

INLINE Grid grid_of(const AcwfaceDeform* layer, ptrdiff_t pixel) {
    return (Grid){pixel, layer->width > 1 ? pixel : 0, layer->height > 1 ? layer->width * pixel : 0};
}

// Where one tap of LANES pixels samples: the pixel at the upper left corner, and the weights of its row, the row below, its column and the
// next one. All four corners are always inside the image: see tent().
typedef struct {
    ivec pixel;
    vec upper, lower, near, far;
} Corners;

// `shift` is the tap's dy of pixel 0, its dx `stride` behind; it samples at (tap_y, tap_x) without.
INLINE Corners corners(const AcwfaceDeform* layer, const float* shift, ptrdiff_t stride, vec tap_y, vec tap_x) {
    const int32_t width = layer->width, height = layer->height;
    const vec limit = v_set(layer->offset_limit), below = v_set(-layer->offset_limit);
    // The first of the two rows that are read is one of 0 .. height - 2. An image of one row has no second: infinitely far
    // away, its weight is zero, and the sums read row 0 for it.
    const vec top_last = v_set((float)(height > 1 ? height - 2 : 0)), left_last = v_set((float)(width > 1 ? width - 2 : 0));
    const vec down = v_set(height > 1 ? 1.0f : INFINITY), right = v_set(width > 1 ? 1.0f : INFINITY);
    const vec y = v_add(tap_y, v_min_nan(v_max_nan(v_load(shift), below), limit));
    const vec x = v_add(tap_x, v_min_nan(v_max_nan(v_load(shift + stride), below), limit));
    const vec top = v_min_number(v_max_number(v_floor(y), v_set(0.0f)), top_last);
    const vec left = v_min_number(v_max_number(v_floor(x), v_set(0.0f)), left_last);
    return (Corners){
        .pixel = i_madd(i_from(top), i_set(width), i_from(left)),
        .upper = tent(y, top),
        .lower = tent(y, v_add(top, down)),
        .near = tent(x, left),
        .far = tent(x, v_add(left, right)),
    };
}

// What the four pixels weigh, row by row: `amount` together, where none of them is outside the image.
INLINE void weigh_corners(Corners at, vec amount, vec weight[4]) {
    const vec upper = v_mul(amount, at.upper), lower = v_mul(amount, at.lower);
    weight[0] = v_mul(upper, at.near);
    weight[1] = v_mul(upper, at.far);
    weight[2] = v_mul(lower, at.near);
    weight[3] = v_mul(lower, at.far);
}

// Where tap 0 of pixels [first + i, first + i + LANES) samples without shifts. Exact: x + 1/2 is at least 1/2 away from a multiple of the
// width, and quotients are small.
INLINE void first_tap(const AcwfaceDeform* layer, int32_t first, int i, vec* y, vec* x) {
    const vec along = v_add(v_lane(), v_set((float)(first % layer->width + i)));
    const vec rows = v_floor(v_div(v_add(along, v_set(0.5f)), v_set((float)layer->width)));
    *y = v_add(rows, v_set((float)(first / layer->width - 1)));
    *x = v_sub(v_fma(rows, v_set(-(float)layer->width), along), v_set(1.0f));
}

// Predicted channel 0 of a group of `count` pixels, pixels one after the other and channels *stride apart: as they lie, or from any other
// layout copied to `local`, where missing pixels are given zeros.
static const float* predicted_of(const AcwfaceDeform* layer, int32_t first, int32_t count, float* local, ptrdiff_t* stride) {
    const float* predicted = layer->predicted + first * layer->predicted_pixel;
    const ptrdiff_t step = layer->predicted_pixel;
    *stride = layer->predicted_channel;
    if (step == 1 && count == GROUP) return predicted;
    if (*stride == 1 && count == GROUP) {
        for (int i = 0; i < GROUP; i += LANES)
            for (int c = 0; c < ACWFACE_PREDICTED; c += LANES) {
                const int from = c + LANES <= ACWFACE_PREDICTED ? c : ACWFACE_PREDICTED - LANES;  // the last block overlaps
                transpose(predicted + i * step + from, step, local + from * GROUP + i, GROUP);
            }
    } else {
        memset(local, 0, ACWFACE_PREDICTED * GROUP * sizeof(float));
        for (int c = 0; c < ACWFACE_PREDICTED; c++)
            for (int i = 0; i < count; i++) local[c * GROUP + i] = predicted[i * step + c * *stride];
    }
    *stride = GROUP;
    return local;
}

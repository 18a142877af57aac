// Sampling half of a deformable 3x3 convolution (DCNv2, Zhu et al. 2019) for training on a CPU, forward and backward.
//
// The channels have been mixed already (sampling acts on space, the tap matrix on channels, so they commute):
//   out[n, h, w, o] = sum over taps k of mask[n, h, w, k] * bilinear(mixed[n, :, :, k, o], h + k / 3 - 1 + dy, w + k % 3 - 1 + dx)
// with zeros outside the image, as torchvision.ops.deform_conv2d has it. All arrays are dense and channels-last:
//   mixed (N, H, W, 9, O), offset (N, H, W, 18) as (dy, dx) for each tap, mask (N, H, W, 9), out (N, H, W, O); O a multiple of 16.
// Images are independent: each is one thread's, by OpenMP, whose threads are the same that torch's own operators run in.

#include <cmath>
#include <cstring>

namespace {

constexpr int TAPS = 9;

// The four pixels round a sampling point. One outside the image stands for a zero: it has weight 0 and some pixel's index.
template <typename T>
struct Corners {
    T wy[2], wx[2];  // weights of the upper and lower row, left and right column
    long pixel[4];   // row by row
    T inside[4];     // 1 or 0
};

// A point that is a pixel or more outside (or NaN) is moved to where all its corners are outside: zero, without a gradient.
template <typename T>
inline Corners<T> locate(T y, T x, int height, int width) {
    const bool near = y > -1 && y < height && x > -1 && x < width;
    const T top = near ? std::floor(y) : T(-2), left = near ? std::floor(x) : T(-2);
    const int row = int(top), column = int(left);
    Corners<T> corners;
    corners.wy[1] = near ? y - top : T(0);
    corners.wy[0] = 1 - corners.wy[1];
    corners.wx[1] = near ? x - left : T(0);
    corners.wx[0] = 1 - corners.wx[1];
    const int rows[2] = {row < 0 ? 0 : row, row + 1 < 0 ? 0 : row + 1 >= height ? height - 1 : row + 1};
    const int columns[2] = {column < 0 ? 0 : column, column + 1 < 0 ? 0 : column + 1 >= width ? width - 1 : column + 1};
    const T in_rows[2] = {T(row >= 0), T(row + 1 >= 0 && row + 1 < height)};
    const T in_columns[2] = {T(column >= 0), T(column + 1 >= 0 && column + 1 < width)};
    for (int c = 0; c < 4; c++) {
        corners.pixel[c] = long(rows[c / 2]) * width + columns[c % 2];
        corners.inside[c] = in_rows[c / 2] * in_columns[c % 2];
    }
    return corners;
}

// 64 bytes of channels at once, whatever the processor's registers are; GCC and Clang have this type.
template <typename T>
struct Lanes {
    static constexpr int COUNT = 64 / sizeof(T);
    typedef T Vector __attribute__((vector_size(64)));
    static Vector load(const T* from) {
        Vector values;
        std::memcpy(&values, from, sizeof(values));
        return values;
    }
    static void store(T* to, Vector values) { std::memcpy(to, &values, sizeof(values)); }
    static T sum(Vector values) {  // by halves: compilers add lane after lane otherwise
        typedef T Half __attribute__((vector_size(32)));
        typedef T Quarter __attribute__((vector_size(16)));
        Half halves[2];
        Quarter quarters[2];
        std::memcpy(halves, &values, sizeof(halves));
        halves[0] += halves[1];
        std::memcpy(quarters, halves, sizeof(quarters));
        quarters[0] += quarters[1];
        T total = 0;
        for (int lane = 0; lane < COUNT / 4; lane++) total += quarters[0][lane];
        return total;
    }
};

template <typename T>
void forward(const T* mixed, const T* offset, const T* mask, T* out, int threads, int images, int height, int width, int channels) {
    using L = Lanes<T>;
    const long pixels = long(height) * width;
#pragma omp parallel for num_threads(threads)
    for (int n = 0; n < images; n++)
        for (int h = 0; h < height; h++)
            for (int w = 0; w < width; w++) {
                const long here = n * pixels + long(h) * width + w;
                T weights[TAPS * 4];
                const T* bases[TAPS * 4];
                for (int k = 0; k < TAPS; k++) {
                    const T* shift = offset + here * 2 * TAPS + 2 * k;
                    const Corners<T> corners = locate<T>(h + k / 3 - 1 + shift[0], w + k % 3 - 1 + shift[1], height, width);
                    for (int c = 0; c < 4; c++) {
                        weights[4 * k + c] = mask[here * TAPS + k] * corners.wy[c / 2] * corners.wx[c % 2] * corners.inside[c];
                        bases[4 * k + c] = mixed + ((n * pixels + corners.pixel[c]) * TAPS + k) * channels;
                    }
                }
                for (int o = 0; o < channels; o += L::COUNT) {
                    typename L::Vector sum = {};
                    for (int i = 0; i < TAPS * 4; i++) sum += weights[i] * L::load(bases[i] + o);
                    L::store(out + here * channels + o, sum);
                }
            }
}

// grad_mixed must be zero on entry; grad_offset and grad_mask are written everywhere.
template <typename T>
void backward(const T* mixed, const T* offset, const T* mask, const T* grad, T* grad_mixed, T* grad_offset, T* grad_mask, int threads,
              int images, int height, int width, int channels) {
    using L = Lanes<T>;
    const long pixels = long(height) * width;
#pragma omp parallel for num_threads(threads)
    for (int n = 0; n < images; n++)
        for (int h = 0; h < height; h++)
            for (int w = 0; w < width; w++) {
                const long here = n * pixels + long(h) * width + w;
                const T* g = grad + here * channels;
                for (int k = 0; k < TAPS; k++) {
                    const T* shift = offset + here * 2 * TAPS + 2 * k;
                    const Corners<T> corners = locate<T>(h + k / 3 - 1 + shift[0], w + k % 3 - 1 + shift[1], height, width);
                    const T *wy = corners.wy, *wx = corners.wx;
                    const T scale = mask[here * TAPS + k];
                    T worth[4];  // of each corner's value
                    for (int c = 0; c < 4; c++) {
                        const T weight = scale * wy[c / 2] * wx[c % 2] * corners.inside[c];
                        const long base = ((n * pixels + corners.pixel[c]) * TAPS + k) * channels;
                        typename L::Vector dot = {};
                        for (int o = 0; o < channels; o += L::COUNT) {
                            const typename L::Vector values = L::load(g + o);
                            dot += values * L::load(mixed + base + o);
                            L::store(grad_mixed + base + o, L::load(grad_mixed + base + o) + weight * values);
                        }
                        worth[c] = L::sum(dot) * corners.inside[c];
                    }
                    grad_mask[here * TAPS + k] = wy[0] * (wx[0] * worth[0] + wx[1] * worth[1]) + wy[1] * (wx[0] * worth[2] + wx[1] * worth[3]);
                    T* grad_shift = grad_offset + here * 2 * TAPS + 2 * k;
                    grad_shift[0] = scale * (wx[0] * (worth[2] - worth[0]) + wx[1] * (worth[3] - worth[1]));
                    grad_shift[1] = scale * (wy[0] * (worth[1] - worth[0]) + wy[1] * (worth[3] - worth[2]));
                }
            }
}

}  // namespace

#define EXPORT(T, NAME)                                                                                                             \
    extern "C" void deform_forward_##NAME(const T* mixed, const T* offset, const T* mask, T* out, int threads, int images,          \
                                          int height, int width, int channels) {                                                    \
        forward<T>(mixed, offset, mask, out, threads, images, height, width, channels);                                             \
    }                                                                                                                               \
    extern "C" void deform_backward_##NAME(const T* mixed, const T* offset, const T* mask, const T* grad, T* grad_mixed,            \
                                           T* grad_offset, T* grad_mask, int threads, int images, int height, int width,            \
                                           int channels) {                                                                          \
        backward<T>(mixed, offset, mask, grad, grad_mixed, grad_offset, grad_mask, threads, images, height, width, channels);       \
    }

EXPORT(float, float)
EXPORT(double, double)

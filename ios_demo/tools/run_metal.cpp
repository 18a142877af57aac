// Runs App/DeformSample.metal, compiled as C++, on layers that come on stdin: height, width, channels, offset limit, slope, then predicted,
// mixed and bias, channels last. Prints what each layer gives.

#include "../App/DeformSample.metal"

#include <iostream>

// An array (rows, columns, channels) in the order that DeformSample.metal describes.
struct Array {
  unsigned rows, columns, channels;
  std::vector<half4> texels;

  Array(unsigned rows, unsigned columns, unsigned channels)
      : rows(rows), columns(columns), channels(channels), texels((rows + 3) / 4 * columns * channels) {}

  half& at(unsigned row, unsigned column, unsigned channel) { return texels[(row / 4 * columns + column) * channels + channel][row % 4]; }

  template <access a>
  operator texture2d_array<half, a>() {
    return {channels, columns, (rows + 3) / 4, texels.data()};
  }

  template <typename Visit>
  void each(Visit visit) {
    for (unsigned row = 0; row < rows; row++)
      for (unsigned column = 0; column < columns; column++)
        for (unsigned channel = 0; channel < channels; channel++) visit(at(row, column, channel));
  }
};

int main() {
  unsigned height, width, channels;
  float limit, slope;
  while (std::cin >> height >> width >> channels >> limit >> slope) {
    Array predicted(height, width, 27), mixed(height, width, 9 * channels), bias(1, 1, channels), out(height, width, channels);
    for (Array* array : {&predicted, &mixed, &bias}) array->each([](half& value) { std::cin >> value; });
    const Parameters parameters = {int(height), limit > 0 ? limit : INFINITY, slope};
    for (unsigned slice = 0; slice < (height + 3) / 4; slice++)
      for (unsigned column = 0; column < width; column++)
        for (unsigned channel = 0; channel < channels; channel++)
          acwface_deform_sample(predicted, mixed, bias, out, parameters, uint3{channel, column, slice});
    out.each([](half& value) { std::cout << value << "\n"; });
  }
}

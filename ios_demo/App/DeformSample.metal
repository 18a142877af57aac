// DeformSample of export/kernel/README.md on the GPU, where Core ML's custom layers get textures instead of arrays.
//
// How textures hold arrays of four axes is not documented. Taken here: what is documented for (channels, height, width), that x is the last
// axis, y the one before, and that each texel holds four of the axis before that. The arrays are (1, H, W, channels), so x is the channel,
// y the column, and a slice has four rows. The app compares the outcome with the C kernel before it uses it.

#include <metal_stdlib>

using namespace metal;

struct Parameters {
  int height;
  float offset_limit;  // pixels; infinity for none
  float negative_slope;
};

static float value(texture2d_array<half> array, int row, int column, int channel) {
  return array.read(uint2(channel, column), row / 4)[row % 4];
}

// Zero outside the image.
static float sample(texture2d_array<half> mixed, int height, float y, float x, int channel) {
  const int width = mixed.get_height();
  if (!(y > -1 && y < height && x > -1 && x < width)) return 0;  // also if one is NaN
  const int top = int(floor(y)), left = int(floor(x));
  const float down = y - top, right = x - left;
  float sum = 0;
  for (int corner = 0; corner < 4; corner++) {
    const int row = top + corner / 2, column = left + corner % 2;
    if (row < 0 || row >= height || column < 0 || column >= width) continue;
    const float weight = (corner / 2 ? down : 1 - down) * (corner % 2 ? right : 1 - right);
    sum += weight * value(mixed, row, column, channel);
  }
  return sum;
}

kernel void acwface_deform_sample(
    texture2d_array<half> predicted [[texture(0)]], texture2d_array<half> mixed [[texture(1)]],
    texture2d_array<half> bias [[texture(2)]], texture2d_array<half, access::write> out [[texture(3)]],
    constant Parameters& parameters [[buffer(0)]], uint3 at [[thread_position_in_grid]]) {
  const int channels = out.get_width(), channel = at.x, column = at.y;
  const float limit = parameters.offset_limit;
  // An array of one axis: along x, or four to a slice.
  const float offset = bias.get_width() > 1 ? bias.read(uint2(channel, 0), 0)[0] : bias.read(uint2(0, 0), channel / 4)[channel % 4];
  half4 texel = 0;
  for (int lane = 0; lane < 4; lane++) {
    const int row = 4 * at.z + lane;
    if (row >= parameters.height) break;
    float sum = offset;
    for (int tap = 0; tap < 9; tap++) {
      const float dy = clamp(value(predicted, row, column, 2 * tap), -limit, limit);
      const float dx = clamp(value(predicted, row, column, 2 * tap + 1), -limit, limit);
      const float modulator = 2 / (1 + exp(-value(predicted, row, column, 18 + tap)));
      sum += modulator * sample(mixed, parameters.height, row + tap / 3 - 1 + dy, column + tap % 3 - 1 + dx, tap * channels + channel);
    }
    texel[lane] = half(sum > 0 ? sum : parameters.negative_slope * sum);
  }
  out.write(texel, uint2(channel, column), at.z);
}

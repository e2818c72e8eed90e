#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/host.h"
#include "winograd_conv2d/params.h"

namespace ganops {
namespace {

// Frequencies that are worked on at a time: a convolution's stay in the last cache. The filter's gradient is summed
// over such chunks, and passing through it costs as much as a few hundred tiles.
constexpr int64_t kChunkBytes = 16 << 20, kGradientChunkBytes = 128 << 20;

Tensor new_floats(const Tensor& like, const std::vector<int64_t>& size) {
  return in_huge_pages(
      torch::stable::empty({size.data(), size.size()}, ScalarType::Float, std::nullopt, like.device()));
}

const float* floats(const Tensor& t) {
  return static_cast<const float*>(t.const_data_ptr());
}

const float* floats(const std::optional<Tensor>& t) {
  return static_cast<const float*>(data_or_null(t));
}

float* mutable_floats(Tensor& t) {
  return static_cast<float*>(t.mutable_data_ptr());
}

// The image in tiles, of which the convolution's result has height x width outputs.
WinogradTiles tiles_of(const Tensor& image, int64_t pad_y, int64_t pad_x, int64_t height, int64_t width) {
  const int64_t in_row = ceil_div(width, kOutputs), in_image = in_row * ceil_div(height, kOutputs);
  return {image.size(1), image.size(2), image.size(3), pad_y, pad_x, in_row, in_image, 0, image.size(0) * in_image};
}

// f(first, count) for chunks of tiles, a multiple of `step` but the last, whose frequencies have so many channels.
template <class F>
void for_chunks(int64_t tiles, int64_t channels, int64_t step, int64_t bytes, const F& f) {
  const int64_t step_bytes = step * channels * kFrequencies * static_cast<int64_t>(sizeof(float));
  const int64_t chunk = step * std::max<int64_t>(bytes / std::max<int64_t>(step_bytes, 1), 1);
  for (int64_t first = 0; first < tiles; first += chunk) f(first, std::min(chunk, tiles - first));
}

}  // namespace

// x [N, I, H, W] times scale [N, I], and weight [O, I, 3, 3], correlated with stride 1 and this padding; in float32.
Tensor winograd_conv2d(const Tensor& x_any, const Tensor& weight, const std::optional<Tensor>& scale_any, int64_t pad_y,
                       int64_t pad_x) {
  const Tensor x = torch::stable::contiguous(x_any), taps = *in_compute_dtype(x, weight);
  const std::optional<Tensor> scale = in_compute_dtype(x, scale_any);
  const int64_t in = x.size(1), out = weight.size(0);
  const int64_t height = x.size(2) + 2 * pad_y - 2, width = x.size(3) + 2 * pad_x - 2;
  Tensor y = new_floats(x, {x.size(0), out, height, width});
  Tensor filters = new_floats(x, {kFrequencies, ceil_div(out, kGroup), in, kGroup});
  launch_winograd_filter_cpu({floats(taps), mutable_floats(filters), out, in});

  const WinogradTiles x_tiles = tiles_of(x, pad_y, pad_x, height, width), y_tiles = tiles_of(y, 0, 0, height, width);
  for_chunks(x_tiles.count, in, kPanel, kChunkBytes, [&](int64_t first, int64_t count) {
    Tensor frequencies = new_floats(x, {kFrequencies, ceil_div(count, kPanel), in, kPanel});
    WinogradToFrequencies input{x_tiles, floats(x), floats(scale), mutable_floats(frequencies), kPanel};
    WinogradOutput output{y_tiles, floats(filters), floats(frequencies), in, mutable_floats(y)};
    input.first = output.first = first;
    input.count = output.count = count;
    launch_winograd_input_cpu(input);
    launch_winograd_output_cpu(output);
  });
  return y;
}

// The gradient [O, I, 3, 3] of that convolution's weight; dy [N, O, H', W'] is its result's, times dy_scale [N, O].
Tensor winograd_conv2d_weight_grad(const Tensor& dy_any, const Tensor& x_any, const std::optional<Tensor>& dy_scale_any,
                                   const std::optional<Tensor>& x_scale_any, int64_t pad_y, int64_t pad_x) {
  const Tensor dy = torch::stable::contiguous(dy_any), x = torch::stable::contiguous(x_any);
  const std::optional<Tensor> dy_scale = in_compute_dtype(x, dy_scale_any), x_scale = in_compute_dtype(x, x_scale_any);
  const int64_t in = x.size(1), out = dy.size(1);
  Tensor dweight = new_floats(x, {out, in, kTaps, kTaps});
  torch::stable::zero_(dweight);

  const WinogradTiles x_tiles = tiles_of(x, pad_y, pad_x, dy.size(2), dy.size(3));
  const WinogradTiles dy_tiles = tiles_of(dy, 0, 0, dy.size(2), dy.size(3));
  for_chunks(x_tiles.count, in + out, 1, kGradientChunkBytes, [&](int64_t first, int64_t count) {
    Tensor x_frequencies = new_floats(x, {kFrequencies, in, count});
    Tensor dy_frequencies = new_floats(x, {kFrequencies, out, count});
    WinogradToFrequencies of_x{x_tiles, floats(x), floats(x_scale), mutable_floats(x_frequencies), count};
    WinogradToFrequencies of_dy{dy_tiles, floats(dy), floats(dy_scale), mutable_floats(dy_frequencies), count};
    of_x.first = of_dy.first = first;
    of_x.count = of_dy.count = count;
    launch_winograd_input_cpu(of_x);
    launch_winograd_output_gradient_cpu(of_dy);
    const Tensor filters = torch::stable::matmul(dy_frequencies, torch::stable::transpose(x_frequencies, 1, 2));
    launch_winograd_filter_gradient_cpu({floats(filters), mutable_floats(dweight), out * in});
  });
  return dweight;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("winograd_conv2d", TORCH_BOX(&ganops::winograd_conv2d));
  m.impl("winograd_conv2d_weight_grad", TORCH_BOX(&ganops::winograd_conv2d_weight_grad));
}

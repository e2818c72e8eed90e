#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/host.h"
#include "winograd_conv2d/params.h"

namespace ganops {
namespace {

// Frequencies that are worked on at a time: a convolution's stay in the last cache. The filter's gradient is summed
// over such chunks, and passing through it costs as much as a few hundred tiles.
constexpr int64_t kChunkBytes = 16 << 20, kGradientChunkBytes = 96 << 20;
constexpr int64_t kLine = 64 / sizeof(float);  // of a cache

// [kFrequencies, count], a few lines of a cache apart: a power of two would put all frequencies into the same few
// places of the cache.
Tensor new_frequencies(const Tensor& like, int64_t count) {
  Tensor rows = new_tensor(like, {kFrequencies, count + 3 * kLine});
  return torch::stable::narrow(rows, 1, 0, count);
}

// One matrix of rows x columns for each frequency.
Tensor matrices(const Tensor& frequencies, int64_t rows, int64_t columns) {
  const int64_t size[] = {kFrequencies, rows, columns};
  return torch::stable::view(frequencies, {size, 3});
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

void check_float_image(const char* name, const Tensor& t) {
  check_image(name, t);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, name, " must be float32");
}

// Of the result, along one axis.
int64_t outputs(int64_t size, int64_t pad) {
  const int64_t out = size + 2 * pad - kTaps + 1;
  STD_TORCH_CHECK(pad >= 0 && out >= 1, "padding ", pad, " around ", size, " pixels leaves no output");
  return out;
}

// The image in tiles, of which the convolution's result has height x width outputs.
WinogradTiles tiles_of(const Tensor& image, int64_t pad_y, int64_t pad_x, int64_t height, int64_t width) {
  const int64_t in_row = ceil_div(width, kOutputs), in_image = in_row * ceil_div(height, kOutputs);
  return {image.size(1), image.size(2), image.size(3), pad_y, pad_x, in_row, in_image, 0, image.size(0) * in_image};
}

// f(first, count) for chunks of tiles, about equal and all but the last a multiple of `step`, whose frequencies, of so
// many channels, are about so many bytes.
template <class F>
void for_chunks(int64_t tiles, int64_t channels, int64_t step, int64_t bytes, const F& f) {
  const int64_t all_bytes = tiles * channels * kFrequencies * static_cast<int64_t>(sizeof(float));
  const int64_t chunk = ceil_div(ceil_div(tiles, std::max<int64_t>(ceil_div(all_bytes, bytes), 1)), step) * step;
  for (int64_t first = 0; first < tiles; first += chunk) f(first, std::min(chunk, tiles - first));
}

}  // namespace

// x [N, I, H, W] times scale [N, I], and weight [O, I, 3, 3], correlated with stride 1 and this padding, times
// out_scale [N, O]; in float32.
Tensor winograd_conv2d(const Tensor& x_any, const Tensor& weight, const std::optional<Tensor>& scale_any,
                       const std::optional<Tensor>& out_scale_any, int64_t pad_y, int64_t pad_x) {
  check_float_image("x", x_any);
  STD_TORCH_CHECK(
      weight.dim() == 4 && weight.size(1) == x_any.size(1) && weight.size(2) == kTaps && weight.size(3) == kTaps,
      "weight must be [O, ", x_any.size(1), ", 3, 3]");
  const Tensor x = torch::stable::contiguous(x_any), taps = *in_compute_dtype(x, weight);
  const int64_t in = x.size(1), out = weight.size(0);
  const std::optional<Tensor> scale = operand("scale", x, scale_any, {x.size(0), in}),
                              out_scale = operand("out_scale", x, out_scale_any, {x.size(0), out});
  const int64_t height = outputs(x.size(2), pad_y), width = outputs(x.size(3), pad_x);
  Tensor y = new_tensor(x, {x.size(0), out, height, width});
  Tensor filters = new_frequencies(x, ceil_div(out, kGroup) * in * kGroup);
  launch_winograd_filter_cpu({floats(taps), mutable_floats(filters), out, in, filters.stride(0)});

  const WinogradTiles x_tiles = tiles_of(x, pad_y, pad_x, height, width), y_tiles = tiles_of(y, 0, 0, height, width);
  for_chunks(x_tiles.count, in, kPanel, kChunkBytes, [&](int64_t first, int64_t count) {
    Tensor frequencies = new_frequencies(x, ceil_div(count, kPanel) * in * kPanel);
    const int64_t stride = frequencies.stride(0);
    WinogradToFrequencies input{x_tiles, floats(x), floats(scale), mutable_floats(frequencies), kPanel, stride};
    WinogradOutput output{y_tiles, floats(filters),   floats(frequencies), filters.stride(0), stride,
                          in,      floats(out_scale), mutable_floats(y)};
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
  check_float_image("dy", dy_any);
  check_float_image("x", x_any);
  STD_TORCH_CHECK(dy_any.size(0) == x_any.size(0) && dy_any.size(2) == outputs(x_any.size(2), pad_y) &&
                      dy_any.size(3) == outputs(x_any.size(3), pad_x),
                  "dy must have x's samples and the size of its convolution");
  const Tensor dy = torch::stable::contiguous(dy_any), x = torch::stable::contiguous(x_any);
  const int64_t n = x.size(0), in = x.size(1), out = dy.size(1);
  const std::optional<Tensor> dy_scale = operand("dy_scale", dy, dy_scale_any, {n, out}),
                              x_scale = operand("x_scale", x, x_scale_any, {n, in});
  Tensor dweight = new_tensor(x, {out, in, kTaps, kTaps});
  torch::stable::zero_(dweight);

  const WinogradTiles x_tiles = tiles_of(x, pad_y, pad_x, dy.size(2), dy.size(3));
  const WinogradTiles dy_tiles = tiles_of(dy, 0, 0, dy.size(2), dy.size(3));
  for_chunks(x_tiles.count, in + out, kLine, kGradientChunkBytes, [&](int64_t first, int64_t count) {
    Tensor x_frequencies = new_frequencies(x, in * count), dy_frequencies = new_frequencies(x, out * count);
    const int64_t x_stride = x_frequencies.stride(0), dy_stride = dy_frequencies.stride(0);
    WinogradToFrequencies of_x{x_tiles, floats(x), floats(x_scale), mutable_floats(x_frequencies), count, x_stride};
    WinogradToFrequencies of_dy{dy_tiles, floats(dy), floats(dy_scale), mutable_floats(dy_frequencies),
                                count,    dy_stride};
    of_x.first = of_dy.first = first;
    of_x.count = of_dy.count = count;
    launch_winograd_input_cpu(of_x);
    launch_winograd_output_gradient_cpu(of_dy);
    const Tensor filters = torch::stable::matmul(matrices(dy_frequencies, out, count),
                                                 torch::stable::transpose(matrices(x_frequencies, in, count), 1, 2));
    launch_winograd_filter_gradient_cpu({floats(filters), mutable_floats(dweight), out * in});
  });
  return dweight;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("winograd_conv2d", TORCH_BOX(&ganops::winograd_conv2d));
  m.impl("winograd_conv2d_weight_grad", TORCH_BOX(&ganops::winograd_conv2d_weight_grad));
}

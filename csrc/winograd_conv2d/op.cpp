#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/host.h"
#include "winograd_conv2d/params.h"

namespace ganops {
namespace {

// Frequencies that are worked on at a time stay in the last cache.
constexpr int64_t kChunkBytes = 32 << 20;

// G (x) G: the frequencies of a filter, [kFrequencies, 9], are this times its taps.
Tensor filter_transform(const Tensor& like) {
  const double a2 = kA * kA, b2 = kB * kB;
  const double of_a = 1 / (2 * a2 * (a2 - b2)), of_b = 1 / (2 * b2 * (b2 - a2));
  const double g[kInputs][3] = {{1 / (a2 * b2), 0, 0},         {of_a, of_a * kA, of_a * a2},
                                {of_a, -of_a * kA, of_a * a2}, {of_b, of_b * kB, of_b * b2},
                                {of_b, -of_b * kB, of_b * b2}, {0, 0, 1}};
  const int64_t size[] = {kFrequencies, 9};
  Tensor transform = torch::stable::empty({size, 2}, ScalarType::Float, std::nullopt, like.device());
  float* to = static_cast<float*>(transform.mutable_data_ptr());
  for (int64_t y = 0; y < kInputs; y++)
    for (int64_t x = 0; x < kInputs; x++)
      for (int64_t i = 0; i < 3; i++)
        for (int64_t j = 0; j < 3; j++) *to++ = static_cast<float>(g[y][i] * g[x][j]);
  return transform;
}

Tensor frequencies(const Tensor& like, int64_t channels, int64_t tiles) {
  const int64_t size[] = {kFrequencies, channels, tiles};
  return in_huge_pages(torch::stable::empty({size, 3}, ScalarType::Float, std::nullopt, like.device()));
}

}  // namespace

// x [N, I, H, W] and weight [O, I, 3, 3], both float32, correlated with stride 1 and this padding.
Tensor winograd_conv2d(const Tensor& x_any, const Tensor& weight, int64_t pad_y, int64_t pad_x) {
  const Tensor x = torch::stable::contiguous(x_any);
  const int64_t batch = x.size(0), in = x.size(1), out = weight.size(0);
  const int64_t height = x.size(2) + 2 * pad_y - 2, width = x.size(3) + 2 * pad_x - 2;
  const int64_t y_size[] = {batch, out, height, width}, taps_size[] = {out * in, 9},
                filter_size[] = {kFrequencies, out, in};
  Tensor y = in_huge_pages(torch::stable::empty({y_size, 4}, ScalarType::Float, std::nullopt, x.device()));
  const Tensor taps = torch::stable::view(torch::stable::contiguous(weight), {taps_size, 2});
  const Tensor filters = torch::stable::view(
      torch::stable::matmul(filter_transform(x), torch::stable::transpose(taps, 0, 1)), {filter_size, 3});

  const int64_t tiles_x = ceil_div(width, kOutputs), tiles_y = ceil_div(height, kOutputs);
  const int64_t row_bytes = batch * tiles_x * kFrequencies * (in + out) * static_cast<int64_t>(sizeof(float));
  const int64_t rows = std::clamp<int64_t>(kChunkBytes / std::max<int64_t>(row_bytes, 1), 1, tiles_y);
  for (int64_t first = 0; first < tiles_y; first += rows) {
    WinogradParams p{};
    p.batch = batch;
    p.first_row = first;
    p.rows = std::min(rows, tiles_y - first);
    p.tiles_x = tiles_x;
    const int64_t tiles = batch * p.rows * tiles_x;

    Tensor of_input = frequencies(x, in, tiles);
    p.image = const_cast<float*>(static_cast<const float*>(x.const_data_ptr()));
    p.frequencies = static_cast<float*>(of_input.mutable_data_ptr());
    p.channels = in;
    p.height = x.size(2);
    p.width = x.size(3);
    p.pad_y = pad_y;
    p.pad_x = pad_x;
    p.frequency_stride = in * tiles;
    launch_winograd_input_cpu(p);

    Tensor of_output = torch::stable::matmul(filters, of_input);
    p.image = static_cast<float*>(y.mutable_data_ptr());
    p.frequencies = static_cast<float*>(of_output.mutable_data_ptr());
    p.channels = out;
    p.height = height;
    p.width = width;
    p.frequency_stride = out * tiles;
    launch_winograd_output_cpu(p);
  }
  return y;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("winograd_conv2d", TORCH_BOX(&ganops::winograd_conv2d));
}

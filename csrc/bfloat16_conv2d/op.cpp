#include <torch/csrc/stable/ops.h>

#include "bfloat16_conv2d/params.h"
#include "common/host.h"

namespace ganops {
namespace {

int64_t outputs(int64_t size, int64_t pad, int64_t taps) {
  const int64_t out = size + 2 * pad - taps + 1;
  STD_TORCH_CHECK(pad >= 0 && out >= 1, "padding ", pad, " around ", size, " pixels leaves no output");
  return out;
}

}  // namespace

// x [N, I, H, W] times scale [N, I], and weight [O, I, kh, kw], correlated with stride 1 and this padding: bfloat16
// factors where x has that dtype, and the three products of params.h where it is float32.
Tensor bfloat16_conv2d(const Tensor& x_any, const Tensor& weight, const std::optional<Tensor>& scale_any, int64_t pad_y,
                       int64_t pad_x) {
  const bool is_float = x_any.scalar_type() == ScalarType::Float;
  STD_TORCH_CHECK(x_any.dim() == 4 && (is_float || x_any.scalar_type() == ScalarType::BFloat16),
                  "x must be [N, C, H, W] in bfloat16 or float32");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == x_any.size(1) && weight.numel() > 0, "weight must be [O, ",
                  x_any.size(1), ", kh, kw]");
  STD_TORCH_CHECK(!scale_any || (scale_any->dim() == 2 && scale_any->size(0) == x_any.size(0) &&
                                 scale_any->size(1) == x_any.size(1)),
                  "scale must be [", x_any.size(0), ", ", x_any.size(1), "]");
  const Tensor x = torch::stable::contiguous(x_any), taps = *in_compute_dtype(x, weight);
  const std::optional<Tensor> scale = in_compute_dtype(x, scale_any);
  const int64_t n = x.size(0), in = x.size(1), out = weight.size(0);
  const int64_t kernel_height = weight.size(2), kernel_width = weight.size(3);
  const int64_t out_height = outputs(x.size(2), pad_y, kernel_height);
  const int64_t out_width = outputs(x.size(3), pad_x, kernel_width);
  Tensor y = new_tensor(x, {n, out, out_height, out_width});

  // Tiles of a matrix unit are multiplied in pairs of groups.
  const int64_t groups = ceil_div(out, 2 * kFilterRows) * 2, blocks = ceil_div(in, 2 * kPairs),
                parts = is_float ? 2 : 1;
  const int64_t count = groups * parts * kernel_height * kernel_width * blocks * kFilterBlock;
  Tensor filters = new_tensor(x, {count, is_float ? 1 : 2});
  auto* packed = static_cast<uint32_t*>(filters.mutable_data_ptr());
  launch_bfloat16_filters_cpu({static_cast<const float*>(taps.const_data_ptr()), packed, out, in,
                               kernel_height * kernel_width, groups, blocks, parts});

  Bfloat16Conv2dParams p{};
  p.x = x.const_data_ptr();
  p.scale = static_cast<const float*>(data_or_null(scale));
  p.filters = packed;
  p.y = y.mutable_data_ptr();
  p.dtype = dtype_of(x);
  p.n = n, p.in = in, p.height = x.size(2), p.width = x.size(3);
  p.out = out, p.out_height = out_height, p.out_width = out_width;
  p.kernel_height = kernel_height, p.kernel_width = kernel_width;
  p.pad_y = pad_y, p.pad_x = pad_x;
  p.blocks = blocks, p.parts = parts;
  if (kernel_height * kernel_width == 1 && pad_y == 0 && pad_x == 0) {  // all pixels are one row
    p.width = p.out_width = p.height * p.width;
    p.height = p.out_height = 1;
  }
  launch_bfloat16_conv2d_cpu(p);
  return y;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("bfloat16_conv2d", TORCH_BOX(&ganops::bfloat16_conv2d));
}

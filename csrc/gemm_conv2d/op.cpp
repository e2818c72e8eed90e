#include <torch/csrc/stable/ops.h>

#include "common/host.h"
#include "gemm_conv2d/params.h"

namespace ganops {
namespace {

int64_t outputs(int64_t size, int64_t pad, int64_t taps) {
  const int64_t out = size + 2 * pad - taps + 1;
  STD_TORCH_CHECK(pad >= 0 && out >= 1, "padding ", pad, " around ", size, " pixels leaves no output");
  return out;
}

}  // namespace

// x [N, I, H, W] times scale [N, I], in bfloat16 or float32, and weight [O, I, kh, kw] with stride 1 and this padding:
// correlated, or convolved if it flips; times out_scale [N, O]. splits: float32 as bfloat16x3 of params.h.
Tensor gemm_conv2d(const Tensor& x_any, const Tensor& weight, const std::optional<Tensor>& scale_any,
                   const std::optional<Tensor>& out_scale_any, int64_t pad_y, int64_t pad_x, bool flips, bool splits) {
  const bool is_float = x_any.scalar_type() == ScalarType::Float;
  check_image("x", x_any);
  STD_TORCH_CHECK(is_float || x_any.scalar_type() == ScalarType::BFloat16, "x must be bfloat16 or float32");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == x_any.size(1) && weight.numel() > 0, "weight must be [O, ",
                  x_any.size(1), ", kh, kw]");
  const bool is_pointwise = weight.size(2) * weight.size(3) == 1 && pad_y == 0 && pad_x == 0;
  const bool few_outputs = is_pointwise && weight.size(0) <= kFewOutputs;
  const Factors of_dtype = !is_float ? Factors::bfloat16 : splits ? Factors::bfloat16x3 : Factors::float32;
  const Factors factors = few_outputs ? Factors::float32 : of_dtype;
  const Tensor x = torch::stable::contiguous(x_any);
  const Tensor taps = weight.scalar_type() == ScalarType::Float ? weight : torch::stable::to(weight, ScalarType::Float);
  const int64_t n = x.size(0), in = x.size(1), out = weight.size(0);
  const std::optional<Tensor> scale = operand("scale", x, scale_any, {n, in}),
                              out_scale = operand("out_scale", x, out_scale_any, {n, out});
  const int64_t kernel_height = weight.size(2), kernel_width = weight.size(3);
  const int64_t out_height = outputs(x.size(2), pad_y, kernel_height);
  const int64_t out_width = outputs(x.size(3), pad_x, kernel_width);
  Tensor y = new_tensor(x, {n, out, out_height, out_width});

  GemmFilters f{};
  f.filters = static_cast<const float*>(taps.const_data_ptr());
  for (int64_t dim = 0; dim < 4; dim++) f.strides[dim] = taps.stride(dim);
  for (int64_t dim = 2; dim < 4 && flips; dim++) {
    f.filters += (taps.size(dim) - 1) * taps.stride(dim);
    f.strides[dim] = -taps.stride(dim);
  }
  f.factors = factors;
  f.out = out, f.in = in, f.kernel_height = kernel_height, f.kernel_width = kernel_width;
  f.groups = ceil_div(out, 2 * kFilterRows) * 2;  // tiles of a matrix unit are multiplied in pairs of groups
  f.blocks = ceil_div(in, channels_in_word(factors) * kFilterWords);
  const int64_t words = f.groups * parts_of(factors) * kernel_height * kernel_width * f.blocks * kFilterBlock;
  Tensor packed = new_tensor(x, {words, is_float ? 1 : 2});
  f.packed = static_cast<uint32_t*>(packed.mutable_data_ptr());
  launch_gemm_filters_cpu(f);

  GemmConv2dParams p{};
  p.x = x.const_data_ptr();
  p.scale = static_cast<const float*>(data_or_null(scale));
  p.out_scale = static_cast<const float*>(data_or_null(out_scale));
  p.filters = f.packed;
  p.y = y.mutable_data_ptr();
  p.dtype = dtype_of(x);
  p.factors = factors;
  p.n = n, p.in = in, p.height = x.size(2), p.width = x.size(3);
  p.out = out, p.out_height = out_height, p.out_width = out_width;
  p.kernel_height = kernel_height, p.kernel_width = kernel_width;
  p.pad_y = pad_y, p.pad_x = pad_x;
  p.blocks = f.blocks;
  p.few_outputs = few_outputs;
  if (is_pointwise) {  // all pixels are one row
    p.width = p.out_width = p.height * p.width;
    p.height = p.out_height = 1;
  }
  launch_gemm_conv2d_cpu(p);
  return y;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("gemm_conv2d", TORCH_BOX(&ganops::gemm_conv2d));
}

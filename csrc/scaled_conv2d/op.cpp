#include "bias_act/activation.h"
#include "scaled_conv2d/params.h"

namespace ganops {

// padding is (x_before, x_after, y_before, y_after); axis 0 is x.
inline ScaledConv2dAxis make_axis(int axis, int64_t in, int64_t taps, int64_t up, int64_t down,
                                  const std::vector<int64_t>& padding) {
  const int64_t before = padding[2 * axis], after = padding[2 * axis + 1];
  return {in, (in * up + before + after - taps + down) / down, taps, before};
}

template <void (*launch)(const ScaledConv2dParams&, void* stream)>
Tensor scaled_conv2d(const Tensor& x_any, const Tensor& weight_any, const std::optional<Tensor>& x_scale,
                     const std::optional<Tensor>& y_scale, const std::optional<Tensor>& noise,
                     const std::optional<Tensor>& b, int64_t up, int64_t down, const std::vector<int64_t>& padding,
                     StringHandle act, double alpha, double gain, double clamp) {
  const ActivationParams activation = parse_activation(act, alpha, gain, clamp);
  check_image("x", x_any);
  STD_TORCH_CHECK(weight_any.dim() == 4 && weight_any.size(1) == x_any.size(1) && weight_any.numel() > 0,
                  "weight must be [O, ", x_any.size(1), ", kh, kw], and not empty");
  check_device("weight", x_any, weight_any);
  STD_TORCH_CHECK(up >= 1 && down >= 1, "up and down must be at least 1");
  check_padding(padding);
  const Tensor x = dense(x_any);
  const auto weight = in_compute_dtype(x, weight_any);

  ScaledConv2dParams p{};
  p.samples = x.size(0);
  p.in_channels = x.size(1);
  p.out_channels = weight->size(0);
  p.packed_channels = ceil_div(p.in_channels, 8) * 8;
  p.up = up;
  p.down = down;
  p.width = make_axis(0, x.size(3), weight->size(3), up, down, padding);
  p.height = make_axis(1, x.size(2), weight->size(2), up, down, padding);
  STD_TORCH_CHECK(p.width.out >= 1 && p.height.out >= 1, "an output of ", p.height.out, "x", p.width.out,
                  " must be at least 1x1");
  const auto x_scale_c = operand("x_scale", x, x_scale, {p.samples, p.in_channels}),
             y_scale_c = operand("y_scale", x, y_scale, {p.samples, p.out_channels}),
             noise_c = noise_for(x, noise, p.height.out, p.width.out), b_c = operand("b", x, b, {p.out_channels});
  const MemoryFormat format = format_of(x);
  Tensor y = new_tensor(x, {p.samples, p.out_channels, p.height.out, p.width.out}, format);
  Tensor packed = new_tensor(x, {p.height.taps, p.width.taps, p.out_channels, p.packed_channels});
  p.x = x.const_data_ptr();
  p.weight = weight->const_data_ptr();
  p.x_scale = data_or_null(x_scale_c);
  p.y_scale = data_or_null(y_scale_c);
  p.noise = data_or_null(noise_c);
  p.b = data_or_null(b_c);
  p.packed = packed.mutable_data_ptr();
  p.y = y.mutable_data_ptr();
  p.noise_stride = noise && noise->size(0) > 1 ? p.height.out * p.width.out : 0;
  p.dtype = dtype_of(x);
  p.channels_last = format == MemoryFormat::ChannelsLast;
  p.activation = activation;
  if (y.numel() > 0) launch(p, stream_of(x));
  return y;
}

}  // namespace ganops

GANOPS_REGISTER_CUDA(scaled_conv2d, launch_scaled_conv2d)

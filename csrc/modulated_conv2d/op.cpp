#include "bias_act/activation.h"
#include "modulated_conv2d/params.h"

namespace ganops {

using LaunchEpilogue = void (*)(const EpilogueParams&, void* stream);

// Of x, which is dense, into y, which is like x or x itself.
inline void run_epilogue(LaunchEpilogue launch, const Tensor& x, const Tensor& y, const std::optional<Tensor>& scale,
                         const std::optional<Tensor>& noise, const std::optional<Tensor>& b,
                         const ActivationParams& activation) {
  const auto scale_c = operand("scale", x, scale, {x.size(0), x.size(1)}),
             noise_c = noise_for(x, noise, x.size(2), x.size(3)), b_c = operand("b", x, b, {x.size(1)});

  EpilogueParams p{};
  p.x = x.const_data_ptr();
  p.scale = data_or_null(scale_c);
  p.noise = data_or_null(noise_c);
  p.b = data_or_null(b_c);
  p.y = y.mutable_data_ptr();
  p.batch = x.size(0);
  p.channels = x.size(1);
  p.pixels = x.size(2) * x.size(3);
  p.noise_stride = noise && noise->size(0) > 1 ? p.pixels : 0;
  p.channels_last = is_channels_last(x);
  p.dtype = dtype_of(x);
  p.activation = activation;
  if (x.numel() > 0) launch(p, stream_of(x));
}

template <LaunchEpilogue launch>
Tensor modulated_conv2d_epilogue(const Tensor& x_any, const std::optional<Tensor>& scale,
                                 const std::optional<Tensor>& noise, const std::optional<Tensor>& b, StringHandle act,
                                 double alpha, double gain, double clamp) {
  const ActivationParams activation = parse_activation(act, alpha, gain, clamp);
  check_image("x", x_any);
  const Tensor x = dense(x_any);
  Tensor y = new_like(x);
  run_epilogue(launch, x, y, scale, noise, b, activation);
  return y;
}

// In place.
template <LaunchEpilogue launch>
void modulated_conv2d_epilogue_(Tensor x_any, const std::optional<Tensor>& scale, const std::optional<Tensor>& noise,
                                const std::optional<Tensor>& b, StringHandle act, double alpha, double gain,
                                double clamp) {
  const ActivationParams activation = parse_activation(act, alpha, gain, clamp);
  check_image("x", x_any);
  const Tensor x = dense(x_any);
  run_epilogue(launch, x, x, scale, noise, b, activation);
  if (x.const_data_ptr() != x_any.const_data_ptr()) torch::stable::copy_(x_any, x);
}

}  // namespace ganops

GANOPS_REGISTER(modulated_conv2d_epilogue, launch_epilogue)
GANOPS_REGISTER_CPU(modulated_conv2d_epilogue_, launch_epilogue)

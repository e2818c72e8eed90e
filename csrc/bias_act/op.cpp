#include "bias_act/activation.h"

namespace ganops {

ActivationParams parse_activation(StringHandle handle, double alpha, double gain, double clamp) {
  const std::string name = take_string(handle);
  constexpr const char* kNames[] = {"linear", "relu", "lrelu",    "tanh",  "sigmoid",
                                    "elu",    "selu", "softplus", "swish", "gelu"};
  int index = 0;
  for (const char* known : kNames) {
    if (name == known) return {static_cast<Activation>(index), alpha, gain, clamp, 0, false};
    index++;
  }
  STD_TORCH_CHECK(false, "act must be the name of an activation, got '", name, "'");
}

using LaunchBiasAct = void (*)(const BiasActParams&, void* stream);

inline Tensor run_bias_act(LaunchBiasAct launch, const Tensor& x_any, const std::optional<Tensor>& b,
                           const std::optional<Tensor>& dy, int64_t dim, ActivationParams activation) {
  if (dy) {
    STD_TORCH_CHECK(has_sizes(*dy, x_any.sizes()) && dy->scalar_type() == x_any.scalar_type(),
                    "dy must have the shape and dtype of what was kept");
    check_device("dy", x_any, *dy);
  }
  // A slope's operands must lie in memory alike; dy, which the result takes after, says how.
  const Tensor like = dense(dy ? *dy : x_any);
  const Tensor x = in_format(x_any, format_of(like));
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "dim must be one of x's ", x.dim(), " dimensions, got ", dim);
  const std::optional<Tensor> b_dense = bias_for(x, b, x.size(dim));
  Tensor y = new_like(like);
  const bool keeps_argument = activation.act == Activation::swish || activation.act == Activation::gelu ||
                              (activation.act == Activation::lrelu && activation.alpha < 0);
  activation.kept_result = dy && !keeps_argument;

  BiasActParams p{};
  p.x = x.const_data_ptr();
  p.b = data_or_null(b_dense);
  p.dy = dy ? like.const_data_ptr() : nullptr;
  p.y = y.mutable_data_ptr();
  p.channels = x.size(dim);
  const std::vector<int64_t> dims = dims_in_memory(format_of(like), like.dim());
  p.inner = 1;
  for (int64_t i = x.dim() - 1; dims[i] != dim; i--) p.inner *= x.size(dims[i]);
  p.outer = x.numel() / std::max<int64_t>(p.channels * p.inner, 1);
  p.dtype = dtype_of(x);
  p.activation = activation;
  if (x.numel() > 0) launch(p, stream_of(x));
  return y;
}

template <LaunchBiasAct launch>
Tensor bias_act(const Tensor& x, const std::optional<Tensor>& b, int64_t dim, StringHandle act, double alpha,
                double gain, double clamp) {
  return run_bias_act(launch, x, b, std::nullopt, dim, parse_activation(act, alpha, gain, clamp));
}

template <LaunchBiasAct launch>
Tensor bias_act_grad(const Tensor& dy, const Tensor& kept, const std::optional<Tensor>& b, int64_t dim,
                     StringHandle act, double alpha, double gain, double clamp, int64_t order) {
  ActivationParams activation = parse_activation(act, alpha, gain, clamp);
  STD_TORCH_CHECK(order == 1 || order == 2, "order must be 1 or 2, got ", order);
  activation.order = static_cast<int>(order);
  return run_bias_act(launch, kept, b, dy, dim, activation);
}

}  // namespace ganops

GANOPS_REGISTER(bias_act, launch_bias_act)
GANOPS_REGISTER(bias_act_grad, launch_bias_act)

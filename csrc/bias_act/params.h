#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

enum class Activation { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish, gelu };

// clamp(gain * act(u)), or a slope of it.
struct ActivationParams {
  Activation act;
  double alpha, gain;
  double clamp;      // negative: none
  int order;         // 0: the value; 1, 2: that slope, times dy
  bool kept_result;  // a slope is taken from the forward pass's result, not from its argument
};

// y = activation(x + b). Tensors are seen as [outer, C, inner].
struct BiasActParams {
  const void* x;   // [outer, C, inner]; for a slope: what the forward pass kept, its result or its argument
  const void* b;   // [C] or null
  const void* dy;  // [outer, C, inner]; null for order 0
  void* y;         // [outer, C, inner]
  int64_t outer, channels, inner;
  DType dtype;
  ActivationParams activation;
};

void launch_bias_act_cpu(const BiasActParams& p, void* stream);
void launch_bias_act_cuda(const BiasActParams& p, void* stream);

}  // namespace ganops

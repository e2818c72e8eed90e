#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

enum class Activation { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish, gelu };

// y = clamp(gain * act(x + b)), or its slope of some order: y = dy * slope(kept). Tensors are seen as [outer, C,
// inner].
struct BiasActParams {
  const void* x;   // [outer, C, inner]; for a slope: what the forward pass kept, its result or its argument
  const void* b;   // [C] or null
  const void* dy;  // [outer, C, inner]; null for order 0
  void* y;         // [outer, C, inner]
  int64_t outer, channels, inner;
  DType dtype;
  Activation act;
  double alpha, gain;
  double clamp;      // negative: none
  int order;         // 0: the value; 1, 2: that slope
  bool kept_result;  // for a slope: x is the forward pass's result, not its argument
};

void launch_bias_act_cpu(const BiasActParams& p, void* stream);
void launch_bias_act_cuda(const BiasActParams& p, void* stream);

}  // namespace ganops

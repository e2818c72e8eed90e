#pragma once
#include <cstdint>

#include "bias_act/params.h"
#include "common/types.h"

namespace ganops {

// What follows the convolution: y = activation(x * scale + noise + b).
struct EpilogueParams {
  const void* x;      // [N, C, pixels], or [N, pixels, C] if channels_last
  const void* scale;  // [N, C] or null, in the compute type, as are noise and b
  const void* noise;  // [N, pixels], [1, pixels] or null
  const void* b;      // [C] or null
  void* y;            // like x
  int64_t batch, channels, pixels;
  int64_t noise_stride;  // from one sample's noise to the next: 0 if all share it
  bool channels_last;
  DType dtype;
  ActivationParams activation;
};

void launch_epilogue_cpu(const EpilogueParams& p, void* stream);
void launch_epilogue_cuda(const EpilogueParams& p, void* stream);

}  // namespace ganops

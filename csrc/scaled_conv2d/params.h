#pragma once
#include <cstdint>

#include "bias_act/params.h"
#include "common/types.h"

namespace ganops {

// One axis. Coordinates: input samples; the upsampled and padded signal; output samples.
struct ScaledConv2dAxis {
  int64_t in, out;  // sizes
  int64_t taps;
  int64_t padding;  // before the upsampled signal, negative: cropped; what follows it shows in `out`
};

// y = activation(conv2d(x * x_scale, weight) * y_scale + noise + b), a correlation that sees `up` - 1 zeros after each
// input sample and keeps every `down`-th output. Either image is [N, H, W, C] in memory where channels_last is set.
struct ScaledConv2dParams {
  const void* x;        // [N, I, height.in, width.in]
  const void* weight;   // [O, I, height.taps, width.taps], in the compute type, as are the scales, noise and b
  const void* x_scale;  // [N, I] or null
  const void* y_scale;  // [N, O] or null
  const void* noise;    // [N, pixels], [1, pixels] or null
  const void* b;        // [O] or null
  void* packed;         // [height.taps, width.taps, O, packed_channels] of dtype: room for the weight
  void* y;              // [N, O, height.out, width.out]
  int64_t samples, in_channels, out_channels;
  int64_t packed_channels;  // I, rounded up to a multiple of 8: whole vectors of 16 bytes
  int64_t up, down;
  ScaledConv2dAxis width, height;
  int64_t noise_stride;  // from one sample's noise to the next: 0 if all share it
  DType dtype;
  bool channels_last;
  ActivationParams activation;
};

void launch_scaled_conv2d_cuda(const ScaledConv2dParams& p, void* stream);

}  // namespace ganops

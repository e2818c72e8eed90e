#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

// One axis of the operation. Coordinates: input samples; the upsampled and padded signal; output samples.
struct Upfirdn2dAxis {
  int64_t in, out;  // sizes
  int64_t up, down;
  int64_t padding;  // before the signal; what follows it shows in `out`
  int64_t taps;
};

// y = gain * (f applied to the upsampled, padded x), every down-th sample. Either image is [N, H, W, C] in memory
// where channels_last is set.
struct Upfirdn2dParams {
  const void* x;  // [N, C, height.in, width.in]
  const void* f;  // [taps] for both axes where separable, else [height.taps, width.taps]; null: the identity; float,
                  // double where dtype is f64
  void* y;        // [N, C, height.out, width.out]
  int64_t samples, channels;
  Upfirdn2dAxis width, height;
  DType dtype;
  bool channels_last;
  bool separable;
  bool flip_filter;  // true: taps are in the order of the samples they meet (correlation)
  double gain;
};

void launch_upfirdn2d_cpu(const Upfirdn2dParams& p, void* stream);
void launch_upfirdn2d_cuda(const Upfirdn2dParams& p, void* stream);

}  // namespace ganops

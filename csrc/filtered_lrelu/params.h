#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

// What happens to a sample of the upsampled image. The values are those of ganops/reference/filtered_lrelu.py.
enum class Code : uint8_t { positive = 0, negative = 1, clamped = 2 };
constexpr int kCodeBits = 2, kCodesPerByte = 4;  // the first sample in the low bits

// A FIR filter: one row of taps for both axes where separable, else [height, width]; null data is the identity.
struct FirFilter {
  const void* data;  // in the dtype that x is computed in
  int64_t width, height;
  bool separable;
};

// y = downsample(act(upsample(x + b) * gain)). The leaky ReLU decides by its argument's sign and clamps, or reads its
// decisions from codes: then it is linear.
struct FilteredLreluParams {
  const void* x;  // [N, C, height, width], contiguous or channels_last; y likewise
  const void* b;  // [C] or null
  void* y;        // [N, C, out_height, out_width]
  FirFilter fu, fd;
  DType dtype;
  bool channels_last;
  int64_t batch, channels, height, width, out_height, out_width;
  int64_t up_height, up_width;  // of the upsampled image
  int64_t up, down;
  int64_t pad_x, pad_y;  // before the first sample, in the upsampled image
  double gain, slope;
  double clamp;  // negative: none
  bool flip_filter;

  // Codes are [N, C, codes_height, ceil(codes_width / kCodesPerByte)]. Sample (i, j) has code (i + codes_y, j +
  // codes_x); beyond the codes' edges it is zero. Written codes cover the upsampled image.
  const uint8_t* read_codes;  // null: decide
  uint8_t* write_codes;       // null: keep nothing
  int64_t codes_height, codes_width, codes_x, codes_y;
};

void launch_filtered_lrelu_cpu(const FilteredLreluParams& p, void* stream);
void launch_filtered_lrelu_cuda(const FilteredLreluParams& p, void* stream);

}  // namespace ganops

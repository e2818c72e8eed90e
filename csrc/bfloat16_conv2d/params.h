// A convolution as an implicit matrix product of bfloat16 numbers, summed in float32.
//
// Spaces: the image; tiles of its outputs, which read tiles of inputs, packed into a core's cache; positions, the
// pixels of a packed tile row by row. The pixels that a tap reads lie a constant number of positions after their
// outputs, so that one matrix product of filters and positions a tap, summed, is the convolution. What it gives at the
// end of each row, where a tap reads the next one, is left out.
//
// Two neighbouring channels are a pair: what one instruction multiplies and adds. The last may lack its second.
//
// An image in float32 takes three products: of both factors' roundings to bfloat16, and of each with what the other's
// rounding left.
#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

// Filters are packed in blocks [kFilterRows, kPairs]: output channels and input channels' pairs.
constexpr int64_t kFilterRows = 16, kPairs = 16, kFilterBlock = kFilterRows * kPairs;

// Filters [out, in, taps] to [groups of rows, parts, taps, blocks of pairs] of such blocks, zeros where there is no
// channel. Parts: the rounded values, and of two what the rounding left.
struct Bfloat16Filters {
  const float* filters;
  uint32_t* packed;
  int64_t out, in, taps;
  int64_t groups, blocks, parts;
};

struct Bfloat16Conv2dParams {
  const void* x;            // [N, in, height, width] of T
  const float* scale;       // [N, in] or null: of x's channels
  const uint32_t* filters;  // as above
  void* y;                  // [N, out, out_height, out_width] of T
  DType dtype;              // T: bf16, or f32
  int64_t n, in, height, width;
  int64_t out, out_height, out_width;
  int64_t kernel_height, kernel_width;
  int64_t pad_y, pad_x;
  int64_t blocks, parts;  // of the filters
};

void launch_bfloat16_filters_cpu(const Bfloat16Filters& p);
void launch_bfloat16_conv2d_cpu(const Bfloat16Conv2dParams& p);

}  // namespace ganops

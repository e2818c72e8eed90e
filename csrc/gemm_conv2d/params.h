// A convolution as an implicit matrix product, summed in float32.
//
// Spaces: the image; tiles of its outputs, which read tiles of inputs, packed into a core's cache; positions, the
// pixels of a packed tile row by row. The pixels that a tap reads lie a constant number of positions after their
// outputs, so that one matrix product of filters and positions a tap, summed, is the convolution. What it gives at the
// end of each row, where a tap reads the next one, is left out.
//
// Packed are words of 32 bits: a float, or two neighbouring channels in bfloat16, what one instruction multiplies and
// adds. The last pair may lack its second.
//
// bfloat16x3 takes three products of bfloat16: of both factors' roundings, and of each with what the other's rounding
// left.
#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

enum class Factors { float32, bfloat16, bfloat16x3 };

constexpr int64_t channels_in_word(Factors factors) {
  return factors == Factors::float32 ? 1 : 2;
}
constexpr int64_t parts_of(Factors factors) {
  return factors == Factors::bfloat16x3 ? 2 : 1;
}

// Filters are packed in blocks [kFilterRows, kFilterWords]: output channels, and words of input channels.
constexpr int64_t kFilterRows = 16, kFilterWords = 16, kFilterBlock = kFilterRows * kFilterWords;

// Filters [out, in, kernel_height, kernel_width] to [groups of rows, parts, taps, blocks of words] of such blocks,
// zeros where there is no channel. Parts: the rounded values, and of two what the rounding left.
struct GemmFilters {
  const float* filters;
  int64_t strides[4];
  uint32_t* packed;
  Factors factors;
  int64_t out, in, kernel_height, kernel_width;
  int64_t groups, blocks;
};

// Of so few outputs, 1x1 filters have float32 factors whatever the image's dtype: it is reading the image that takes
// time.
constexpr int64_t kFewOutputs = 4;

struct GemmConv2dParams {
  const void* x;            // [N, in, height, width] of T
  const float* scale;       // [N, in] or null: of x's channels
  const float* out_scale;   // [N, out] or null: of y's
  const uint32_t* filters;  // as above
  void* y;                  // [N, out, out_height, out_width] of T
  DType dtype;              // T: bf16, or f32
  Factors factors;
  int64_t n, in, height, width;
  int64_t out, out_height, out_width;
  int64_t kernel_height, kernel_width;
  int64_t pad_y, pad_x;
  int64_t blocks;    // of the filters
  bool few_outputs;  // at most kFewOutputs of 1x1 filters
};

void launch_gemm_filters_cpu(const GemmFilters& p);
void launch_gemm_conv2d_cpu(const GemmConv2dParams& p);

}  // namespace ganops

// Winograd's F(4x4, 3x3): a 3x3 convolution with 36 multiplications for 16 outputs instead of 144.
//
// Spaces: the image; tiles of 4x4 outputs, which read 6x6 inputs; frequencies, 6x6 of each tile. A tile's frequencies
// times the filter's, summed over the channels, are the frequencies of its outputs: 36 matrix products.
#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

constexpr int64_t kOutputs = 4, kInputs = 6, kFrequencies = kInputs * kInputs;  // of a tile, along each axis

// The polynomials' points are 0, +-a, +-b and infinity. Of those tried, these round best (Barabasz et al., "Error
// Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
constexpr float kA = 0.75f, kB = 1.5f;

struct WinogradParams {
  float* image;        // [N, C, height, width]: read by the input's transform, written by the output's
  float* frequencies;  // [kFrequencies, C, tiles], tiles = N * rows * tiles_x
  int64_t batch, channels, height, width;
  int64_t pad_y, pad_x;      // before the input
  int64_t first_row, rows;   // of tiles
  int64_t tiles_x;           // in a row
  int64_t frequency_stride;  // C * tiles
};

void launch_winograd_input_cpu(const WinogradParams& p);
void launch_winograd_output_cpu(const WinogradParams& p);

}  // namespace ganops

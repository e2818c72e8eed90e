// Winograd's F(4x4, 3x3): a 3x3 convolution with 36 multiplications for 16 outputs instead of 144.
//
// Spaces: the image; tiles of 4x4 outputs, which read 6x6 inputs; frequencies, 6x6 of each tile. A tile's frequencies
// times the filter's, summed over the channels, are the frequencies of its outputs: 36 matrix products. The filter's
// gradient goes the same way back: the frequencies of the outputs' gradient times those of the inputs, summed over the
// tiles, and each transform transposed.
#pragma once
#include <cstdint>

#include "common/types.h"

namespace ganops {

constexpr int64_t kOutputs = 4, kInputs = 6, kFrequencies = kInputs * kInputs;  // of a tile, along each axis
constexpr int64_t kTaps = 3;

// The polynomials' points are 0, +-a, +-b and infinity. Of those tried, these round best (Barabasz et al., "Error
// Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
constexpr float kA = 0.75f, kB = 1.5f;

// Frequencies lie frequency_stride apart, at least what there is of one.
//
// The products take filters in groups of rows, channel by channel, and tiles in panels of columns, so that they read
// both in order: [kFrequencies, groups, I, kGroup] times [kFrequencies, panels, I, kPanel].
constexpr int64_t kGroup = 8, kPanel = 48;

// Tiles of an image [N, C, height, width], counted through its rows and then its samples, from `first` on.
struct WinogradTiles {
  int64_t channels, height, width;
  int64_t pad_y, pad_x;  // before the image
  int64_t in_row, in_image;
  int64_t first, count;
};

struct WinogradToFrequencies : WinogradTiles {
  const float* image;
  const float* scale;  // [N, C] or null: of the image's channels
  float* frequencies;  // [kFrequencies, panels, C, panel]
  int64_t panel;       // tiles in a panel
  int64_t frequency_stride;
};

// An image of products.
struct WinogradOutput : WinogradTiles {
  const float* filters;      // as above, [kFrequencies, groups, I, kGroup]
  const float* frequencies;  // of the input, [kFrequencies, panels, I, kPanel]
  int64_t filter_stride, frequency_stride;
  int64_t in_channels;
  const float* scale;  // [N, C] or null: of the image's channels
  float* image;
};

// Filters [O, I, 3, 3] to frequencies as above, zeros in the last group.
struct WinogradFilters {
  const float* taps;
  float* frequencies;
  int64_t out, in, frequency_stride;
};

// Gradients of filters [count, 3, 3] from those of their frequencies [kFrequencies, count].
struct WinogradFilterGradients {
  const float* frequencies;
  float* taps;  // added to
  int64_t count;
};

void launch_winograd_filter_cpu(const WinogradFilters& p);
void launch_winograd_input_cpu(const WinogradToFrequencies& p);
void launch_winograd_output_cpu(const WinogradOutput& p);
void launch_winograd_output_gradient_cpu(const WinogradToFrequencies& p);
void launch_winograd_filter_gradient_cpu(const WinogradFilterGradients& p);

}  // namespace ganops

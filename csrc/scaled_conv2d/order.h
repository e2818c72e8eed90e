// In which order blocks start, and so which of them run side by side.
//
// Blocks start by their index, as many as there is room for, and advance at about the same pace. A group of kGroup
// tiles of pixels comes with all its output channels and phases before the next group. So blocks that share pixels run
// side by side, or soon after: device memory is asked for x once, and the phases complete the sectors of y while these
// are in the L2 cache. Weights that do not fit there pass once a group, not once for every few tiles.
#pragma once
#include "common/math.h"

namespace ganops::scaled_conv {

constexpr unsigned kGroup = 16;

struct Order {
  unsigned tiles, outs, phases;  // tiles of pixels, and of output channels; phases along both axes

  struct Turn {
    unsigned tile, out, phase;
  };
  GANOPS_HOST_DEVICE Turn turn(unsigned block) const {
    const unsigned others = outs * phases, first = block / (kGroup * others) * kGroup;
    const unsigned length = tiles - first < kGroup ? tiles - first : kGroup, in_group = block - first * others;
    const unsigned other = in_group / length;
    return {first + in_group % length, other % outs, other / outs};
  }
  GANOPS_HOST_DEVICE unsigned blocks() const { return tiles * outs * phases; }
};

}  // namespace ganops::scaled_conv

// In which order blocks start, and so which of them run side by side.
//
// Blocks start by their index, as many as there is room for, and advance at about the same pace. Those of one tile of
// pixels - of all output channels and phases - follow one another: they read the same x at about the same time, so that
// device memory is asked for it once, and their phases complete the sectors of y while these are still in the L2 cache.
// The weights, which all tiles of pixels share, stay there, or pass once for all blocks that run at a time.
#pragma once
#include "common/math.h"

namespace ganops::scaled_conv {

struct Order {
  unsigned outs, phases;  // tiles of output channels; phases along both axes

  struct Turn {
    unsigned tile, phase, out;
  };
  GANOPS_HOST_DEVICE Turn turn(unsigned block) const {
    return {block / outs / phases, block / outs % phases, block % outs};
  }
  int64_t blocks(int64_t tiles) const { return tiles * outs * phases; }
};

}  // namespace ganops::scaled_conv

#include "simt/footprints.h"

#include <algorithm>

namespace ganops::simt {

void Footprints::touch(uint64_t block, uintptr_t address, size_t bytes, bool write) {
  if (block != block_) {
    block_ = block;
    blocks_++;
    current_[0] = current_[1] = kNone;
  }
  Sector& sector = sectors_[address / kSectorBytes - begin_ / kSectorBytes];
  if (sector.blocks != blocks_) sector = {blocks_, {0, 0}};
  uint32_t& seen = sector.bytes[write];
  const auto piece = static_cast<uint32_t>(((uint64_t{1} << bytes) - 1) << address % kSectorBytes);
  const uint32_t added = piece & ~seen;
  if (added == 0) return;
  const auto at = static_cast<int64_t>(address - begin_);
  if (current_[write] == kNone) {
    current_[write] = all_.size();
    all_.push_back({block, write, at, at, 0, 0});
  }
  Footprint& footprint = all_[current_[write]];
  footprint.first = std::min(footprint.first, at);
  footprint.last = std::max(footprint.last, at + static_cast<int64_t>(bytes) - 1);
  footprint.bytes += __builtin_popcount(added);
  footprint.sectors += seen == 0;
  seen |= piece;
}

}  // namespace ganops::simt

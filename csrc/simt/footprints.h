// What each block touches of each buffer, every byte counted once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ganops::simt {

inline constexpr unsigned kSectorBytes = 32;  // what global memory moves at least

struct Footprint {
  uint64_t block;
  bool write;
  int64_t first, last;  // bytes of the buffer
  int64_t bytes, sectors;
};

// The footprints in one buffer, of blocks that run one after another.
class Footprints {
 public:
  explicit Footprints(uintptr_t begin, uintptr_t end)
      : begin_(begin), sectors_((end - 1) / kSectorBytes - begin / kSectorBytes + 1) {}

  // A block touches an aligned piece of at most a sector.
  void touch(uint64_t block, uintptr_t address, size_t bytes, bool write);
  const std::vector<Footprint>& all() const { return all_; }

 private:
  static constexpr size_t kNone = ~size_t{0};
  struct Sector {
    uint64_t blocks = 0;  // that touched it so far; whose bytes these are
    uint32_t bytes[2] = {0, 0};
  };
  uintptr_t begin_;
  std::vector<Sector> sectors_;
  std::vector<Footprint> all_;
  uint64_t block_ = ~uint64_t{0}, blocks_ = 0;
  size_t current_[2] = {kNone, kNone};  // of block_, reading and writing
};

}  // namespace ganops::simt

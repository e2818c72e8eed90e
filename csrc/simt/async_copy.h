// cp.async: copies from global to shared memory that land at any time between their issue and the wait for them.
#pragma once

#include <cstddef>
#include <vector>

namespace ganops::simt {

struct PendingCopy {
  void* shared;
  const void* global;
  size_t bytes;
  bool predicate;
  const void* pc;
};

// The copies of one thread, in order. The check build lands them as late as the hardware may, the fast build at once.
struct CopyQueue {
  std::vector<PendingCopy> copies;
  std::vector<size_t> group_ends;

  void clear() {
    copies.clear();
    group_ends.clear();
  }
};

}  // namespace ganops::simt

// The checker: a shadow of every byte of global and shared memory that a kernel may touch.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "simt/footprints.h"
#include "simt/runtime.h"

namespace ganops::simt {

class Worker;

// Who accessed a byte, and when. Two accesses are ordered if they are one thread's; or one block's with a __syncthreads
// between them; or one warp's with a __syncwarp between them. `epoch` counts the former, `warp_epoch` the latter.
// `scope` says that accesses by several such threads, unordered among themselves, are folded into one stamp. The
// counters wrap: they are only compared for equality.
enum class Scope : uint64_t { kThread, kWarp, kBlock, kGrid };

struct Stamp {
  uint64_t valid : 1;
  uint64_t atomic : 1;
  uint64_t in_flight : 1;  // the destination of a cp.async that nobody has waited for
  uint64_t scope : 2;
  uint64_t lane : 5;
  uint64_t warp : 5;
  uint64_t warp_epoch : 10;
  uint64_t epoch : 14;
  uint64_t block : 25;
};
static_assert(sizeof(Stamp) == 8, "a stamp is one word");

struct Cell {
  Stamp write;
  Stamp read;
};

enum class AccessKind { kRead, kWrite, kAtomic };

// Zeroed pages that cost nothing until they are touched.
class Shadow {
 public:
  explicit Shadow(size_t bytes);
  Cell* at(size_t offset) { return cells_.get() + offset; }

 private:
  struct Free {
    void operator()(Cell* cells) const;
  };
  std::unique_ptr<Cell[], Free> cells_;
};

struct TrackedBuffer {
  unsigned index;
  Buffer buffer;
  uintptr_t begin;
  uintptr_t end;
  Shadow shadow;
};

struct Launch;

// The buffers of a launch.
class GlobalMemory {
 public:
  void track(const Buffer& buffer);
  TrackedBuffer* find(uintptr_t address);
  std::vector<TrackedBuffer>& buffers() { return buffers_; }
  // The nearest buffer, in words.
  std::string describe_nearest(uintptr_t address) const;
  // Guards the cells of the 64 bytes that hold the address: blocks on other OS threads may be at them.
  std::atomic_flag& lock_of(uintptr_t address) { return locks_[address / kLockBytes % kLocks]; }

 private:
  static constexpr size_t kLocks = 1024, kLockBytes = 64;
  std::vector<TrackedBuffer> buffers_;
  std::array<std::atomic_flag, kLocks> locks_{};
};

// The shared memory of the block that an OS thread is running.
class SharedMemory {
 public:
  static constexpr size_t kCapacity = 227 * 1024;  // the most that any GPU gives a block

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void begin_launch(size_t dynamic_bytes, size_t limit);
  void begin_block();
  void* dynamic() { return arena_; }
  void* variable(const void* key, const char* name, size_t bytes);  // null where the block has no room left
  size_t bytes_used() const;                                        // static and dynamic
  bool contains(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(arena_) < kArenaBytes; }
  size_t offset_of(const void* address) const {
    return static_cast<size_t>(static_cast<const char*>(address) - arena_);
  }
  bool is_allocated(size_t offset, size_t bytes) const;
  std::string describe(size_t offset) const;  // in words: which variable, and where in it
  Cell* cells(size_t offset) { return shadow_.at(offset); }

 private:
  // Variables lie apart, so that running over the end of one is seen.
  static constexpr size_t kGapBytes = 128, kArenaBytes = 2 * kCapacity;
  struct Variable {
    const void* key;
    const char* name;
    size_t offset;
    size_t bytes;
  };
  char* arena_;
  Shadow shadow_;
  size_t dynamic_bytes_ = 0;
  size_t limit_ = 0;  // static and dynamic
  size_t end_ = 0;
  size_t dirty_ = 0;
  std::vector<Variable> variables_;
};

// Checks and counts an access of the running thread. A launch cannot go on after an access out of bounds: the call does
// not return then. Anything that is neither global nor shared memory, but the thread's own, passes.
void check_access(const void* address, size_t bytes, AccessKind kind, const void* pc);

// The same for lane `lane` of the running thread's warp, for an access that a collective makes on its behalf.
void check_lane_access(unsigned lane, const void* address, size_t bytes, AccessKind kind, const void* pc);

// Marks a checked piece of shared memory as the destination of a cp.async, not there before the wait; then as written
// now.
void mark_in_flight(void* shared, size_t bytes);
void mark_landed(void* shared, size_t bytes);

// True in the check build, whose kernels report every access.
bool checking();
void enable_checking();

}  // namespace ganops::simt

// What a launch did, counted: the figures that decide a kernel's time on a GPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "simt/device_memory.h"

namespace ganops::simt {

struct Counters {
  uint64_t blocks = 0;
  uint64_t barriers = 0;     // of a block
  uint64_t collectives = 0;  // of a warp: shuffles, votes, ldmatrix, mma, syncwarp
  uint64_t mma_macs = 0;
  uint64_t flops = 0;    // where the build counts them
  uint64_t atomics = 0;  // of a thread
  // The check build alone sees the accesses that these count.
  uint64_t global_bytes_read = 0;
  uint64_t global_bytes_written = 0;
  uint64_t global_sectors = 0;
  uint64_t global_sectors_ideal = 0;
  uint64_t shared_wavefronts = 0;
  uint64_t shared_wavefronts_ideal = 0;

  void add(const Counters& other);
};

// The accesses of one instruction, as warps make them.
struct AccessStatistics {
  uintptr_t pc = 0;  // a return address in the kernel
  bool shared = false;
  bool write = false;
  uint32_t buffer = 0;        // of global memory, in the launch's list
  uint32_t bytes = 0;         // of one lane
  uint64_t executions = 0;    // by a warp
  uint64_t lanes = 0;         // active, over all executions
  uint64_t moved = 0;         // bytes, those that lanes share once
  uint64_t transactions = 0;  // 32-byte sectors of global memory, or wavefronts of shared memory
  uint64_t ideal = 0;         // as many as the distinct bytes need

  void add(const AccessStatistics& other);
};

struct Access {
  uintptr_t pc;
  uint64_t address : 48;  // in shared memory, the offset
  uint64_t buffer : 8;    // of global memory
  uint64_t bytes : 6;
  uint64_t shared : 1;
  uint64_t write : 1;

  // Tells accesses apart, in the order that a warp makes them. One call can make two: a cp.async reads, then writes.
  uint64_t instruction() const {
    constexpr unsigned kKindBits = 8;
    return uint64_t{pc} << kKindBits | uint64_t{shared} << 7 | uint64_t{write} << 6 | bytes;
  }
};

using AccessTable = std::unordered_map<uint64_t, AccessStatistics>;  // by instruction

// Lanes run one after another here and side by side on a GPU. The log keeps what each thread accessed since its warp
// last came together, then replays the lanes in step: of the instructions that lanes stand at, the one at the lowest
// address goes first, with all the lanes that stand there. That is how the branches and loops a compiler lays out come
// together again.
class AccessLog {
 public:
  void resize(size_t threads) { threads_.resize(threads); }
  void add(unsigned thread, const Access& access) { threads_[thread].push_back(access); }
  // Replays the lanes of one warp, adds to the counters and the table, and empties their logs.
  void replay_warp(unsigned warp, Counters& counters);
  AccessTable& table() { return table_; }
  // Keeps what a block requests, until the next block begins; keeps nothing where the log is null.
  void begin_block(RequestLog* requests, uint64_t block);
  void end_turn() {
    if (block_requests_) block_requests_->end_turn();
  }

 private:
  void replay_instruction(const std::array<Access, 32>& lanes, unsigned count, unsigned mask, Counters& counters);
  void keep_requests(const std::array<Access, 32>& lanes, unsigned mask);

  std::vector<std::vector<Access>> threads_;
  const RequestLog* requests_ = nullptr;
  BlockRequests* block_requests_ = nullptr;
  AccessTable table_;
};

// The 32-byte sectors that the lanes in `mask` touch, and the distinct bytes. Every lane accesses `bytes`, a power of
// two, aligned.
unsigned count_sectors(const uint64_t* addresses, unsigned mask);
unsigned count_bytes(const uint64_t* addresses, unsigned mask, unsigned bytes);

// Shared memory serves 32 banks of 4 bytes at a time: 8-byte accesses go half a warp at a time, 16-byte ones a quarter.
// Lanes that want the same word share it, lanes that want different words of one bank queue.
struct Wavefronts {
  unsigned actual;
  unsigned ideal;
};
Wavefronts count_wavefronts(const uint64_t* offsets, unsigned mask, unsigned bytes);

}  // namespace ganops::simt

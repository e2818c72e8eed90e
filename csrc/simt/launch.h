// One kernel launch: what was asked for, what it may touch, and what came of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/counters.h"
#include "simt/diagnostics.h"
#include "simt/memory.h"
#include "simt/runtime.h"

namespace ganops::simt {

// The order in which blocks, and the threads of a block, get their turn.
enum class Order { kForward, kReverse, kRandom };

struct Options {
  Order order = Order::kForward;
  uint64_t seed = 0;
  unsigned os_threads = 1;
  DeviceProperties device{80, 108, 163 * 1024};  // an A100
  cudaError_t refusal = cudaSuccess;             // what launches fail with, without running
  bool keep_requests = false;                    // for the model of device memory; in the check build
};

struct BufferRecord {
  std::string name;
  int64_t bytes;
  unsigned start;         // in its first sector
  int64_t bytes_read;     // distinct
  int64_t bytes_written;  // distinct
  std::vector<Footprint> footprints;
};

// What remains of a launch when it is over.
struct LaunchRecord {
  const void* kernel;
  dim3 grid;
  dim3 block;
  size_t shared_bytes;  // static and dynamic
  cudaError_t error;
  Counters counters;
  AccessTable accesses;
  std::vector<BufferRecord> buffers;
  RequestLog requests;  // where they are kept
  std::vector<Diagnostic> diagnostics;
};

struct Launch {
  Launch(const LaunchRequest& request, const Options& options);

  // Ends the launch with this error; the first one counts.
  void fail(cudaError_t error);
  bool failed() const { return error.load(std::memory_order_relaxed) != cudaSuccess; }
  uint64_t block_count() const { return uint64_t{request.grid.x} * request.grid.y * request.grid.z; }
  unsigned thread_count() const { return request.block.x * request.block.y * request.block.z; }

  const LaunchRequest& request;
  const Options& options;
  std::vector<uint32_t> block_order;  // where it is random
  std::atomic<uint64_t> next_block{0};
  std::atomic<int> error{cudaSuccess};
  Diagnostics diagnostics;
  GlobalMemory global;
  RequestLog requests;
  bool keeps_requests = false;
};

Options& options();
std::vector<LaunchRecord>& records();  // since the last clear

}  // namespace ganops::simt

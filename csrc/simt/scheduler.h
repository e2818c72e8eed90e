// Runs the blocks of a launch on one OS thread: fibers for threads, barriers, and the meeting of lanes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "simt/async_copy.h"
#include "simt/counters.h"
#include "simt/diagnostics.h"
#include "simt/fiber.h"
#include "simt/launch.h"
#include "simt/memory.h"

namespace ganops::simt {

inline constexpr unsigned kLanes = 32;

// What one lane brings to a collective. The last lane to arrive does the work for all.
struct LaneCall {
  enum class Kind { kSyncWarp, kShuffle, kBallot, kLdmatrix, kMma };
  Kind kind;
  uint32_t mask;
  Site site;
  const void* pc;
  void* data;
};
using LaneCalls = std::array<const LaneCall*, kLanes>;

// Does a collective's work: reads what the lanes in `mask` brought, and gives each its result.
void complete_collective(Worker& worker, const LaneCalls& calls, uint32_t mask);

struct Collective {
  bool open = false;
  uint32_t mask = 0;
  uint32_t arrived = 0;
  LaneCalls calls{};
};

struct Warp {
  uint32_t existing = 0;  // lanes that the block has
  uint32_t alive = 0;     // lanes that have not exited
  uint32_t epoch = 0;     // full __syncwarps so far
  std::array<Collective, 8> collectives;
};

struct Thread {
  enum class Status { kUnstarted, kReady, kAtBarrier, kInCollective, kExited };
  Fiber* fiber = nullptr;
  Status status = Status::kUnstarted;
  Site site{};
  const void* pc = nullptr;  // where it waits
  CopyQueue copies;
};

// The worker that is running a kernel on this OS thread; null outside a launch. Fibers stay on one OS thread.
extern thread_local Worker* current_worker __attribute__((tls_model("initial-exec")));

class Worker {
 public:
  static Worker* current() { return current_worker; }

  // Takes blocks of the launch until none is left, or it fails.
  void run(Launch& launch);

  // For the running thread:
  int barrier(bool predicate, Site site, const void* pc);
  void join(const LaneCall& call);
  [[noreturn]] void abort_launch(cudaError_t error);
  void report(Fault fault, const std::string& message, const void* pc) { report(running_, fault, message, pc); }
  void report(unsigned thread, Fault fault, const std::string& message, const void* pc);

  unsigned running() const { return running_; }
  void run_as(unsigned thread) { running_ = thread; }
  Thread& thread() { return threads_[running_]; }
  Warp& warp() { return warps_[running_ / kLanes]; }
  unsigned epoch() const { return epoch_; }
  uint64_t block_index() const { return block_index_; }
  uint3 thread_index(unsigned thread) const;
  Launch& launch() { return *launch_; }

  SharedMemory shared;
  Counters counters;
  AccessLog log;
  std::vector<Footprints> footprints;  // of each buffer

 private:
  void begin_launch(Launch& launch);
  void run_block(uint64_t block);
  void wait();                           // lets others run until the running thread is ready again
  void resume_next(Continuation& from);  // goes on with a ready thread, a new one, or the scheduler
  bool start_next_thread(Fiber& fiber);  // makes the fiber the next thread that has not started
  void exit_thread();
  void release_barrier();
  void finish_collective(Collective& collective, uint32_t mask);
  void check_collective(Collective& collective, const LaneCall& call);
  void make_ready(unsigned thread);
  void report_deadlock();
  uint64_t random();
  static void fiber_main();

  Launch* launch_ = nullptr;
  Continuation scheduler_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> start_order_;
  std::vector<unsigned> ready_;
  size_t ready_head_ = 0;
  unsigned thread_count_ = 0;
  unsigned started_ = 0;
  unsigned alive_ = 0;
  unsigned running_ = 0;
  unsigned at_barrier_ = 0;
  int predicates_ = 0;      // true ones at the barrier so far
  int barrier_result_ = 0;  // of the last barrier
  unsigned epoch_ = 0;
  uint64_t block_index_ = 0;
  uint3 block_coordinates_{};
  uint64_t random_state_ = 0;
};

}  // namespace ganops::simt

#include "simt/scheduler.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>

namespace ganops::simt {

namespace {

// A bijection that spreads seeds far apart (the finaliser of SplitMix64).
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

std::string describe(Site site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

bool same(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::string_view(a.file) == b.file);
}

}  // namespace

thread_local Worker* current_worker = nullptr;

uint64_t Worker::random() {
  return random_state_ = mix(random_state_);
}

uint3 Worker::thread_index(unsigned thread) const {
  const dim3 size = launch_->request.block;
  return {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}

void Worker::report(unsigned thread, Fault fault, const std::string& message, const void* pc) {
  launch_->diagnostics.report({fault, message, pc, true, block_coordinates_, thread_index(thread)});
}

void Worker::abort_launch(cudaError_t error) {
  launch_->fail(error);
  Continuation abandoned;
  switch_to(abandoned, scheduler_);
  __builtin_unreachable();
}

void Worker::run(Launch& launch) {
  begin_launch(launch);
  current_worker = this;
  const uint64_t count = launch.block_count();
  for (uint64_t turn; !launch.failed() && (turn = launch.next_block++) < count;) {
    const Order order = launch.options.order;
    run_block(order == Order::kForward ? turn : order == Order::kReverse ? count - 1 - turn : launch.block_order[turn]);
  }
  current_worker = nullptr;
}

void Worker::begin_launch(Launch& launch) {
  launch_ = &launch;
  thread_count_ = launch.thread_count();
  threads_.resize(thread_count_);
  warps_.resize((thread_count_ + kLanes - 1) / kLanes);
  log.resize(thread_count_);
  log.table().clear();
  counters = {};
  footprints.clear();
  for (const TrackedBuffer& tracked : launch.global.buffers()) footprints.emplace_back(tracked.begin, tracked.end);
  shared.begin_launch(launch.request.shared_bytes, static_cast<size_t>(launch.options.device.shared_bytes_per_block));
  start_order_.resize(thread_count_);
  std::iota(start_order_.begin(), start_order_.end(), 0u);
  if (launch.options.order == Order::kReverse) std::reverse(start_order_.begin(), start_order_.end());
}

void Worker::run_block(uint64_t block) {
  const dim3 grid = launch_->request.grid;
  block_index_ = block;
  block_coordinates_ = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                        static_cast<unsigned>(block / grid.x / grid.y)};
  random_state_ = mix(launch_->options.seed ^ mix(block));
  if (launch_->options.order == Order::kRandom) {
    for (size_t i = start_order_.size(); i > 1; i--) std::swap(start_order_[i - 1], start_order_[random() % i]);
  }
  for (Thread& thread : threads_) {
    thread.status = Thread::Status::kUnstarted;
    thread.copies.clear();
  }
  for (size_t i = 0; i < warps_.size(); i++) {
    const auto lanes = std::min<unsigned>(kLanes, thread_count_ - static_cast<unsigned>(i) * kLanes);
    warps_[i].existing = warps_[i].alive = lanes == kLanes ? ~0u : (1u << lanes) - 1u;
    warps_[i].epoch = 0;
    for (Collective& collective : warps_[i].collectives) collective.open = false;
  }
  shared.begin_block();
  log.begin_block(launch_->keeps_requests ? &launch_->requests : nullptr, block);
  ready_.clear();
  ready_head_ = 0;
  started_ = at_barrier_ = epoch_ = 0;
  predicates_ = 0;
  alive_ = thread_count_;
  idle_fibers_.clear();
  for (const auto& fiber : fibers_) idle_fibers_.push_back(fiber.get());

  resume_next(scheduler_);

  if (alive_ > 0 && !launch_->failed()) {
    report_deadlock();
    launch_->fail(cudaErrorLaunchFailure);
  }
  for (unsigned warp = 0; warp < warps_.size() && checking(); warp++) log.replay_warp(warp, counters);
  log.end_turn();
  counters.blocks++;
}

void Worker::fiber_main() {
  for (;;) {
    Worker& worker = *current_worker;
    Fiber& fiber = *worker.thread().fiber;
    do {
      worker.launch_->request.invoke(worker.launch_->request.call);
      worker.exit_thread();
    } while (worker.ready_head_ == worker.ready_.size() && worker.start_next_thread(fiber));
    worker.idle_fibers_.push_back(&fiber);
    worker.resume_next(fiber.continuation);
  }
}

bool Worker::start_next_thread(Fiber& fiber) {
  if (started_ == thread_count_) return false;
  running_ = start_order_[started_++];
  Thread& next = threads_[running_];
  next.fiber = &fiber;
  next.status = Thread::Status::kReady;
  fiber.context() = {thread_index(running_), block_coordinates_, launch_->request.block, launch_->request.grid};
  return true;
}

void Worker::resume_next(Continuation& from) {
  const size_t waiting = ready_.size() - ready_head_;
  const Order order = launch_->options.order;
  const bool any_unstarted = started_ < thread_count_;
  if (waiting > 0 && !(order == Order::kRandom && any_unstarted && random() % 2 == 0)) {
    if (order == Order::kRandom) std::swap(ready_[ready_head_], ready_[ready_head_ + random() % waiting]);
    running_ = order == Order::kReverse ? ready_.back() : ready_[ready_head_++];
    if (order == Order::kReverse) ready_.pop_back();
    if (ready_head_ == ready_.size()) {
      ready_.clear();
      ready_head_ = 0;
    }
    Continuation& to = threads_[running_].fiber->continuation;
    if (&to != &from) switch_to(from, to);
  } else if (any_unstarted) {
    if (idle_fibers_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>());
      idle_fibers_.push_back(fibers_.back().get());
    }
    Fiber& fiber = *idle_fibers_.back();
    idle_fibers_.pop_back();
    fiber.start(fiber_main);
    start_next_thread(fiber);
    switch_to(from, fiber.continuation);
  } else {
    switch_to(from, scheduler_);
  }
}

void Worker::wait() {
  resume_next(threads_[running_].fiber->continuation);
}

void Worker::make_ready(unsigned thread) {
  threads_[thread].status = Thread::Status::kReady;
  ready_.push_back(thread);
}

void Worker::exit_thread() {
  const unsigned lane = running_ % kLanes;
  thread().status = Thread::Status::kExited;
  warp().alive &= ~(1u << lane);
  alive_--;
  for (const Collective& collective : warp().collectives) {
    if (!collective.open || !(collective.mask >> lane & 1u)) continue;
    const LaneCall& call = *collective.calls[__builtin_ctz(collective.arrived)];
    report(Fault::kCollective, "exits while lanes of its warp wait for it at " + describe(call.site), call.pc);
    abort_launch(cudaErrorLaunchFailure);
  }
  if (alive_ > 0 && at_barrier_ == alive_) release_barrier();
}

int Worker::barrier(bool predicate, Site site, const void* pc) {
  thread().status = Thread::Status::kAtBarrier;
  thread().site = site;
  thread().pc = pc;
  predicates_ += predicate;
  if (++at_barrier_ == alive_) release_barrier();
  wait();
  return barrier_result_;
}

void Worker::release_barrier() {
  int first = -1;
  for (unsigned i = 0; i < thread_count_; i++) {
    if (threads_[i].status != Thread::Status::kAtBarrier) continue;
    if (first < 0) first = static_cast<int>(i);
    const Thread& leader = threads_[static_cast<unsigned>(first)];
    if (!same(threads_[i].site, leader.site)) {
      report(i, Fault::kDivergentBarrier,
             "waits at the barrier at " + describe(threads_[i].site) + " while thread " +
                 to_string(thread_index(static_cast<unsigned>(first))) + " waits at " + describe(leader.site),
             threads_[i].pc);
    }
  }
  if (alive_ < thread_count_) {
    report(static_cast<unsigned>(first), Fault::kDivergentBarrier,
           "waits at a barrier that " + std::to_string(thread_count_ - alive_) + " threads of " +
               std::to_string(thread_count_) + " have exited without",
           threads_[static_cast<unsigned>(first)].pc);
  }
  for (unsigned i = 0; i < thread_count_; i++) {
    if (threads_[i].status == Thread::Status::kAtBarrier) make_ready(i);
  }
  barrier_result_ = std::exchange(predicates_, 0);
  at_barrier_ = 0;
  epoch_++;
  counters.barriers++;
  for (unsigned warp = 0; warp < warps_.size() && checking(); warp++) log.replay_warp(warp, counters);
  log.end_turn();
}

void Worker::check_collective(Collective& collective, const LaneCall& call) {
  const LaneCall* first = collective.arrived ? collective.calls[__builtin_ctz(collective.arrived)] : nullptr;
  const unsigned lane = running_ % kLanes;
  std::string wrong;
  if (!(call.mask >> lane & 1u)) {
    wrong = "calls a collective whose mask leaves it out";
  } else if (call.mask & warp().existing & ~warp().alive) {
    wrong = "waits for lanes that have exited";
  } else if (call.kind >= LaneCall::Kind::kLdmatrix && warp().existing != ~0u) {
    wrong = "needs 32 lanes in a warp that has fewer";
  } else if (first != nullptr && (first->kind != call.kind || !same(first->site, call.site))) {
    wrong = "waits at " + describe(call.site) + " while other lanes of the same mask wait at " + describe(first->site);
  } else {
    return;
  }
  report(Fault::kCollective, wrong, call.pc);
  abort_launch(cudaErrorLaunchFailure);
}

void Worker::join(const LaneCall& call) {
  Warp& own = warp();
  const unsigned lane = running_ % kLanes;
  Collective* collective = nullptr;
  for (Collective& candidate : own.collectives) {
    if (candidate.open && candidate.mask == call.mask) collective = &candidate;
  }
  if (collective == nullptr) {
    const auto free =
        std::find_if(own.collectives.begin(), own.collectives.end(), [](const auto& c) { return !c.open; });
    if (free == own.collectives.end()) {
      report(Fault::kCollective, "opens one collective too many for the emulator in one warp", call.pc);
      abort_launch(cudaErrorLaunchFailure);
    }
    collective = &*free;
    collective->mask = call.mask;
    collective->arrived = 0;
    collective->open = true;
  }
  check_collective(*collective, call);
  collective->calls[lane] = &call;
  collective->arrived |= 1u << lane;
  const uint32_t needed = call.mask & own.existing;
  if (collective->arrived == needed) {
    finish_collective(*collective, needed);
  } else {
    thread().status = Thread::Status::kInCollective;
    thread().site = call.site;
    thread().pc = call.pc;
    wait();
  }
}

void Worker::finish_collective(Collective& collective, uint32_t mask) {
  const unsigned first_thread = running_ / kLanes * kLanes;
  const bool whole_warp = mask == warp().alive;
  if (whole_warp && checking()) log.replay_warp(running_ / kLanes, counters);
  complete_collective(*this, collective.calls, mask);
  if (whole_warp && collective.calls[running_ % kLanes]->kind == LaneCall::Kind::kSyncWarp) warp().epoch++;
  collective.open = false;
  counters.collectives++;
  for (unsigned lane = 0; lane < kLanes; lane++) {
    if (mask >> lane & 1u && first_thread + lane != running_) make_ready(first_thread + lane);
  }
}

void Worker::report_deadlock() {
  std::map<std::string, int> waiting;  // where, and how many threads
  unsigned first = thread_count_;
  for (unsigned i = 0; i < thread_count_; i++) {
    const Thread& thread = threads_[i];
    if (thread.status != Thread::Status::kAtBarrier && thread.status != Thread::Status::kInCollective) continue;
    first = std::min(first, i);
    const bool at_barrier = thread.status == Thread::Status::kAtBarrier;
    waiting[(at_barrier ? "the barrier at " : "the warp collective at ") + describe(thread.site)]++;
  }
  std::string text = "waits for ever:";
  for (const auto& [where, threads] : waiting) text += " " + std::to_string(threads) + " threads are at " + where + ",";
  text += " " + std::to_string(thread_count_ - alive_) + " have exited";
  report(first, Fault::kDeadlock, text, threads_[first].pc);
}

int barrier(bool predicate, Site site) {
  return Worker::current()->barrier(predicate, site, __builtin_return_address(0));
}

void* shared_variable(const void* key, const char* name, size_t bytes) {
  Worker& worker = *Worker::current();
  void* variable = worker.shared.variable(key, name, bytes);
  if (variable == nullptr) {
    worker.report(Fault::kLaunch, "asks for more shared memory than a block can have", __builtin_return_address(0));
    worker.abort_launch(cudaErrorInvalidValue);
  }
  return variable;
}

void* shared_dynamic() {
  return Worker::current()->shared.dynamic();
}

void count_flops(unsigned count) {
  if (Worker* worker = Worker::current()) worker->counters.flops += count;
}

}  // namespace ganops::simt

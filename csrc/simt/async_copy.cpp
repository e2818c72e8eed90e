#include "simt/async_copy.h"

#include <cstring>

#include "simt/scheduler.h"

namespace ganops::simt {

namespace {

constexpr int kPoison = 0xff;

void copy_now(const PendingCopy& copy) {
  if (copy.predicate) {
    std::memcpy(copy.shared, copy.global, copy.bytes);
  } else {
    std::memset(copy.shared, 0, copy.bytes);
  }
}

}  // namespace

void cp_async(void* shared, const void* global, size_t bytes, bool predicate) {
  Worker& worker = *Worker::current();
  const PendingCopy copy{shared, global, bytes, predicate, __builtin_return_address(0)};
  if (!checking()) return copy_now(copy);
  if (!worker.shared.contains(reinterpret_cast<uintptr_t>(shared))) {
    worker.report(Fault::kOutOfBounds, "cp.async to memory that is not shared", copy.pc);
    worker.abort_launch(cudaErrorIllegalAddress);
  }
  if (predicate) check_access(global, bytes, AccessKind::kRead, copy.pc);
  check_access(shared, bytes, AccessKind::kWrite, copy.pc);
  mark_in_flight(shared, bytes);
  std::memset(shared, kPoison, bytes);
  worker.thread().copies.copies.push_back(copy);
}

void cp_async_commit() {
  if (!checking()) return;
  CopyQueue& queue = Worker::current()->thread().copies;
  queue.group_ends.push_back(queue.copies.size());
}

void cp_async_wait(size_t groups) {
  if (!checking()) return;
  Worker& worker = *Worker::current();
  CopyQueue& queue = worker.thread().copies;
  if (queue.group_ends.size() <= groups) return;
  const size_t landing = queue.group_ends.size() - groups;
  const size_t copies = queue.group_ends[landing - 1];
  for (size_t i = 0; i < copies; i++) {
    copy_now(queue.copies[i]);
    mark_landed(queue.copies[i].shared, queue.copies[i].bytes);
  }
  queue.copies.erase(queue.copies.begin(), queue.copies.begin() + static_cast<std::ptrdiff_t>(copies));
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<std::ptrdiff_t>(landing));
  for (size_t& end : queue.group_ends) end -= copies;
}

}  // namespace ganops::simt

#include "simt/memory.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "simt/scheduler.h"

namespace ganops::simt {

namespace {

bool checked = false;

const char* verb(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead:
      return "read";
    case AccessKind::kWrite:
      return "write";
    case AccessKind::kAtomic:
      return "atomic update";
  }
  return "";
}

// The library that the kernels are in: they may read its constants.
struct Image {
  uintptr_t begin = std::numeric_limits<uintptr_t>::max();
  uintptr_t end = 0;
  bool contains(uintptr_t address) const { return address >= begin && address < end; }
};

int find_image(dl_phdr_info* info, size_t, void* result) {
  Image image;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    image.begin = std::min<uintptr_t>(image.begin, info->dlpi_addr + header.p_vaddr);
    image.end = std::max<uintptr_t>(image.end, info->dlpi_addr + header.p_vaddr + header.p_memsz);
  }
  if (!image.contains(reinterpret_cast<uintptr_t>(&find_image))) return 0;
  *static_cast<Image*>(result) = image;
  return 1;
}

const Image& own_image() {
  static const Image image = [] {
    Image found;
    dl_iterate_phdr(find_image, &found);
    return found;
  }();
  return image;
}

Stamp stamp_now(const Worker& worker, uint32_t warp_epoch) {
  Stamp now{};
  now.valid = 1;
  now.lane = worker.running() % kLanes;
  now.warp = worker.running() / kLanes;
  now.warp_epoch = warp_epoch;
  now.epoch = worker.epoch();
  now.block = worker.block_index();
  return now;
}

// The widest group of threads that `then` and `now` share an unordered pair of accesses in; kThread where there is
// none.
Scope conflict(Stamp then, Stamp now) {
  const auto scope = static_cast<Scope>(static_cast<unsigned>(then.scope));
  if (scope == Scope::kGrid || then.block != now.block) return Scope::kGrid;
  if (then.epoch != now.epoch) return Scope::kThread;
  if (scope == Scope::kBlock || then.warp != now.warp) return Scope::kBlock;
  if (then.warp_epoch != now.warp_epoch) return Scope::kThread;
  if (scope == Scope::kWarp || then.lane != now.lane) return Scope::kWarp;
  return Scope::kThread;
}

Stamp fold(Stamp then, Stamp now) {
  if (then.valid) now.scope = static_cast<unsigned>(conflict(then, now));
  return now;
}

// What is wrong with an access, judged by the first byte that has it.
struct Finding {
  bool uninitialised = false;
  bool in_flight = false;
  bool race = false;
  bool race_with_write = false;
  Stamp other{};
  size_t byte = 0;

  bool any() const { return uninitialised || in_flight || race; }
  void add_race(Stamp then, Stamp now, bool with_write, size_t at) {
    if (race || !then.valid || conflict(then, now) == Scope::kThread) return;
    race = true;
    race_with_write = with_write;
    other = then;
    byte = at;
  }
};

// The cell after an access; what is wrong with the access is added to the finding.
Cell judge(Cell cell, size_t byte, AccessKind kind, Stamp now, bool initialised, Finding& finding) {
  const bool both_atomic = kind == AccessKind::kAtomic && cell.write.atomic;
  if (cell.write.in_flight) {
    finding.in_flight = true;
  } else if (!both_atomic) {
    finding.add_race(cell.write, now, true, byte);
  }
  if (kind != AccessKind::kWrite && !initialised && !cell.write.valid) finding.uninitialised = true;
  if (kind == AccessKind::kRead) {
    cell.read = fold(cell.read, now);
  } else {
    finding.add_race(cell.read, now, false, byte);
    cell.write = both_atomic ? fold(cell.write, now) : now;
    cell.write.atomic = kind == AccessKind::kAtomic;
  }
  return cell;
}

bool same(const Cell& a, const Cell& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// Bytes that are accessed together have mostly been accessed together before: only the first of a run of equal cells is
// judged.
Finding update_cells(Cell* cells, size_t bytes, AccessKind kind, Stamp now, bool shared, bool initialised) {
  Finding finding;
  Cell before{}, after{};
  for (size_t i = 0; i < bytes; i++) {
    if (i == 0 || !same(cells[i], before)) {
      before = after = cells[i];
      if (shared && after.write.block != now.block) after.write = {};  // left over from another block
      if (shared && after.read.block != now.block) after.read = {};
      after = judge(after, i, kind, now, initialised, finding);
    }
    cells[i] = after;
  }
  return finding;
}

std::string describe(Worker& worker, Stamp other) {
  const dim3 grid = worker.launch().request.grid;
  const auto block = static_cast<unsigned>(other.block);
  const uint3 coordinates{block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
  const unsigned thread = static_cast<unsigned>(other.warp * kLanes + other.lane);
  std::string text = "block " + to_string(coordinates) + " thread " + to_string(worker.thread_index(thread));
  if (other.scope != static_cast<unsigned>(Scope::kThread)) text += " and others";
  return text;
}

void report_finding(Worker& worker, const Finding& finding, const std::string& what, const void* pc) {
  if (finding.in_flight) {
    worker.report(Fault::kMissingWait, what + " before a cp.async to it has been waited for", pc);
  } else if (finding.uninitialised) {
    worker.report(Fault::kUninitialised, what + ", which nothing has been written to", pc);
  }
  if (finding.race) {
    worker.report(Fault::kRace,
                  what + " races with the " + (finding.race_with_write ? "write" : "read") + " by " +
                      describe(worker, finding.other) +
                      (finding.byte == 0 ? "" : ", at byte " + std::to_string(finding.byte) + " of the access"),
                  pc);
  }
}

class SpinLock {
 public:
  explicit SpinLock(std::atomic_flag* flag) : flag_(flag) {
    while (flag_ && flag_->test_and_set(std::memory_order_acquire)) {
    }
  }
  ~SpinLock() {
    if (flag_) flag_->clear(std::memory_order_release);
  }
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

 private:
  std::atomic_flag* flag_;
};

void check_alignment(Worker& worker, uintptr_t address, const std::string& what, size_t bytes, const void* pc) {
  if (address % bytes == 0) return;
  worker.report(Fault::kMisaligned, what + ", whose address is no multiple of " + std::to_string(bytes), pc);
  worker.abort_launch(cudaErrorMisalignedAddress);
}

std::string in_words(AccessKind kind, size_t bytes, const std::string& where) {
  return std::to_string(bytes) + "-byte " + verb(kind) + (kind == AccessKind::kRead ? " of " : " to ") + where;
}

void check_shared(Worker& worker, const void* address, size_t bytes, AccessKind kind, const void* pc, Stamp now) {
  const size_t offset = worker.shared.offset_of(address);
  const auto what = [&] { return in_words(kind, bytes, worker.shared.describe(offset)); };
  if (!worker.shared.is_allocated(offset, bytes)) {
    worker.report(Fault::kOutOfBounds, what(), pc);
    worker.abort_launch(cudaErrorIllegalAddress);
  }
  if (offset % bytes != 0) check_alignment(worker, offset, what(), bytes, pc);
  const Finding finding = update_cells(worker.shared.cells(offset), bytes, kind, now, true, false);
  if (finding.any()) report_finding(worker, finding, what(), pc);
}

// The buffer; null where the address is not global memory but the thread's own.
const TrackedBuffer* check_global(Worker& worker, uintptr_t address, size_t bytes, AccessKind kind, const void* pc,
                                  Stamp now) {
  Launch& launch = worker.launch();
  TrackedBuffer* tracked = launch.global.find(address);
  if (tracked == nullptr) {
    const auto call = reinterpret_cast<uintptr_t>(launch.request.call);
    const bool parameter = address - call < launch.request.call_bytes;
    if (kind == AccessKind::kRead && (parameter || own_image().contains(address))) return nullptr;
    worker.report(Fault::kOutOfBounds, in_words(kind, bytes, launch.global.describe_nearest(address)), pc);
    worker.abort_launch(cudaErrorIllegalAddress);
  }
  const size_t offset = address - tracked->begin;
  const auto what = [&] {
    return in_words(kind, bytes, std::string(tracked->buffer.name) + " at byte " + std::to_string(offset));
  };
  if (address + bytes > tracked->end) {
    worker.report(Fault::kOutOfBounds, what() + " of " + std::to_string(tracked->buffer.bytes), pc);
    worker.abort_launch(cudaErrorIllegalAddress);
  }
  if (address % bytes != 0) check_alignment(worker, address, what(), bytes, pc);
  const Buffer::Use use = tracked->buffer.use;
  if (kind != AccessKind::kRead && use == Buffer::Use::kInput) {
    worker.report(Fault::kReadOnly, what() + ", which the launch calls an input", pc);
    return tracked;
  }
  const bool initialised = use == Buffer::Use::kInput || use == Buffer::Use::kUpdate;
  Finding finding;
  {
    const SpinLock lock(launch.options.os_threads > 1 ? &launch.global.lock_of(address) : nullptr);
    finding = update_cells(tracked->shadow.at(offset), bytes, kind, now, false, initialised);
  }
  if (finding.any()) report_finding(worker, finding, what(), pc);
  worker.footprints[tracked->index].touch(worker.block_index(), address, bytes, kind != AccessKind::kRead);
  return tracked;
}

}  // namespace

bool checking() {
  return checked;
}
void enable_checking() {
  checked = true;
}

Shadow::Shadow(size_t bytes) : cells_(static_cast<Cell*>(std::calloc(bytes, sizeof(Cell)))) {
  if (!cells_) throw std::bad_alloc();
}
void Shadow::Free::operator()(Cell* cells) const {
  std::free(cells);
}

void GlobalMemory::track(const Buffer& buffer) {
  const auto begin = reinterpret_cast<uintptr_t>(buffer.data);
  buffers_.push_back({static_cast<unsigned>(buffers_.size()), buffer, begin,
                      begin + static_cast<uintptr_t>(buffer.bytes), Shadow(static_cast<size_t>(buffer.bytes))});
}

TrackedBuffer* GlobalMemory::find(uintptr_t address) {
  for (TrackedBuffer& tracked : buffers_) {
    if (address - tracked.begin < tracked.end - tracked.begin) return &tracked;
  }
  return nullptr;
}

std::string GlobalMemory::describe_nearest(uintptr_t address) const {
  std::string text = "memory that the launch does not name";
  uintptr_t nearest = std::numeric_limits<uintptr_t>::max();
  for (const TrackedBuffer& tracked : buffers_) {
    const bool before = address < tracked.begin;
    const uintptr_t distance = before ? tracked.begin - address : address - tracked.end;
    if (distance >= nearest) continue;
    nearest = distance;
    text = std::string("memory ") + std::to_string(distance) + " bytes " + (before ? "before" : "past the end of ") +
           (before ? " " : "") + tracked.buffer.name + " of " + std::to_string(tracked.buffer.bytes) + " bytes";
  }
  return text;
}

void check_access(const void* address, size_t bytes, AccessKind kind, const void* pc) {
  Worker* worker = Worker::current();
  if (worker == nullptr || stack_of(address) == stack_of(__builtin_frame_address(0))) return;
  const Stamp now = stamp_now(*worker, worker->warp().epoch);
  const auto numeric = reinterpret_cast<uintptr_t>(address);
  const bool shared = worker->shared.contains(numeric);
  const TrackedBuffer* buffer = nullptr;
  if (shared) {
    check_shared(*worker, address, bytes, kind, pc, now);
  } else if (!(buffer = check_global(*worker, numeric, bytes, kind, pc, now))) {
    return;
  }
  if (kind == AccessKind::kAtomic) return;  // counted apart
  worker->log.add(worker->running(),
                  {reinterpret_cast<uintptr_t>(pc), shared ? worker->shared.offset_of(address) : numeric,
                   buffer ? buffer->index : 0, bytes, shared, kind != AccessKind::kRead});
}

void check_lane_access(unsigned lane, const void* address, size_t bytes, AccessKind kind, const void* pc) {
  Worker& worker = *Worker::current();
  const unsigned self = worker.running();
  worker.run_as(self / kLanes * kLanes + lane);
  check_access(address, bytes, kind, pc);
  worker.run_as(self);
}

void mark_in_flight(void* shared, size_t bytes) {
  SharedMemory& memory = Worker::current()->shared;
  Cell* cells = memory.cells(memory.offset_of(shared));
  for (size_t i = 0; i < bytes; i++) cells[i].write.in_flight = 1;
}

void mark_landed(void* shared, size_t bytes) {
  Worker& worker = *Worker::current();
  Cell* cells = worker.shared.cells(worker.shared.offset_of(shared));
  const Stamp now = stamp_now(worker, worker.warp().epoch);
  for (size_t i = 0; i < bytes; i++) cells[i].write = now;
}

}  // namespace ganops::simt

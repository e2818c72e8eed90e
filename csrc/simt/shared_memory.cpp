#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "simt/memory.h"

namespace ganops::simt {

namespace {

// All bits set is NaN in every floating-point format: what is read before it is written shows in the result as well.
constexpr int kPoison = 0xff;

size_t align_up(size_t value, size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

SharedMemory::SharedMemory() : shadow_(checking() ? kArenaBytes : 1) {
  void* mapped = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<char*>(mapped);
}

SharedMemory::~SharedMemory() {
  munmap(arena_, kArenaBytes);
}

void SharedMemory::begin_launch(size_t dynamic_bytes, size_t limit) {
  if (checking()) std::fill_n(shadow_.at(0), dirty_, Cell{});
  dynamic_bytes_ = dynamic_bytes;
  limit_ = std::min(limit, kCapacity);
  dirty_ = dynamic_bytes;
}

void SharedMemory::begin_block() {
  std::memset(arena_, kPoison, dirty_);
  variables_.clear();
  end_ = dynamic_bytes_;
}

void* SharedMemory::variable(const void* key, const char* name, size_t bytes) {
  for (const Variable& known : variables_) {
    if (known.key == key) return arena_ + known.offset;
  }
  const size_t offset = align_up(end_ + kGapBytes, kGapBytes);
  if (bytes_used() + bytes > limit_ || offset + bytes > kArenaBytes) return nullptr;
  variables_.push_back({key, name, offset, bytes});
  end_ = offset + bytes;
  if (end_ > dirty_) {
    std::memset(arena_ + dirty_, kPoison, end_ - dirty_);
    dirty_ = end_;
  }
  return arena_ + offset;
}

size_t SharedMemory::bytes_used() const {
  size_t bytes = dynamic_bytes_;
  for (const Variable& variable : variables_) bytes += variable.bytes;
  return bytes;
}

bool SharedMemory::is_allocated(size_t offset, size_t bytes) const {
  if (offset + bytes <= dynamic_bytes_) return true;
  return std::any_of(variables_.begin(), variables_.end(), [&](const Variable& variable) {
    return offset >= variable.offset && offset + bytes <= variable.offset + variable.bytes;
  });
}

std::string SharedMemory::describe(size_t offset) const {
  const auto words = [](const std::string& name, size_t at, size_t bytes) {
    return name + " at byte " + std::to_string(at) + " of " + std::to_string(bytes);
  };
  for (const Variable& variable : variables_) {
    if (offset >= variable.offset && offset < variable.offset + variable.bytes + kGapBytes) {
      return words(std::string("shared ") + variable.name, offset - variable.offset, variable.bytes);
    }
  }
  return words("dynamic shared memory", offset, dynamic_bytes_);
}

}  // namespace ganops::simt

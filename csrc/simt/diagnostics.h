// What the emulator has to say about a kernel.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "simt/types.h"

namespace ganops::simt {

enum class Fault {
  kOutOfBounds,
  kMisaligned,
  kReadOnly,
  kUninitialised,
  kUnwritten,
  kRace,
  kMissingWait,
  kDivergentBarrier,
  kCollective,
  kDeadlock,
  kLaunch,
};

const char* fault_name(Fault fault);

struct Diagnostic {
  Fault fault;
  std::string message;
  const void* pc = nullptr;  // a return address in the kernel; null where no one instruction is to blame
  bool has_thread = false;
  uint3 block{};
  uint3 thread{};
  uint64_t count = 1;  // how often the same instruction failed in the same way
};

// The first diagnostic of each fault and instruction, from every OS thread of a launch.
class Diagnostics {
 public:
  void report(Diagnostic diagnostic);
  const std::vector<Diagnostic>& all() const { return all_; }

 private:
  std::mutex mutex_;
  std::vector<Diagnostic> all_;
};

std::string to_string(uint3 index);

}  // namespace ganops::simt

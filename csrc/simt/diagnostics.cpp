#include "simt/diagnostics.h"

#include <utility>

namespace ganops::simt {

const char* fault_name(Fault fault) {
  switch (fault) {
    case Fault::kOutOfBounds:
      return "out of bounds";
    case Fault::kMisaligned:
      return "misaligned";
    case Fault::kReadOnly:
      return "write to input";
    case Fault::kUninitialised:
      return "uninitialised";
    case Fault::kUnwritten:
      return "unwritten output";
    case Fault::kRace:
      return "race";
    case Fault::kMissingWait:
      return "missing cp.async wait";
    case Fault::kDivergentBarrier:
      return "divergent barrier";
    case Fault::kCollective:
      return "incomplete collective";
    case Fault::kDeadlock:
      return "deadlock";
    case Fault::kLaunch:
      return "bad launch";
  }
  return "";
}

void Diagnostics::report(Diagnostic diagnostic) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Diagnostic& known : all_) {
    if (known.fault == diagnostic.fault && known.pc == diagnostic.pc && known.pc != nullptr) {
      known.count++;
      return;
    }
  }
  all_.push_back(std::move(diagnostic));
}

std::string to_string(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

}  // namespace ganops::simt

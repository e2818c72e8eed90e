// Linked into the check build alone. Its kernels are compiled with -fsanitize=thread but not linked with that
// sanitizer's library: the calls that the compiler puts before every access of memory end here.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "simt/memory.h"

namespace {

using ganops::simt::AccessKind;
using ganops::simt::check_access;

[[maybe_unused]] const bool enabled = (ganops::simt::enable_checking(), true);

// A copy of a structure moves in pieces no larger than its alignment and 4 bytes allow.
void check_range(const void* address, size_t bytes, AccessKind kind, const void* pc) {
  constexpr size_t kPiece = 4;
  const auto* byte = static_cast<const char*>(address);
  while (bytes > 0) {
    const auto misalignment = static_cast<size_t>(reinterpret_cast<uintptr_t>(byte) % kPiece);
    const size_t piece = misalignment == 0 && bytes >= kPiece ? kPiece : 1;
    check_access(byte, piece, kind, pc);
    byte += piece;
    bytes -= piece;
  }
}

}  // namespace

#define GANOPS_HOOK(name, bytes, kind)                               \
  extern "C" void name(void* address) {                              \
    check_access(address, bytes, kind, __builtin_return_address(0)); \
  }
#define GANOPS_HOOKS(bytes)                                             \
  GANOPS_HOOK(__tsan_read##bytes, bytes, AccessKind::kRead)             \
  GANOPS_HOOK(__tsan_write##bytes, bytes, AccessKind::kWrite)           \
  GANOPS_HOOK(__tsan_unaligned_read##bytes, bytes, AccessKind::kRead)   \
  GANOPS_HOOK(__tsan_unaligned_write##bytes, bytes, AccessKind::kWrite) \
  GANOPS_HOOK(__tsan_volatile_read##bytes, bytes, AccessKind::kRead)    \
  GANOPS_HOOK(__tsan_volatile_write##bytes, bytes, AccessKind::kWrite)

GANOPS_HOOKS(1)
GANOPS_HOOKS(2)
GANOPS_HOOKS(4)
GANOPS_HOOKS(8)
GANOPS_HOOKS(16)

extern "C" {
void __tsan_read_range(void* address, size_t bytes) {
  check_range(address, bytes, AccessKind::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  check_range(address, bytes, AccessKind::kWrite, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}

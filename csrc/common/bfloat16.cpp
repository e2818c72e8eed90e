// What multiplies bfloat16 in this process.
#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>

#include "common/cpu.h"
#if defined(GANOPS_X86_64) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ganops {
namespace {

constexpr const char* kNames[] = {"none", "AVX512-BF16", "AMX", "AMX, emulated"};

std::string environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? value : "";
}

bool machine_has_avx512_bf16() {
#if defined(GANOPS_X86_64) && defined(__GNUC__) && !defined(__clang__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// Whether this process may use AMX. Virtual machines are known that set the processor's flags for it and then lack the
// rest, so all who have a say are asked: the flags, the tiles' description, the system's saved state, and the kernel.
bool may_use_amx() {
#if defined(GANOPS_X86_64) && defined(__linux__)
  const auto bits = [](unsigned value, int first, int count) { return value >> first & ((1u << count) - 1); };
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !bits(c, 27, 1)) return false;                                  // XGETBV
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !bits(d, 22, 1) || !bits(d, 24, 1)) return false;      // AMX-BF16
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d) || bits(a, 16, 16) != 1024 || bits(b, 0, 16) != 64 ||  // tiles
      bits(b, 16, 16) < 8 || bits(c, 0, 16) < 16)
    return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if (bits(low, 17, 2) != 3) return false;
  constexpr long kGetPermission = 0x1022, kRequestPermission = 0x1023, kTileData = 18;  // of Linux' asm/prctl.h
  unsigned long granted = 0;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 &&
         syscall(SYS_arch_prctl, kGetPermission, &granted) == 0 && (granted >> kTileData & 1);
#else
  return false;
#endif
}

Bfloat16Unit choose_unit() {
  const std::string amx = environment("GANOPS_AMX");
  if (environment("GANOPS_BFLOAT16") == "0") return Bfloat16Unit::none;
  if (amx == "emulate") return Bfloat16Unit::emulated_amx;
  if (cpu_isa() != CpuIsa::x86_64_v4) return Bfloat16Unit::none;
  if (amx != "0" && may_use_amx()) return Bfloat16Unit::amx;
  return machine_has_avx512_bf16() ? Bfloat16Unit::avx512_bf16 : Bfloat16Unit::none;
}

std::string cpu_bfloat16_instructions() {
  return kNames[static_cast<int>(bfloat16_unit())];
}

}  // namespace

Bfloat16Unit bfloat16_unit() {
  static const Bfloat16Unit unit = choose_unit();
  return unit;
}

bool has_avx512_bf16() {
  static const bool has = cpu_isa() == CpuIsa::x86_64_v4 && machine_has_avx512_bf16();
  return has && bfloat16_unit() != Bfloat16Unit::none;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_FRAGMENT(ganops, m) {
  m.def("cpu_bfloat16_instructions() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(ganops, CompositeExplicitAutograd, m) {
  m.impl("cpu_bfloat16_instructions", TORCH_BOX(&ganops::cpu_bfloat16_instructions));
}

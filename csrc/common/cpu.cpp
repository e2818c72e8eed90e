#include "common/cpu.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>

namespace ganops {
namespace {

constexpr const char* kNames[] = {"baseline", "x86-64-v3", "x86-64-v4"};

CpuIsa machine_isa() {
#if defined(GANOPS_X86_64) && defined(__GNUC__) && !defined(__clang__)
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? CpuIsa::x86_64_v4 : v3 ? CpuIsa::x86_64_v3 : CpuIsa::baseline;
#else
  return CpuIsa::baseline;
#endif
}

CpuIsa choose_isa() {
  const CpuIsa best = machine_isa();
  const char* wanted = std::getenv("GANOPS_CPU_ISA");
  for (int i = 0; wanted && i < static_cast<int>(best); i++)
    if (std::string(wanted) == kNames[i]) return static_cast<CpuIsa>(i);
  return best;
}

std::string cpu_instruction_set() {
  return kNames[static_cast<int>(cpu_isa())];
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = choose_isa();
  return isa;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_FRAGMENT(ganops, m) {
  m.def("cpu_instruction_set() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(ganops, CompositeExplicitAutograd, m) {
  m.impl("cpu_instruction_set", TORCH_BOX(&ganops::cpu_instruction_set));
}

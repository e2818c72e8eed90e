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

bool is_off(const char* variable) {
  const char* value = std::getenv(variable);
  return value && std::string(value) == "0";
}

bool machine_multiplies_bfloat16() {
#if defined(GANOPS_X86_64) && defined(__GNUC__) && !defined(__clang__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

std::string cpu_instruction_set() {
  return kNames[static_cast<int>(cpu_isa())];
}

std::string cpu_bfloat16_instructions() {
  return multiplies_bfloat16() ? "AVX512-BF16" : "none";
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = choose_isa();
  return isa;
}

bool multiplies_bfloat16() {
  static const bool does =
      cpu_isa() == CpuIsa::x86_64_v4 && machine_multiplies_bfloat16() && !is_off("GANOPS_BFLOAT16");
  return does;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_FRAGMENT(ganops, m) {
  m.def("cpu_instruction_set() -> str");
  m.def("cpu_bfloat16_instructions() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(ganops, CompositeExplicitAutograd, m) {
  m.impl("cpu_instruction_set", TORCH_BOX(&ganops::cpu_instruction_set));
  m.impl("cpu_bfloat16_instructions", TORCH_BOX(&ganops::cpu_bfloat16_instructions));
}

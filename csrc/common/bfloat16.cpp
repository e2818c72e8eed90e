// What multiplies bfloat16 in this process.
#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>

#include "common/cpu.h"
#include "common/tiles.h"
#if defined(GANOPS_X86_64) && defined(__linux__)
#include <cpuid.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
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

#if defined(GANOPS_X86_64) && defined(__linux__)
// Of pairs of powers of two, whose sums are exact, and which tell the factors' order.
template <class Tiles>
void multiply_pairs(float* sums) {
  constexpr uint32_t kWords = kTileRows * kTileRowBytes / sizeof(uint32_t);
  uint32_t a[kWords], b[kWords];
  for (uint32_t i = 0; i < kWords; i++) {
    a[i] = 0x3f804000 + (i % 7 << 7);
    b[i] = 0x40003f80 + (i % 11 << 7);
  }
  Tiles tiles;
  tiles.template zero<0>();
  tiles.template load<1>(a, kTileRowBytes);
  tiles.template load<2>(b, kTileRowBytes);
  tiles.template multiply<0, 1, 2>();
  tiles.template store<0>(sums, kTileRowBytes);
}

bool products_agree() {
  constexpr int64_t kBytes = kTileRows * kTileRowBytes;
  float sums[kBytes / sizeof(float)], expected[kBytes / sizeof(float)];
  multiply_pairs<AmxTiles>(sums);
  multiply_pairs<EmulatedTiles>(expected);
  return std::memcmp(sums, expected, kBytes) == 0;
}

// Whether tiles multiply: tried in a child process, as an illegal instruction is an answer too. Between fork and _exit
// it calls nothing that could wait for another thread.
bool tiles_multiply() {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGILL, [](int) { _exit(1); });
    _exit(products_agree() ? 0 : 1);
  }
  int status = 1;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return child > 0 && status == 0;
}

bool has_amx_flags() {
  constexpr unsigned kBfloat16AndTiles = 1u << 22 | 1u << 24;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBfloat16AndTiles) == kBfloat16AndTiles;
}
#endif

// Whether this process may use AMX: by the processor's flags, the kernel, which saves tiles for those who asked, and a
// trial. The flags alone tell nothing, nor do their absent neighbours: virtual machines are known that set them and
// hide the tiles' description (CPUID leaf 0x1d), with tiles that work, and with tiles that do not.
bool may_use_amx([[maybe_unused]] bool by_trial_alone) {
#if defined(GANOPS_X86_64) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of Linux' asm/prctl.h
  const bool is_granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return ((has_amx_flags() && is_granted) || by_trial_alone) && tiles_multiply();
#else
  return false;
#endif
}

Bfloat16Unit choose_unit() {
  const std::string amx = environment("GANOPS_AMX");
  if (environment("GANOPS_BFLOAT16") == "0") return Bfloat16Unit::none;
  if (amx == "emulate") return Bfloat16Unit::emulated_amx;
  if (cpu_isa() != CpuIsa::x86_64_v4) return Bfloat16Unit::none;
  if (amx != "0" && may_use_amx(amx == "1")) return Bfloat16Unit::amx;
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

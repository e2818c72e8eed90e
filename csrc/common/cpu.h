// What CPU kernels share: threads, and the instruction set chosen for this process.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
// GANOPS_PORTABLE leaves out everything that is x86-64's own: what other processors get, on any machine.
#if defined(__x86_64__) && !defined(GANOPS_PORTABLE)
#define GANOPS_X86_64
#include <immintrin.h>
#endif

#include "common/types.h"

namespace ganops {

enum class CpuIsa { baseline, x86_64_v3, x86_64_v4 };

// The best instruction set of this machine, or the lesser one that the environment's GANOPS_CPU_ISA names.
CpuIsa cpu_isa();

// Whether there is AVX512-BF16, and the environment does not say GANOPS_BFLOAT16=0 or a lesser GANOPS_CPU_ISA.
bool multiplies_bfloat16();

// Runs f(begin, end) over [0, n) on torch's threads; each call gets at least `grain` items.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  if (n > 0) torch::stable::parallel_for(0, n, grain, f);
}

}  // namespace ganops

// What CPU kernels share: threads, and the instruction set chosen for this process.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
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

// What multiplies bfloat16: by the processor, and by the environment's GANOPS_BFLOAT16=0 (nothing) and GANOPS_AMX: 0
// (not AMX), 1 (AMX if it works, whatever the processor and the kernel say) or, for tests, emulate.
enum class Bfloat16Unit { none, avx512_bf16, amx, emulated_amx };
Bfloat16Unit bfloat16_unit();

// Whether vectors multiply bfloat16, beside tiles or without.
bool has_avx512_bf16();

// Runs f(begin, end) over [0, n) on torch's threads, in ranges of at least `grain` items. A thread that is done with
// one takes the next: cores are neither equally fast nor equally free.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  constexpr int64_t kRanges = 8;  // a thread
  if (n <= 0) return;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t ranges = threads == 1 ? 1 : std::min(kRanges * threads, ceil_div(n, grain));
  const int64_t range = ceil_div(n, ranges);
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, ranges, 1, [&](int64_t, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(range)) < n;) f(begin, std::min(begin + range, n));
  });
}

}  // namespace ganops

// The sum of squares of each filter's taps: torch's own passes write the squares, and sum so few of them slowly.
#include <torch/csrc/stable/ops.h>

#include "common/cpu.h"
#include "common/host.h"

namespace ganops {
namespace {

template <int64_t fixed_taps>
void sum_squares(const float* filters, float* energy, int64_t count, int64_t any_taps) {
  const int64_t taps = fixed_taps > 0 ? fixed_taps : any_taps;
  constexpr int64_t kGrain = 1 << 12;
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float sum = 0;
      for (int64_t tap = 0; tap < taps; tap++) sum += filters[i * taps + tap] * filters[i * taps + tap];
      energy[i] = sum;
    }
  });
}

}  // namespace

// [O, I] of weight [O, I, kh, kw] in float32.
Tensor filter_energy(const Tensor& weight_any) {
  STD_TORCH_CHECK(weight_any.dim() == 4 && weight_any.scalar_type() == ScalarType::Float,
                  "weight must be [O, I, kh, kw] in float32");
  const Tensor weight = torch::stable::contiguous(weight_any);
  Tensor energy = new_tensor(weight, {weight.size(0), weight.size(1)});
  const int64_t count = energy.numel(), taps = weight.size(2) * weight.size(3);
  const float* filters = static_cast<const float*>(weight.const_data_ptr());
  float* sums = static_cast<float*>(energy.mutable_data_ptr());
  if (taps == 9)
    sum_squares<9>(filters, sums, count, taps);
  else
    sum_squares<0>(filters, sums, count, taps);
  return energy;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("filter_energy", TORCH_BOX(&ganops::filter_energy));
}

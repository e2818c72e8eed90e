#include "common/cpu.h"

#include "bias_act/math.h"
#include "modulated_conv2d/params.h"
#define GANOPS_KERNEL_FILE "modulated_conv2d/cpu.cpp"
#include "common/isa.h"
// Once per instruction set, too.
#include "bias_act/cpu.h"

namespace ganops::GANOPS_ISA {

constexpr int64_t kRow = 512;  // elements worked on at a time: their float copy stays in L1

// Rows of one sample and channel (contiguous): scale and bias are constant, noise runs along.
template <class T>
void epilogue_of_plane(const EpilogueParams& p, const BiasActBlock<compute_t<T>>& activate, int64_t n,
                       int64_t channel) {
  using C = compute_t<T>;
  const int64_t at = (n * p.channels + channel) * p.pixels;
  const T* x = static_cast<const T*>(p.x) + at;
  T* y = static_cast<T*>(p.y) + at;
  const C scale = p.scale ? static_cast<const C*>(p.scale)[n * p.channels + channel] : C(1);
  const C* noise = p.noise ? static_cast<const C*>(p.noise) + n * p.noise_stride : nullptr;
  const C bias = p.b ? static_cast<const C*>(p.b)[channel] : C(0);
  C row[kRow];
  for (int64_t i = 0; i < p.pixels; i += kRow) {
    const int64_t count = std::min(kRow, p.pixels - i);
    load_row(row, x + i, count);
    if (noise)
      for (int64_t j = 0; j < count; j++) row[j] = row[j] * scale + noise[i + j];
    else
      for (int64_t j = 0; j < count; j++) row[j] *= scale;
    activate(row, nullptr, nullptr, bias, row, count);
    store_row(y + i, row, count);
  }
}

// The channels of one pixel (channels_last): noise is constant, scale and bias run along.
template <class T>
void epilogue_of_pixel(const EpilogueParams& p, const BiasActBlock<compute_t<T>>& activate, int64_t n, int64_t pixel) {
  using C = compute_t<T>;
  const int64_t at = (n * p.pixels + pixel) * p.channels;
  const T* x = static_cast<const T*>(p.x) + at;
  T* y = static_cast<T*>(p.y) + at;
  const C* scale = p.scale ? static_cast<const C*>(p.scale) + n * p.channels : nullptr;
  const C noise = p.noise ? static_cast<const C*>(p.noise)[n * p.noise_stride + pixel] : C(0);
  const C* b = static_cast<const C*>(p.b);
  C row[kRow];
  for (int64_t i = 0; i < p.channels; i += kRow) {
    const int64_t count = std::min(kRow, p.channels - i);
    load_row(row, x + i, count);
    if (scale)
      for (int64_t j = 0; j < count; j++) row[j] = row[j] * scale[i + j] + noise;
    else
      for (int64_t j = 0; j < count; j++) row[j] += noise;
    activate(row, nullptr, b ? b + i : nullptr, C(0), row, count);
    store_row(y + i, row, count);
  }
}

void epilogue(const EpilogueParams& p) {
  dispatch(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int64_t kGrain = 1 << 15;  // elements that are worth a thread
    const BiasActBlock<compute_t<T>> activate(p.activation);
    const int64_t inner = p.channels_last ? p.pixels : p.channels;
    const int64_t elements = p.channels_last ? p.channels : p.pixels;
    parallel_for(p.batch * inner, kGrain / elements + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        p.channels_last ? epilogue_of_pixel<T>(p, activate, i / inner, i % inner)
                        : epilogue_of_plane<T>(p, activate, i / inner, i % inner);
    });
  });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_epilogue_cpu(const EpilogueParams& p, void*) {
  GANOPS_BEST_ISA(epilogue)(p);
}
}  // namespace ganops
#endif

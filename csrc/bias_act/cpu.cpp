#include "common/cpu.h"

#include <utility>

#include "bias_act/math.h"
#include "bias_act/params.h"
#define GANOPS_KERNEL_FILE "bias_act/cpu.cpp"
#include "common/isa.h"
// Once per instruction set, too.
#include "bias_act/cpu.h"

namespace ganops::GANOPS_ISA {

constexpr int64_t kRow = 256;        // elements converted at a time: their float copies stay in L1
constexpr int64_t kGrain = 1 << 15;  // elements that are worth a thread
constexpr int64_t kPiece = 1 << 14;  // a longer run is split, so that few runs still feed all threads

template <Activation act, int order, class C>
void bias_act_elements(const C* x, const C* dy, const C* b, C bias, C* y, int64_t n,
                       const ActivationConstants<C>& constants) {
  const ActivationConstants<C> k = constants;  // which no store to y can change
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    y[i] = bias_act_element<act, order, C>(x[i], b ? b[i] : bias, order > 0 ? dy[i] : C(0), k);
}

template <class C>
template <int... act>
typename BiasActBlock<C>::Function BiasActBlock<C>::choose(const ActivationParams& p,
                                                           std::integer_sequence<int, act...>) {
  constexpr Function kFunctions[][3] = {{bias_act_elements<static_cast<Activation>(act), 0, C>,
                                         bias_act_elements<static_cast<Activation>(act), 1, C>,
                                         bias_act_elements<static_cast<Activation>(act), 2, C>}...};
  return kFunctions[static_cast<int>(p.act)][p.order];
}

template <class C>
BiasActBlock<C>::BiasActBlock(const ActivationParams& p)
    : constants(p), function(choose(p, std::make_integer_sequence<int, static_cast<int>(Activation::gelu) + 1>{})) {}

template class BiasActBlock<float>;
template class BiasActBlock<double>;

// A run of n consecutive elements of any type, by way of rows in C where they are converted or streamed.
template <class T>
void bias_act_run(const BiasActBlock<compute_t<T>>& block, const T* x, const T* dy, const compute_t<T>* b,
                  compute_t<T> bias, T* y, int64_t n, [[maybe_unused]] bool streamed) {
  using C = compute_t<T>;
  if constexpr (std::is_same_v<T, double>) {
    block(x, dy, b, bias, y, n);
  } else if constexpr (std::is_same_v<T, float>) {
    const auto make = [&](float* to, int64_t i, int64_t count) {
      block(x + i, dy ? dy + i : nullptr, b ? b + i : nullptr, bias, to, count);
    };
    int64_t i = 0;
    if (streamed) {
      alignas(GANOPS_VECTOR_BYTES) float row[kRow];
      i = std::min(-elements_into_vector(y) & (kLanes<float> - 1), n);
      if (i > 0) make(y, 0, i);
      for (; i + kRow <= n; i += kRow) {
        make(row, i, kRow);
        for (int64_t j = 0; j < kRow; j += kLanes<float>) stream(y + i + j, load(row + j));
      }
    }
    if (i < n) make(y + i, i, n - i);
  } else {
    C x_row[kRow], dy_row[kRow], y_row[kRow];
    for (int64_t i = 0; i < n; i += kRow) {
      const int64_t count = std::min(kRow, n - i);
      load_row(x_row, x + i, count);
      if (dy) load_row(dy_row, dy + i, count);
      block(x_row, dy_row, b ? b + i : nullptr, bias, y_row, count);
      store_row(y + i, y_row, count);
    }
  }
}

// The tensor is cut into runs, which have one bias each, and long runs into pieces. Where runs would be shorter than a
// vector, a run is instead some periods of [C, inner], and all have the same row of biases.
template <class T>
void bias_act_tensor(const BiasActParams& p) {
  using C = compute_t<T>;
  const BiasActBlock<C> block(p.activation);
  const T *x = static_cast<const T*>(p.x), *dy = static_cast<const T*>(p.dy);
  T* y = static_cast<T*>(p.y);
  std::vector<C> b(p.b ? p.channels : 0), row;
  if (p.b) load_row(b.data(), static_cast<const T*>(p.b), p.channels);

  const int64_t period = p.channels * p.inner, total = p.outer * period;
  const bool changes_often = p.b && p.inner < kLanes<C>;
  int64_t run = p.b ? p.inner : total;
  if (changes_often) {
    run = std::min(ceil_div(kRow, period) * period, total);
    row.resize(run);
    for (int64_t i = 0; i < run / p.inner; i++) std::fill_n(&row[i * p.inner], p.inner, b[i % p.channels]);
  }
  const bool streamed = is_streamed(total * sizeof(T));
  const int64_t piece = std::min(run, changes_often ? run : kPiece), pieces = ceil_div(run, piece);
  parallel_for(ceil_div(total, run) * pieces, kGrain / piece + 1, [&](int64_t begin, int64_t end) {
    int64_t at = begin / pieces * run, skip = begin % pieces * piece;
    int64_t channel = p.b ? begin / pieces % p.channels : 0;
    for (int64_t i = begin; i < end; i++) {
      const int64_t from = at + skip, n = std::min({piece, run - skip, total - from});
      bias_act_run<T>(block, x + from, dy ? dy + from : nullptr, changes_often ? row.data() : nullptr,
                      p.b ? b[channel] : C(0), y + from, n, streamed);
      if ((skip += piece) < run) continue;
      skip = 0;
      at += run;
      if (++channel == p.channels) channel = 0;
    }
    if (streamed) finish_streams();
  });
}

void bias_act(const BiasActParams& p) {
  dispatch(p.dtype, [&](auto tag) { bias_act_tensor<typename decltype(tag)::type>(p); });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_bias_act_cpu(const BiasActParams& p, void*) {
  GANOPS_BEST_ISA(bias_act)(p);
}
}  // namespace ganops
#endif

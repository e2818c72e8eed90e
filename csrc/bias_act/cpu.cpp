#include "common/cpu.h"

#include <limits>
#include <utility>

#include "bias_act/math.h"
#include "bias_act/params.h"
#define GANOPS_KERNEL_FILE "bias_act/cpu.cpp"
#include "common/isa.h"

namespace ganops::GANOPS_ISA {

constexpr int64_t kRow = 256;        // elements converted at a time: their float copies stay in L1
constexpr int64_t kGrain = 1 << 15;  // elements that are worth a thread
constexpr int64_t kPiece = 1 << 14;  // a longer run is split, so that few runs still feed all threads

// y[i] from x[i], dy[i] and the bias, which is one value, or one for each element where b is given.
template <Activation act, int order, class C>
void bias_act_block(const C* x, const C* dy, const C* b, C bias, C* y, int64_t n, const BiasActParams& p) {
  const C alpha = C(p.alpha), gain = C(p.gain), c = p.clamp < 0 ? std::numeric_limits<C>::quiet_NaN() : C(p.clamp);
  if constexpr (order == 0) {
    for (int64_t i = 0; i < n; i++) y[i] = clamp(activate<act>(x[i] + (b ? b[i] : bias), alpha) * gain, c);
  } else if (p.kept_result) {
    const C inverse_gain = p.gain ? C(1 / p.gain) : C(0), scale = p.gain ? (order == 1 ? gain : C(1)) : C(0);
    for (int64_t i = 0; i < n; i++) {
      const C slope = activation_slope<act, order>(x[i] * inverse_gain, alpha) * scale;
      y[i] = dy[i] * slope_unless_clamped(slope, x[i], c);
    }
  } else {
    for (int64_t i = 0; i < n; i++) {
      const C u = x[i] + (b ? b[i] : bias);
      const C slope = activation_slope<act, order>(u, alpha) * gain;
      y[i] = dy[i] * slope_unless_clamped(slope, activate<act>(u, alpha) * gain, c);
    }
  }
}

template <class C>
using Block = decltype(&bias_act_block<Activation::linear, 0, C>);

template <class C, int... act>
Block<C> choose_block(const BiasActParams& p, std::integer_sequence<int, act...>) {
  constexpr Block<C> kBlocks[][3] = {{bias_act_block<static_cast<Activation>(act), 0, C>,
                                      bias_act_block<static_cast<Activation>(act), 1, C>,
                                      bias_act_block<static_cast<Activation>(act), 2, C>}...};
  return kBlocks[static_cast<int>(p.act)][p.order];
}

// A run of n consecutive elements of any type.
template <class T>
void bias_act_run(Block<compute_t<T>> block, const T* x, const T* dy, const compute_t<T>* b, compute_t<T> bias, T* y,
                  int64_t n, const BiasActParams& p) {
  using C = compute_t<T>;
  if constexpr (std::is_same_v<T, C>) {
    block(x, dy, b, bias, y, n, p);
  } else {
    C x_row[kRow], dy_row[kRow], y_row[kRow];
    for (int64_t i = 0; i < n; i += kRow) {
      const int64_t count = std::min(kRow, n - i);
      load_row(x_row, x + i, count);
      if (dy) load_row(dy_row, dy + i, count);
      block(x_row, dy_row, b ? b + i : nullptr, bias, y_row, count, p);
      store_row(y + i, y_row, count);
    }
  }
}

template <class T>
void bias_act_tensor(const BiasActParams& p) {
  using C = compute_t<T>;
  const Block<C> block = choose_block<C>(p, std::make_integer_sequence<int, static_cast<int>(Activation::gelu) + 1>{});
  const T *x = static_cast<const T*>(p.x), *dy = static_cast<const T*>(p.dy);
  T* y = static_cast<T*>(p.y);
  std::vector<C> b(p.b ? p.channels : 0);
  if (p.b) load_row(b.data(), static_cast<const T*>(p.b), p.channels);

  if (p.b && p.inner == 1) {  // the bias runs along with the elements
    parallel_for(p.outer, kGrain / p.channels + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t at = i * p.channels;
        bias_act_run<T>(block, x + at, dy ? dy + at : nullptr, b.data(), C(0), y + at, p.channels, p);
      }
    });
    return;
  }
  const int64_t run = p.b ? p.inner : p.outer * p.channels * p.inner;
  const int64_t runs = p.b ? p.outer * p.channels : 1;
  const int64_t pieces = (run + kPiece - 1) / kPiece;
  parallel_for(runs * pieces, kGrain / std::min(run, kPiece) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t piece = i % pieces * kPiece, at = i / pieces * run + piece;
      const C bias = p.b ? b[i / pieces % p.channels] : C(0);
      bias_act_run<T>(block, x + at, dy ? dy + at : nullptr, nullptr, bias, y + at, std::min(kPiece, run - piece), p);
    }
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

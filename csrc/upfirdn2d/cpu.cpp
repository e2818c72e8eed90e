#include "common/cpu.h"

#include <numeric>

#include "upfirdn2d/math.h"
#include "upfirdn2d/params.h"
#define GANOPS_KERNEL_FILE "upfirdn2d/cpu.cpp"
#include "common/isa.h"

// Everything is a weighted sum of rows. An image is rows of pixels; a pixel is one element of a plane, or all channels
// of a channels_last image, so that the neighbour of a whole vector is that vector, one pixel on.
//
// Output pixels X, X + outs, X + 2 outs, ... with outs = up / gcd(up, down) meet the same taps, and their inputs are
// ins = down / gcd(up, down) pixels apart. So an input row is staged once, converted, with the zeros around it, as
// `ins` rows of every ins-th pixel each; a phase of outputs is a weighted sum of these rows, shifted; and the phases
// are interleaved. No inserted zero is ever touched. Filtered rows wait in a ring until output rows, weighted sums of
// the ring's rows, have used them. A filter that is not separable sums over a ring of staged rows directly.
namespace ganops::GANOPS_ISA {

constexpr int64_t kGrain = 1 << 14;       // output elements that are worth a thread
constexpr int64_t kStripBytes = 1 << 18;  // buffers of a strip: they stay in the second-level cache
constexpr int64_t kGroup = 1 << 8;        // narrow planes are filtered side by side up to this width
constexpr int64_t kUnroll = 4;            // vectors of a row summed at once, so that taps are loaded once for all
constexpr int64_t kMaxTaps = 12;          // taps of one pass over a row

template <class C>
struct RowSum {
  std::vector<const C*> rows;
  std::vector<C> taps;

  void clear() {
    rows.clear();
    taps.clear();
  }
  void add(const C* row, C tap) {
    rows.push_back(row);
    taps.push_back(tap);
  }
};

// y[i] (+)= sum over t of taps[t] * rows[t][i] for i < n. Rows may be read up to a vector beyond n, y is not written.
template <bool accumulate, int64_t count, class C>
void weighted_sum(C* y, const C* const* rows, const C* taps, int64_t n) {
  constexpr int64_t kLanesC = kLanes<C>;
  Vec<C> tap[count ? count : 1];
  for (int64_t t = 0; t < count; t++) tap[t] = broadcast(taps[t]);
  int64_t i = 0;
  for (; i + kUnroll * kLanesC <= n; i += kUnroll * kLanesC) {
    Vec<C> sum[kUnroll];
#pragma GCC unroll 16
    for (int64_t u = 0; u < kUnroll; u++) sum[u] = accumulate ? load(y + i + u * kLanesC) : Vec<C>{};
#pragma GCC unroll 16
    for (int64_t t = 0; t < count; t++)
#pragma GCC unroll 16
      for (int64_t u = 0; u < kUnroll; u++) sum[u] += tap[t] * load(rows[t] + i + u * kLanesC);
#pragma GCC unroll 16
    for (int64_t u = 0; u < kUnroll; u++) store(y + i + u * kLanesC, sum[u]);
  }
  for (; i < n; i += kLanesC) {
    Vec<C> sum = {};
#pragma GCC unroll 16
    for (int64_t t = 0; t < count; t++) sum += tap[t] * load(rows[t] + i);
    const int64_t left = std::min(kLanesC, n - i);
    if (left == kLanesC)
      store(y + i, accumulate ? sum + load(y + i) : sum);
    else
      for (int64_t lane = 0; lane < left; lane++) y[i + lane] = accumulate ? y[i + lane] + sum[lane] : sum[lane];
  }
}

template <class C>
using WeightedSum = void (*)(C*, const C* const*, const C*, int64_t);

template <bool accumulate, class C, int64_t... count>
WeightedSum<C> choose_sum(int64_t taps, std::integer_sequence<int64_t, count...>) {
  constexpr WeightedSum<C> kSums[] = {weighted_sum<accumulate, count, C>...};
  return kSums[taps];
}

template <class C>
void sum_rows(C* y, const RowSum<C>& sum, int64_t n) {
  constexpr auto kCounts = std::make_integer_sequence<int64_t, kMaxTaps + 1>{};
  const int64_t count = static_cast<int64_t>(sum.rows.size());
  choose_sum<false, C>(std::min(count, kMaxTaps), kCounts)(y, sum.rows.data(), sum.taps.data(), n);
  for (int64_t t = kMaxTaps; t < count; t += kMaxTaps)
    choose_sum<true, C>(std::min(count - t, kMaxTaps), kCounts)(y, sum.rows.data() + t, sum.taps.data() + t, n);
}

// y[i] = x[i * stride], pixel by pixel.
template <class C>
void gather_pixels(C* y, const C* x, int64_t stride, int64_t pixel, int64_t n) {
  if (stride == 1) {
    load_row(y, x, n * pixel);
  } else if (pixel == 1 && stride == 2) {
    for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];
  } else if (pixel == 1) {
    for (int64_t i = 0; i < n; i++) y[i] = x[stride * i];
  } else {
    for (int64_t i = 0; i < n; i++) load_row(y + i * pixel, x + i * stride * pixel, pixel);
  }
}

// The reverse for all phases at once: y[i * phases + phase] = x[phase][i]; n pixels in each phase.
template <class C>
void interleave_pixels(C* y, const C* x, int64_t phase_size, int64_t phases, int64_t pixel, int64_t n) {
  if (pixel == 1 && phases == 2) {
    const C* odd = x + phase_size;
    for (int64_t i = 0; i < n; i++) {
      y[2 * i] = x[i];
      y[2 * i + 1] = odd[i];
    }
    return;
  }
  for (int64_t phase = 0; phase < phases; phase++) {
    const C* from = x + phase * phase_size;
    if (pixel == 1) {
      for (int64_t i = 0; i < n; i++) y[i * phases + phase] = from[i];
    } else {
      for (int64_t i = 0; i < n; i++) load_row(y + (i * phases + phase) * pixel, from + i * pixel, pixel);
    }
  }
}

// What all threads share.
template <class C>
struct Plan {
  // Where one phase of outputs finds its inputs in a staged row.
  struct Source {
    std::vector<int64_t> offset;  // of each tap's row, in elements
    std::vector<int64_t> tap;
  };

  explicit Plan(const Upfirdn2dParams& params) : p(params), taps(make_taps<C>(params)) {
    const Upfirdn2dAxis& w = p.width;
    const int64_t common = std::gcd(w.up, w.down);
    planes = p.channels_last ? p.samples : p.samples * p.channels;
    pixel = p.channels_last ? p.channels : 1;
    outs = w.up / common;
    ins = w.down / common;
    separable = !taps.y.empty();

    const Phase last = phase_at(w, outs - 1);
    first_input = phase_at(w, 0).first_input;
    const int64_t reach = (last.first_input - first_input + (w.taps + w.up - 1) / w.up) / ins;  // beyond its own pixel
    const int64_t ring_rows_wanted = (p.height.taps + p.height.up - 1) / p.height.up;
    const int64_t steps_of_all = (w.out + outs - 1) / outs;
    const int64_t row_bytes = pixel * static_cast<int64_t>(sizeof(C)) * (separable ? outs : ins);
    const int64_t steps_in_cache = std::max<int64_t>(kStripBytes / (row_bytes * (ring_rows_wanted + 1)), 1);
    strips = (steps_of_all + steps_in_cache - 1) / steps_in_cache;
    steps = (steps_of_all + strips - 1) / strips;
    strips = (steps_of_all + steps - 1) / steps;
    staged = steps + reach;
    group = strips > 1 ? 1 : std::clamp<int64_t>(kGroup / (staged * pixel), 1, planes);
    ring_rows = ring_rows_wanted;
    row_size = group * staged * pixel;
    used = row_size - reach * pixel;

    sources.resize(std::min(outs, w.out));
    for (int64_t out = 0; out < static_cast<int64_t>(sources.size()); out++) {
      const Phase phase = phase_at(w, out);
      for (int64_t i = 0; i < phase.count; i++) {
        const int64_t input = phase.first_input - first_input + i;
        sources[out].offset.push_back(input % ins * row_size + input / ins * pixel);
        sources[out].tap.push_back(phase.first_tap + i * w.up);
      }
    }
  }

  Upfirdn2dParams p;
  Taps<C> taps;
  bool separable;
  int64_t planes, pixel;      // images of `pixel` elements a pixel
  int64_t outs, ins;          // output and input pixels of a step: after one, taps repeat
  int64_t steps, strips;      // an output row is `strips` strips of `steps` steps
  int64_t first_input;        // input pixel that the leftmost tap of an output row meets
  int64_t staged;             // pixels of a staged row: the steps and what the taps reach beyond
  int64_t group;              // planes side by side
  int64_t row_size;           // elements of a staged row of the group, and of a phase of an output row
  int64_t used;               // elements of those that outputs are made from
  int64_t ring_rows;
  std::vector<Source> sources;  // [outs]
};

// Filters strips of planes, with the buffers of one thread.
template <class T>
class Worker {
  using C = compute_t<T>;

 public:
  explicit Worker(const Plan<C>& shared) : plan(shared), p(shared.p) {
    const int64_t slack = kUnroll * kLanes<C>;
    stage_size = plan.ins * plan.row_size + slack;
    phases_size = plan.outs * plan.row_size + slack;
    ring_row_size = plan.separable ? phases_size : stage_size;
    converted.resize(std::is_same_v<T, C> ? 0 : p.width.in * plan.pixel);
    stage.resize(stage_size);
    phases.resize(phases_size);
    row.resize(phases_size);
    ring.resize(plan.ring_rows * ring_row_size);
  }

  // Output rows [begin, end) of one strip of `count` planes.
  void run(const T* x, T* y, int64_t count, int64_t strip, int64_t begin, int64_t end) {
    const Upfirdn2dAxis &w = p.width, &h = p.height;
    const int64_t first_out = strip * plan.steps * plan.outs;
    const int64_t out_pixels = std::min(plan.steps * plan.outs, w.out - first_out);
    const bool direct = std::is_same_v<T, C> && count == 1 && (plan.separable || plan.outs == 1);
    int64_t next = 0;
    for (int64_t out = begin; out < end; out++) {
      const Phase phase = phase_at(h, out);
      const int64_t from = std::max<int64_t>(phase.first_input, 0);
      const int64_t to = std::min(phase.first_input + phase.count, h.in);
      for (next = std::max(next, from); next < to; next++) add_ring_row(x + next * w.in * plan.pixel, count, strip, next);

      T* y_row = y + (out * w.out + first_out) * plan.pixel;
      C* sum_row = row.data();
      if constexpr (std::is_same_v<T, C>)
        if (direct) sum_row = y_row;
      const int64_t first_tap = phase.first_tap - phase.first_input * h.up;
      if (plan.separable) {
        sum.clear();
        for (int64_t i = from; i < to; i++) sum.add(ring_row(i), plan.taps.y[first_tap + i * h.up]);
        sum_rows(sum_row, sum, direct ? out_pixels * plan.pixel : plan.outs * plan.row_size);
      } else {
        C* phase_row = plan.outs == 1 ? sum_row : phases.data();
        for (const auto& source : plan.sources) {
          sum.clear();
          for (int64_t i = from; i < to; i++) {
            const C* taps = plan.taps.x.data() + (first_tap + i * h.up) * w.taps;
            for (size_t t = 0; t < source.tap.size(); t++) sum.add(ring_row(i) + source.offset[t], taps[source.tap[t]]);
          }
          sum_rows(phase_row, sum, direct ? out_pixels * plan.pixel : plan.used);
          phase_row += plan.row_size;
        }
        if (plan.outs > 1) interleave(sum_row);
      }
      if (direct) continue;
      for (int64_t i = 0; i < count; i++)
        store_row(y_row + i * h.out * w.out * plan.pixel, sum_row + i * plan.outs * plan.staged * plan.pixel,
                  out_pixels * plan.pixel);
    }
  }

 private:
  C* ring_row(int64_t input_row) { return ring.data() + input_row % plan.ring_rows * ring_row_size; }

  void add_ring_row(const T* x, int64_t count, int64_t strip, int64_t input_row) {
    C* to = ring_row(input_row);
    C* staged = plan.separable ? stage.data() : to;
    for (int64_t i = 0; i < count; i++)
      stage_row(staged + i * plan.staged * plan.pixel, x + i * p.height.in * p.width.in * plan.pixel, strip);
    if (!plan.separable) return;
    C* phase_row = plan.outs == 1 ? to : phases.data();
    for (const auto& source : plan.sources) {
      sum.clear();
      for (size_t t = 0; t < source.tap.size(); t++) sum.add(staged + source.offset[t], plan.taps.x[source.tap[t]]);
      sum_rows(phase_row, sum, plan.used);
      phase_row += plan.row_size;
    }
    if (plan.outs > 1) interleave(to);
  }

  // The part of an input row that a strip needs, as `ins` rows of every ins-th pixel, zeros outside the image.
  void stage_row(C* to, const T* x, int64_t strip) {
    const int64_t first = plan.first_input + strip * plan.steps * plan.ins;
    const int64_t begin = std::clamp<int64_t>(first, 0, p.width.in);
    const int64_t end = std::clamp<int64_t>(first + plan.staged * plan.ins, begin, p.width.in);
    const C* pixels;  // of the input row
    if constexpr (std::is_same_v<T, C>) {
      pixels = x;
    } else {
      load_row(converted.data() + begin * plan.pixel, x + begin * plan.pixel, (end - begin) * plan.pixel);
      pixels = converted.data();
    }
    for (int64_t in = 0; in < plan.ins; in++, to += plan.row_size) {
      const int64_t before = std::min(plan.staged, (begin - std::min(begin, first + in) + plan.ins - 1) / plan.ins);
      const int64_t start = first + in + before * plan.ins;
      const int64_t inside = std::min(plan.staged - before, (end - std::min(end, start) + plan.ins - 1) / plan.ins);
      std::fill_n(to, before * plan.pixel, C(0));
      gather_pixels(to + before * plan.pixel, pixels + start * plan.pixel, plan.ins, plan.pixel, inside);
      std::fill(to + (before + inside) * plan.pixel, to + plan.staged * plan.pixel, C(0));
    }
  }

  void interleave(C* to) {
    interleave_pixels(to, phases.data(), plan.row_size, plan.outs, plan.pixel, plan.row_size / plan.pixel);
  }

  const Plan<C>& plan;
  const Upfirdn2dParams& p;
  int64_t stage_size, phases_size, ring_row_size;
  std::vector<C> converted, stage, phases, row, ring;
  RowSum<C> sum;
};

template <class T>
void upfirdn2d_tensor(const Upfirdn2dParams& p) {
  using C = compute_t<T>;
  const Plan<C> plan(p);
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  const int64_t x_plane = p.height.in * p.width.in * plan.pixel, y_plane = p.height.out * p.width.out * plan.pixel;
  const int64_t groups = (plan.planes + plan.group - 1) / plan.group;
  const int64_t row_elements = plan.group * plan.steps * plan.outs * plan.pixel;
  // An item is an output row of a strip of a group of planes.
  parallel_for(groups * plan.strips * p.height.out, kGrain / row_elements + 1, [&](int64_t begin, int64_t end) {
    Worker<T> worker(plan);
    while (begin < end) {
      const int64_t out = begin % p.height.out, strip = begin / p.height.out % plan.strips;
      const int64_t plane = begin / p.height.out / plan.strips * plan.group;
      const int64_t rows = std::min(p.height.out - out, end - begin);
      worker.run(x + plane * x_plane, y + plane * y_plane, std::min(plan.group, plan.planes - plane), strip, out,
                 out + rows);
      begin += rows;
    }
  });
}

void upfirdn2d(const Upfirdn2dParams& p) {
  dispatch(p.dtype, [&](auto tag) { upfirdn2d_tensor<typename decltype(tag)::type>(p); });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_upfirdn2d_cpu(const Upfirdn2dParams& p, void*) {
  GANOPS_BEST_ISA(upfirdn2d)(p);
}
}  // namespace ganops
#endif

#include "common/cpu.h"

#include <numeric>
#include <utility>

#include "upfirdn2d/math.h"
#include "upfirdn2d/params.h"
#define GANOPS_KERNEL_FILE "upfirdn2d/cpu.cpp"
#include "common/isa.h"

namespace ganops::GANOPS_ISA {
constexpr int64_t kGrain = 1 << 14;  // output elements that are worth a thread
}
// Once per instruction set, too.
#include "upfirdn2d/blur.h"

// Everything is a weighted sum of rows. An image is rows of pixels; a pixel is one element of a plane, or all channels
// of a channels_last image, so that the neighbour of a whole vector is that vector, one pixel on.
//
// Output pixels X, X + outs, X + 2 outs, ... with outs = up / gcd(up, down) meet the same taps, and their inputs are
// ins = down / gcd(up, down) pixels apart. So an input row is staged once, converted, with the zeros around it, as
// `ins` rows of every ins-th pixel each; a phase of outputs is a weighted sum of these rows, shifted; and the phases
// are interleaved. No inserted zero is ever touched. Filtered rows wait in a ring until output rows, weighted sums of
// the ring's rows, have used them. A filter that is not separable sums over a ring of staged rows directly.
namespace ganops::GANOPS_ISA {

constexpr int64_t kStripBytes = 1 << 18;  // buffers of a strip: they stay in the second-level cache
constexpr int64_t kGroup = 1 << 8;        // narrow planes are filtered side by side up to this width
constexpr int64_t kUnroll = 4;            // vectors of a row summed at once, so that taps are loaded once for all
constexpr int64_t kMaxTaps = 12;          // taps of one pass over a row
constexpr int64_t kRowsAhead = 2;         // input rows that are asked for before they are needed

// y[i] (+)= sum over t of taps[t] * rows[offsets[t] + i] for i < n. Reads up to a vector beyond n, writes n elements.
template <bool accumulate, int64_t count, class C>
void weighted_sum(C* y, const C* rows, const int64_t* offsets, const C* taps, int64_t n) {
  constexpr int64_t kStep = kLanes<C>;
  Vec<C> tap[count + 1];
  const C* row[count + 1];
  for (int64_t t = 0; t < count; t++) {
    tap[t] = broadcast(taps[t]);
    row[t] = rows + offsets[t];
  }
  int64_t i = 0;
  for (; i + kUnroll * kStep <= n; i += kUnroll * kStep) {
    Vec<C> sum[kUnroll];
#pragma GCC unroll 16
    for (int64_t u = 0; u < kUnroll; u++) sum[u] = accumulate ? load(y + i + u * kStep) : Vec<C>{};
#pragma GCC unroll 16
    for (int64_t t = 0; t < count; t++)
#pragma GCC unroll 16
      for (int64_t u = 0; u < kUnroll; u++) sum[u] += tap[t] * load(row[t] + i + u * kStep);
#pragma GCC unroll 16
    for (int64_t u = 0; u < kUnroll; u++) store(y + i + u * kStep, sum[u]);
  }
  for (; i < n; i += kStep) {
    const int64_t bytes = std::min(kStep, n - i) * sizeof(C);
    Vec<C> sum = {};
    if (accumulate) std::memcpy(&sum, y + i, bytes);
#pragma GCC unroll 16
    for (int64_t t = 0; t < count; t++) sum += tap[t] * load(row[t] + i);
    if (bytes == sizeof(sum))
      store(y + i, sum);
    else
      std::memcpy(y + i, &sum, bytes);
  }
}

template <bool accumulate, class C, int64_t... count>
auto choose_sum(int64_t taps, std::integer_sequence<int64_t, count...>) {
  constexpr decltype(&weighted_sum<accumulate, 0, C>) kSums[] = {weighted_sum<accumulate, count, C>...};
  return kSums[taps];
}

// The same for any number of taps.
template <class C>
void sum_rows(bool accumulate, C* y, const C* rows, const int64_t* offsets, const C* taps, int64_t count, int64_t n) {
  constexpr auto kCounts = std::make_integer_sequence<int64_t, kMaxTaps + 1>{};
  int64_t done = std::min(count, kMaxTaps);
  (accumulate ? choose_sum<true, C>(done, kCounts) : choose_sum<false, C>(done, kCounts))(y, rows, offsets, taps, n);
  for (; done < count; done += kMaxTaps)
    choose_sum<true, C>(std::min(count - done, kMaxTaps), kCounts)(y, rows, offsets + done, taps + done, n);
}

// y[i * y_stride] = x[i * x_stride] for n pixels. A size known to the compiler is copied in registers.
template <int64_t known_size, class C>
void copy_pixels(C* __restrict y, int64_t y_stride, const C* __restrict x, int64_t x_stride, int64_t pixel, int64_t n) {
  const int64_t size = known_size ? known_size : pixel;
  for (int64_t i = 0; i < n; i++) std::memcpy(y + i * y_stride * size, x + i * x_stride * size, size * sizeof(C));
}

template <class C>
void copy_pixels(C* __restrict y, int64_t y_stride, const C* __restrict x, int64_t x_stride, int64_t pixel, int64_t n) {
  constexpr int64_t kGrey = 1, kColour = 3;
  const auto copy = pixel == kGrey     ? copy_pixels<kGrey, C>
                    : pixel == kColour ? copy_pixels<kColour, C>
                                       : copy_pixels<0, C>;
  copy(y, y_stride, x, x_stride, pixel, n);
}

// y[i] = x[i * stride] for n pixels.
template <class C>
void gather_pixels(C* __restrict y, const C* __restrict x, int64_t stride, int64_t pixel, int64_t n) {
  if (stride == 1) {
    load_row(y, x, n * pixel);
  } else if (pixel == 1 && stride == 2) {
    for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];
  } else {
    copy_pixels(y, 1, x, stride, pixel, n);
  }
}

// y[i * phases + phase] = x[phase][i] for n pixels of each phase; x's rows are phase_size elements apart.
template <class C>
void interleave_pixels(C* __restrict y, const C* __restrict x, int64_t phase_size, int64_t phases, int64_t pixel,
                       int64_t n) {
  if (pixel == 1 && phases == 2) {
    const C* odd = x + phase_size;
    for (int64_t i = 0; i < n; i++) {
      y[2 * i] = x[i];
      y[2 * i + 1] = odd[i];
    }
  } else {
    for (int64_t phase = 0; phase < phases; phase++)
      copy_pixels(y + phase * pixel, phases, x + phase * phase_size, 1, pixel, n);
  }
}

// Zeros that start a cache line.
template <class C>
class Buffer {
 public:
  explicit Buffer(int64_t size) : lines(size / kLine<C> + 1) {}
  C* data() { return lines[0].elements; }
  void clear() { std::fill(lines.begin(), lines.end(), Line{}); }

 private:
  struct alignas(kLineBytes) Line {
    C elements[kLine<C>];
  };
  std::vector<Line> lines;
};

// A row's size as buffers hold it: the last sum is of a whole vector, and the next row starts a line.
template <class C>
int64_t padded(int64_t size) {
  return (size + kLine<C> - 1) / kLine<C> * kLine<C>;
}

// What all threads share.
template <class C>
struct Plan {
  // One phase of outputs: the pixels of a staged row that meet its taps.
  struct OutPhase {
    std::vector<int64_t> offsets;  // in elements
    std::vector<C> taps;           // for each filter row, as many as offsets
  };

  Plan(const Upfirdn2dParams& params, Taps<C> filter) : p(params), taps(std::move(filter)) {
    const Upfirdn2dAxis& w = p.width;
    const int64_t common = std::gcd(w.up, w.down);
    planes = p.channels_last ? p.samples : p.samples * p.channels;
    pixel = p.channels_last ? p.channels : 1;
    outs = w.up / common;
    ins = w.down / common;
    separable = !taps.y.empty();
    ring_rows = (p.height.taps + p.height.up - 1) / p.height.up;
    first_input = phase_at(w, 0).first_input;
    const int64_t last_input = phase_at(w, outs - 1).first_input + (w.taps + w.up - 1) / w.up;
    const int64_t reach = (last_input - first_input) / ins;

    const int64_t all_steps = (w.out + outs - 1) / outs;
    const int64_t step_bytes = (ring_rows + 1) * (separable ? outs : ins) * pixel * static_cast<int64_t>(sizeof(C));
    steps = std::max<int64_t>(kStripBytes / step_bytes, 1);
    strips = (all_steps + steps - 1) / steps;
    steps = (all_steps + strips - 1) / strips;
    staged = steps + reach;
    group = strips > 1 ? 1 : std::clamp<int64_t>(kGroup / (staged * pixel), 1, planes);
    row_size = padded<C>(group * staged * pixel);
    used = (group * staged - reach) * pixel;

    out_phases.resize(outs);
    const int64_t filter_rows = static_cast<int64_t>(taps.x.size()) / w.taps;
    for (int64_t out = 0; out < outs; out++) {
      const Phase phase = phase_at(w, out);
      for (int64_t i = 0; i < phase.count; i++) {
        const int64_t input = phase.first_input - first_input + i;
        out_phases[out].offsets.push_back(input % ins * row_size + input / ins * pixel);
      }
      for (int64_t row = 0; row < filter_rows; row++)
        for (int64_t i = 0; i < phase.count; i++)
          out_phases[out].taps.push_back(taps.x[row * w.taps + phase.first_tap + i * w.up]);
    }
  }

  Upfirdn2dParams p;
  Taps<C> taps;
  bool separable;
  int64_t planes, pixel;  // images of `pixel` elements a pixel
  int64_t outs, ins;      // output and input pixels of a step, after which taps repeat
  int64_t ring_rows;
  int64_t first_input;    // input pixel that the leftmost tap of an output row meets
  int64_t steps, strips;  // an output row is `strips` strips of `steps` steps
  int64_t staged;         // pixels of a staged row: the steps and what the taps reach beyond
  int64_t group;          // planes side by side
  int64_t row_size;       // elements of a staged row of the group, and of a phase of its output row
  int64_t used;           // elements of it that outputs need
  std::vector<OutPhase> out_phases;
};

// Filters strips of planes, with the buffers of one thread.
template <class T>
class Worker {
  using C = compute_t<T>;

 public:
  explicit Worker(const Plan<C>& shared)
      : plan(shared),
        p(shared.p),
        ring_row_size((shared.separable ? shared.outs : shared.ins) * shared.row_size),
        converted(std::is_same_v<T, C> ? 0 : shared.p.width.in * shared.pixel),
        stage(shared.ins * shared.row_size),
        phases(shared.outs * shared.row_size),
        sums(shared.outs * shared.row_size),
        ring(shared.ring_rows * ring_row_size),
        ring_offsets(shared.ring_rows),
        ring_taps(shared.ring_rows) {}

  // Output rows [begin, end) of one strip of `count` planes.
  void run(const T* x, T* y, int64_t count, int64_t strip, int64_t begin, int64_t end) {
    const Upfirdn2dAxis &w = p.width, &h = p.height;
    stage.clear();
    if (!plan.separable) ring.clear();
    const int64_t first_out = strip * plan.steps * plan.outs;
    const int64_t size = std::min(plan.steps * plan.outs, w.out - first_out) * plan.pixel;
    const int64_t x_row = w.in * plan.pixel, y_row = w.out * plan.pixel;
    const bool direct = std::is_same_v<T, C> && count == 1 && (plan.separable || plan.outs == 1);
    int64_t next = 0;
    for (int64_t out = begin; out < end; out++) {
      const Phase phase = phase_at(h, out);
      const int64_t from = std::max<int64_t>(phase.first_input, 0);
      const int64_t to = std::min(phase.first_input + phase.count, h.in);
      for (next = std::max(next, from); next < to; next++) add_ring_row(x + next * x_row, count, strip, next);

      T* y_out = y + out * y_row + first_out * plan.pixel;
      prefetch(y_out + y_row, size);
      C* sum = sums.data();
      if constexpr (std::is_same_v<T, C>)
        if (direct) sum = y_out;
      const int64_t first_tap = phase.first_tap + (from - phase.first_input) * h.up;
      sum_ring_rows(sum, from, to, first_tap, direct ? size : padded<C>(plan.outs * plan.used));
      for (int64_t i = 0; i < count && !direct; i++)
        store_row(y_out + i * h.out * y_row, sum + i * plan.outs * plan.staged * plan.pixel, size);
    }
  }

 private:
  // n elements of an output row from the ring's rows [from, to), the first of which meets filter row `tap`.
  void sum_ring_rows(C* sum, int64_t from, int64_t to, int64_t tap, int64_t n) {
    int64_t slot = from % plan.ring_rows;
    const auto next_slot = [&] { slot = slot + 1 == plan.ring_rows ? 0 : slot + 1; };
    if (plan.separable) {
      for (int64_t i = from; i < to; i++, tap += p.height.up, next_slot()) {
        ring_offsets[i - from] = slot * ring_row_size;
        ring_taps[i - from] = plan.taps.y[tap];
      }
      sum_rows(false, sum, ring.data(), ring_offsets.data(), ring_taps.data(), std::max<int64_t>(to - from, 0), n);
      return;
    }
    C* phase_sum = plan.outs == 1 ? sum : phases.data();
    if (plan.outs > 1) n = padded<C>(plan.used);
    for (const auto& out : plan.out_phases) {
      const int64_t taps = out.offsets.size();
      std::fill_n(phase_sum, n, C(0));
      slot = from % plan.ring_rows;
      int64_t row_tap = tap;
      for (int64_t i = from; i < to; i++, row_tap += p.height.up, next_slot())
        sum_rows(true, phase_sum, ring.data() + slot * ring_row_size, out.offsets.data(),
                 out.taps.data() + row_tap * taps, taps, n);
      phase_sum += plan.row_size;
    }
    interleave(sum);
  }

  void add_ring_row(const T* x, int64_t count, int64_t strip, int64_t input_row) {
    C* to = ring.data() + input_row % plan.ring_rows * ring_row_size;
    C* staged = plan.separable ? stage.data() : to;
    for (int64_t i = 0; i < count; i++)
      stage_row(staged + i * plan.staged * plan.pixel, x + i * p.height.in * p.width.in * plan.pixel, strip);
    if (!plan.separable) return;
    C* phase_sum = plan.outs == 1 ? to : phases.data();
    for (const auto& out : plan.out_phases) {
      sum_rows(false, phase_sum, staged, out.offsets.data(), out.taps.data(), out.offsets.size(), padded<C>(plan.used));
      phase_sum += plan.row_size;
    }
    interleave(to);
  }

  // The part of an input row that a strip needs, as `ins` rows of every ins-th pixel. What lies outside the image is
  // left alone: the buffer has zeros there.
  void stage_row(C* to, const T* x, int64_t strip) {
    const int64_t first = plan.first_input + strip * plan.steps * plan.ins;
    const int64_t begin = std::clamp<int64_t>(first, 0, p.width.in);
    const int64_t end = std::clamp<int64_t>(first + plan.staged * plan.ins, begin, p.width.in);
    prefetch(x + (kRowsAhead * p.width.in + begin) * plan.pixel, (end - begin) * plan.pixel);
    const C* pixels;  // of the input row
    if constexpr (std::is_same_v<T, C>) {
      pixels = x;
    } else {
      load_row(converted.data() + begin * plan.pixel, x + begin * plan.pixel, (end - begin) * plan.pixel);
      pixels = converted.data();
    }
    for (int64_t in = 0; in < plan.ins; in++, to += plan.row_size) {
      const int64_t before = (std::max(begin - first - in, int64_t{0}) + plan.ins - 1) / plan.ins;
      const int64_t start = first + in + before * plan.ins;
      const int64_t inside = (std::max(end - start, int64_t{0}) + plan.ins - 1) / plan.ins;
      gather_pixels(to + before * plan.pixel, pixels + start * plan.pixel, plan.ins, plan.pixel, inside);
    }
  }

  void interleave(C* to) {
    if (plan.outs > 1)
      interleave_pixels(to, phases.data(), plan.row_size, plan.outs, plan.pixel, plan.used / plan.pixel);
  }

  const Plan<C>& plan;
  const Upfirdn2dParams& p;
  int64_t ring_row_size;
  Buffer<C> converted, stage, phases, sums, ring;
  std::vector<int64_t> ring_offsets;
  std::vector<C> ring_taps;
};

template <class T>
void upfirdn2d_tensor(const Upfirdn2dParams& p) {
  using C = compute_t<T>;
  Taps<C> taps = make_taps<C>(p);
  if constexpr (std::is_same_v<T, float>)
    if (is_blur(p, taps)) return blur(p, taps);
  const Plan<C> plan(p, std::move(taps));
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

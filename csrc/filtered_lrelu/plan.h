// How the CPU kernels of filtered_lrelu cut their work into tiles, and which samples each sum takes.
//
// The upsampled image exists in tiles that stay in the cache. Along an axis, groups of `up` samples are sums over the
// same input samples, each sample with its own share ("phase") of the filter's taps: no zero is inserted. Along x,
// lcm(up, down) samples make a group, and a row is kept phase by phase, so that both filters read consecutive values.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "filtered_lrelu/params.h"

namespace ganops {

constexpr int64_t kBlockChannels = 16;       // that are read together where channels are adjacent in memory
constexpr int64_t kCacheBytes = 768 * 1024;  // of scratch memory that a thread should not exceed
constexpr int64_t kMaxCuts = 64;             // of an image along each axis
constexpr int64_t kTileOverhead = 2000;      // what starting a tile costs, in samples
constexpr int64_t kRowOverhead = 64;         // what starting a row costs: memory likes long ones
constexpr int64_t kGrain = 20000;            // samples that are worth a thread
constexpr int64_t kSlack = 256;              // elements that vectors may touch past the end of a buffer
constexpr int64_t kPageElements = 512;       // rows a multiple of this apart would share cache sets

inline int64_t round_up(int64_t a, int64_t unit) {
  return ceil_div(a, unit) * unit;
}
constexpr int64_t floor_mod(int64_t a, int64_t b) {
  return (a % b + b) % b;
}

struct Axis {
  int64_t up, down, up_taps, down_taps, before;  // before: the padding
  int64_t in, middle, out;                       // sizes of the input, the upsampled image, the output
  int64_t group;                                 // upsampled samples that are made together: a multiple of up

  int64_t phase_taps() const { return ceil_div(up_taps, up); }
  int64_t in_phases() const { return group / up; }
  int64_t out_phases() const { return group / down; }
};

// What a tile spans of an axis.
struct Span {
  int64_t out_begin, out_count;
  int64_t middle_begin, groups;    // of the upsampled image, whole groups
  int64_t lead;                    // samples of the first group before the first one that is needed
  int64_t in_begin, in_count;      // may exceed the image
  int64_t codes_begin, codes_end;  // the samples whose codes this tile writes
};

inline Span span_of(const Axis& a, int64_t out_begin, int64_t out_count) {
  Span s{};
  s.out_begin = out_begin;
  s.out_count = std::min(out_count, a.out - out_begin);
  const int64_t out_end = out_begin + s.out_count;
  s.codes_begin = out_begin * a.down;
  s.codes_end = out_end == a.out ? a.middle : out_end * a.down;
  s.lead = floor_mod(s.codes_begin - a.before - 1, a.up);
  s.middle_begin = s.codes_begin - s.lead;
  const int64_t end = std::max((out_end - 1) * a.down + a.down_taps, s.codes_end);
  s.groups = ceil_div(end - s.middle_begin, a.group);
  s.in_begin = (s.middle_begin + a.up - 1 - a.before) / a.up;
  s.in_count = s.groups * a.in_phases() + a.phase_taps() - 1;
  return s;
}

// The span of most groups when the output is cut into tiles of this size: the first one, or the last one, which also
// takes the samples that no output needs.
inline Span widest_span(const Axis& a, int64_t size) {
  const Span first = span_of(a, 0, size), last = span_of(a, (ceil_div(a.out, size) - 1) * size, size);
  return first.groups > last.groups ? first : last;
}

// Sums of products: for each phase, the offsets of values from a base, and their coefficients.
template <class C>
struct TapTable {
  std::vector<int64_t> begin = {0};  // of each phase in the lists below, and their end
  std::vector<int64_t> offset;
  std::vector<C> coef;
};

struct Tap {
  int64_t position, index;  // of the sample, of the coefficient
};
using Phases = std::vector<std::vector<Tap>>;

inline Phases up_phases(const Axis& a) {
  Phases phases(a.group);
  for (int64_t q = 0; q < a.group; q++)
    for (int64_t k = a.up - 1 - q % a.up, position = q / a.up; k < a.up_taps; k += a.up, position++)
      phases[q].push_back({position, k});
  return phases;
}

// The taps of `count` consecutive outputs, the first of which begins at position `lead`.
inline Phases down_phases(const Axis& a, int64_t lead, int64_t count) {
  Phases phases(count);
  for (int64_t s = 0; s < count; s++)
    for (int64_t k = 0; k < a.down_taps; k++) phases[s].push_back({lead + s * a.down + k, k});
  return phases;
}

// Rows of samples, kept phase by phase.
struct Rows {
  int64_t phases, phase_stride, stride;
  int64_t offset(int64_t row, int64_t position) const {
    return row * stride + position % phases * phase_stride + position / phases;
  }
};

// The coefficient of taps i of y and j of x is coef[i * coef_stride + j].
template <class C>
TapTable<C> tap_table(const std::vector<C>& coef, int64_t coef_stride, const Phases& y, const Phases& x,
                      const Rows& rows) {
  TapTable<C> table;
  for (const auto& y_taps : y)
    for (const auto& x_taps : x) {
      for (const Tap& i : y_taps)
        for (const Tap& j : x_taps) {
          table.offset.push_back(rows.offset(i.position, j.position));
          table.coef.push_back(coef[i.index * coef_stride + j.index]);
        }
      table.begin.push_back(table.offset.size());
    }
  return table;
}

// A filter's coefficients times scale, so ordered that they correlate.
template <class C>
std::vector<C> correlation(const FirFilter& f, bool flipped, double scale) {
  std::vector<C> coef(f.separable ? f.width : f.width * f.height, C(1));
  if (f.data) std::copy_n(static_cast<const C*>(f.data), coef.size(), coef.begin());
  if (!flipped) std::reverse(coef.begin(), coef.end());
  for (C& value : coef) value *= C(scale);
  return coef;
}

// Whether it reads the same backwards, along each axis.
template <class C>
bool is_symmetric(const FirFilter& f) {
  const C* coef = static_cast<const C*>(f.data);
  const int64_t width = f.width, height = f.separable ? 1 : f.height;
  for (int64_t i = 0; coef && i < height; i++)
    for (int64_t j = 0; j < width; j++) {
      const C value = coef[i * width + j];
      if (value != coef[i * width + width - 1 - j] || value != coef[(height - 1 - i) * width + j]) return false;
    }
  return true;
}

// Which kernels were chosen, as far as the buffers depend on it.
struct KernelTraits {
  int64_t lanes;       // of a vector
  bool fused;          // upsampling along y and what follows in one pass, with the gain folded into the filter
  bool writes_output;  // straight into y, not into a tile
};

template <class C>
struct Plan {
  Plan(const FilteredLreluParams& p, const KernelTraits& kernels, int64_t threads);

  FilteredLreluParams params;
  Axis x, y;
  KernelTraits kernels;
  int64_t block;                                      // channels of a tile
  bool reads_rows;                                    // of the input one at a time, as they are upsampled along x
  int64_t tile_width, tile_height, tiles_x, tiles_y;  // of the output
  TapTable<C> up_x, up_y, down_x, down_y;             // of separable filters
  TapTable<C> up_full, down_full;                     // of full ones, x phases fastest
  std::vector<C> down_coef;

  // Scratch memory: strides, and offsets of the buffers, in elements.
  Rows in_rows, rows;  // of the input, and of all that has the upsampled image's width
  int64_t in_stride;   // from one channel's input to the next one's
  int64_t out_phase_stride, out_stride;
  int64_t margin;  // rows before and after the lowered image that a fused pass may write
  int64_t input, widened, upsampled, lowered, line, output, codes, scratch;

  int64_t channel_blocks() const { return ceil_div(params.channels, block); }
  int64_t items() const { return params.batch * channel_blocks() * tiles_y * tiles_x; }

 private:
  void cut(int64_t width, int64_t height);
  double cost(int64_t threads) const;
};

template <class C>
Plan<C>::Plan(const FilteredLreluParams& p, const KernelTraits& traits, int64_t threads)
    : params(p),
      x{p.up, p.down, p.fu.width, p.fd.width, p.pad_x, p.width, p.up_width, p.out_width, std::lcm(p.up, p.down)},
      y{p.up, p.down, p.fu.height, p.fd.height, p.pad_y, p.height, p.up_height, p.out_height, p.up},
      kernels(traits),
      block(p.channels_last ? std::min(p.channels, kBlockChannels) : 1),
      reads_rows(p.fu.separable && !p.channels_last) {
  // Tiles begin at multiples of `unit`: there codes begin with a byte, and the phases are those of the first tile.
  const int64_t unit = std::lcm<int64_t>(kCodesPerByte, p.up);
  double least = 0;
  int64_t width = 0, height = 0;
  for (int64_t i = 1; i <= std::min(kMaxCuts, ceil_div(x.out, unit)); i++)
    for (int64_t j = 1; j <= std::min(kMaxCuts, ceil_div(y.out, unit)); j++) {
      cut(i == 1 ? x.out : round_up(ceil_div(x.out, i), unit), j == 1 ? y.out : round_up(ceil_div(y.out, j), unit));
      const double estimate = cost(threads);
      if (width && estimate >= least) continue;
      least = estimate;
      width = tile_width;
      height = tile_height;
    }
  cut(width, height);

  const Phases only = {{{0, 0}}};
  const double up_gain = kernels.fused ? p.gain * p.up * p.up : 1;
  if (p.fu.separable) {
    up_x = tap_table(correlation<C>(p.fu, p.flip_filter, 1), 0, only, up_phases(x), in_rows);
    up_y = tap_table(correlation<C>(p.fu, p.flip_filter, up_gain), 1, up_phases(y), only, rows);
  } else {
    up_full = tap_table(correlation<C>(p.fu, p.flip_filter, up_gain), p.fu.width, up_phases(y), up_phases(x), in_rows);
  }
  down_coef = correlation<C>(p.fd, p.flip_filter, 1);
  const Phases down_rows = down_phases(y, 0, 1);
  const Phases down_columns = down_phases(x, span_of(x, 0, tile_width).lead, x.out_phases());
  if (p.fd.separable) {
    down_y = tap_table(down_coef, 1, down_rows, only, rows);
    down_x = tap_table(down_coef, 0, only, down_columns, rows);
  } else {
    down_full = tap_table(down_coef, p.fd.width, down_rows, down_columns, rows);
  }
}

// Lays out the scratch memory for tiles of this size.
template <class C>
void Plan<C>::cut(int64_t width, int64_t height) {
  tile_width = width;
  tile_height = height;
  tiles_x = ceil_div(x.out, width);
  tiles_y = ceil_div(y.out, height);
  const Span sx = widest_span(x, width), sy = widest_span(y, height);
  in_rows = {x.in_phases(), ceil_div(sx.in_count, x.in_phases()), 0};
  in_rows.stride = in_rows.phases * in_rows.phase_stride;
  in_stride = (reads_rows ? 1 : sy.in_count) * in_rows.stride;
  rows = {x.group, round_up(sx.groups, kernels.lanes), 0};
  rows.stride = rows.phases * rows.phase_stride;
  if (rows.stride % kPageElements == 0) rows.stride += kernels.lanes;
  out_phase_stride = round_up(ceil_div(width, x.out_phases()), 2 * kernels.lanes);
  out_stride = kernels.writes_output ? 0 : width * height;
  margin = kernels.fused ? ceil_div(y.down_taps + y.up, y.down) : 0;

  const int64_t rows_up = sy.groups * y.up;
  const bool fused_down = kernels.fused && params.fd.separable;
  // Buffers follow each other, and each starts a vector.
  int64_t end = 0;
  const auto place = [&](int64_t size) {
    const int64_t begin = end;
    end = round_up(begin + size + kSlack, kernels.lanes);
    return begin;
  };
  input = place(block * in_stride);
  widened = place(params.fu.separable ? sy.in_count * rows.stride : 0);
  upsampled = place(fused_down ? 0 : rows_up * rows.stride);
  lowered = place((height + 2 * margin) * (params.fd.separable ? rows.stride : x.out_phases() * out_phase_stride));
  line = place(std::max({x.out_phases() * out_phase_stride, sx.in_count, block}));
  output = place(block * out_stride);
  codes = place(ceil_div(rows_up * rows.stride, sizeof(C)));
  scratch = end;
}

// Of all tiles, in samples of the upsampled image; the threads wait for the one that has most of them.
template <class C>
double Plan<C>::cost(int64_t threads) const {
  const Span sy = span_of(y, 0, tile_height);
  const double rows_up = sy.groups * y.up + sy.in_count;
  const double tile = (rows.stride + kRowOverhead) * rows_up * block + kTileOverhead;
  const double overflow = std::max(1.0, double(scratch * sizeof(C)) / kCacheBytes);
  return tile * overflow * ceil_div(items(), threads);
}

}  // namespace ganops

#include "common/cpu.h"

#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include "filtered_lrelu/params.h"
#include "filtered_lrelu/plan.h"
#define GANOPS_KERNEL_FILE "filtered_lrelu/cpu.cpp"
#include "common/isa.h"
#include "filtered_lrelu/phases.h"
#include "filtered_lrelu/passes.h"
#include "filtered_lrelu/fir.h"
#include "filtered_lrelu/fused.h"

namespace ganops::GANOPS_ISA {

// Row y of the input as far as a tile needs it, zeros around the image and the bias added inside, to the tile's input
// of each of `channels` channels. channel is the first one.
template <class T, class C>
void read_row(const Plan<C>& plan, const Tile<C>& t, int64_t sample, int64_t channel, int64_t channels, int64_t y,
              C* to) {
  const FilteredLreluParams& p = plan.params;
  const int64_t begin = std::clamp<int64_t>(-t.x.in_begin, 0, t.x.in_count);
  const int64_t end = std::clamp<int64_t>(p.width - t.x.in_begin, begin, t.x.in_count);
  const T *x = static_cast<const T*>(p.x), *b = static_cast<const T*>(p.b);
  C bias[kBlockChannels], pixel[kBlockChannels];
  std::fill_n(bias, channels, C(-0.0));  // which changes nothing, not even a zero's sign
  if (b) load_row(bias, b + channel, channels);

  if (y < 0 || y >= p.height || begin == end) {
    for (int64_t c = 0; c < channels; c++) std::fill_n(to + c * plan.in_stride, plan.in_rows.stride, C(0));
  } else if (p.channels_last) {
    const T* from = x + ((sample * p.height + y) * p.width + t.x.in_begin) * p.channels + channel;
    for (int64_t c = 0; c < channels; c++) std::fill_n(to + c * plan.in_stride, plan.in_rows.stride, C(0));
    for (int64_t i = begin; i < end; i++) {
      load_row(pixel, from + i * p.channels, channels);
      const int64_t at = plan.in_rows.offset(0, i);
      for (int64_t c = 0; c < channels; c++) to[c * plan.in_stride + at] = pixel[c] + bias[c];
    }
  } else {
    C* line = plan.in_rows.phases == 1 ? to : t.line;
    const T* from = x + ((sample * p.channels + channel) * p.height + y) * p.width + t.x.in_begin;
    prefetch(from + kRowsAhead * p.width + begin, end - begin);
    std::fill_n(line, begin, C(0));
    if constexpr (std::is_same_v<T, float>) {
      for (int64_t i = begin; i < end; i += kLanes<float>)
        store(line + i, load_first(from + i, end - i) + bias[0]);  // what it writes beyond is written again
    } else if constexpr (std::is_same_v<T, C>) {
      for (int64_t i = begin; i < end; i++) line[i] = from[i] + bias[0];
    } else {
      load_row(line + begin, from + begin, end - begin);
      for (int64_t i = begin; i < end; i++) line[i] += bias[0];
    }
    std::fill(line + end, line + t.x.in_count, C(0));
    if (line != to) split_phases(to, plan.in_rows.phase_stride, line, plan.in_rows.phases, t.x.in_count);
  }
}

template <class T, class C>
void write_output(const Plan<C>& plan, const Tile<C>& t, int64_t sample, int64_t channel, int64_t channels) {
  const FilteredLreluParams& p = plan.params;
  T* y = static_cast<T*>(p.y);
  C pixel[kBlockChannels];
  for (int64_t row = 0; row < t.y.out_count; row++) {
    const C* from = t.output + row * plan.tile_width;
    const int64_t out_y = t.y.out_begin + row;
    if (p.channels_last) {
      T* to = y + ((sample * p.out_height + out_y) * p.out_width + t.x.out_begin) * p.channels + channel;
      for (int64_t i = 0; i < t.x.out_count; i++) {
        for (int64_t c = 0; c < channels; c++) pixel[c] = from[c * plan.out_stride + i];
        store_row(to + i * p.channels, pixel, channels);
      }
    } else {
      T* to = y + ((sample * p.channels + channel) * p.out_height + out_y) * p.out_width + t.x.out_begin;
      store_row(to, from, t.x.out_count);
    }
  }
}

// Codes in memory, four to a byte, to and from one byte each, phase by phase, in t.codes.
template <class C>
void read_codes(const Plan<C>& plan, const Tile<C>& t, int64_t plane) {
  const FilteredLreluParams& p = plan.params;
  const int64_t row_bytes = ceil_div(p.codes_width, kCodesPerByte), left = t.x.middle_begin + p.codes_x;
  for (int64_t row = 0; row < t.y.groups * plan.y.up; row++) {
    const int64_t y = t.y.middle_begin + row + p.codes_y;
    const bool inside = y >= 0 && y < p.codes_height;
    unpack_codes(t.codes + row * plan.rows.stride, plan.rows.phase_stride, plan.rows.phases, t.x.groups,
                 p.read_codes + (inside ? plane * p.codes_height + y : 0) * row_bytes, left,
                 inside ? p.codes_width : 0);
  }
}

template <class C>
void write_codes(const Plan<C>& plan, const Tile<C>& t, int64_t plane) {
  const FilteredLreluParams& p = plan.params;
  const int64_t row_bytes = ceil_div(p.codes_width, kCodesPerByte);
  for (int64_t y = t.y.codes_begin; y < t.y.codes_end; y++)
    pack_codes(p.write_codes + (plane * p.codes_height + y) * row_bytes + t.x.codes_begin / kCodesPerByte,
               t.codes + (y - t.y.middle_begin) * plan.rows.stride, plan.rows.phase_stride, plan.rows.phases, t.x.lead,
               t.x.codes_end - t.x.codes_begin);
}

template <class T>
void filtered_lrelu_tensor(const FilteredLreluParams& p) {
  using C = compute_t<T>;
  const Passes<C> passes = choose_passes<C>(p);
  const bool writes_output = std::is_same_v<T, C> && !p.channels_last;
  const Plan<C> plan(p, {kLanes<C>, passes.fused, writes_output}, torch::stable::get_num_threads());
  std::atomic<bool> out_of_memory = false;
  const int64_t grain = kGrain / (plan.tile_width * plan.tile_height) + 1;
  parallel_for(plan.items(), grain, [&](int64_t begin, int64_t end) {
    const auto alignment = std::align_val_t(GANOPS_VECTOR_BYTES);
    const auto release = [&](C* memory) { ::operator delete(memory, alignment); };
    const std::unique_ptr<C, decltype(release)> scratch(
        static_cast<C*>(::operator new(plan.scratch * sizeof(C), alignment, std::nothrow)), release);
    if (!scratch) {
      out_of_memory = true;
      return;
    }
    std::fill_n(scratch.get(), plan.scratch, C(0));
    for (int64_t i = begin; i < end; i++) {
      const int64_t tile_x = i % plan.tiles_x, tile_y = i / plan.tiles_x % plan.tiles_y;
      const int64_t block = i / plan.tiles_x / plan.tiles_y, sample = block / plan.channel_blocks();
      const int64_t channel = block % plan.channel_blocks() * plan.block;
      const int64_t channels = std::min(plan.block, p.channels - channel);
      Tile<C> t(plan, scratch.get(), tile_x, tile_y);
      if (!plan.reads_rows)
        for (int64_t row = 0; row < t.y.in_count; row++)
          read_row<T>(plan, t, sample, channel, channels, t.y.in_begin + row, t.input + row * plan.in_rows.stride);
      if constexpr (std::is_same_v<T, C>) {
        if (writes_output) {
          t.output = static_cast<T*>(p.y) + t.x.out_begin +
                     ((sample * p.channels + channel) * p.out_height + t.y.out_begin) * p.out_width;
          t.output_stride = p.out_width;
        }
      }
      const Tile<C> first = t;
      for (int64_t c = 0; c < channels; c++) {
        const int64_t plane = sample * p.channels + channel + c;
        for (int64_t row = 0; p.fu.separable && row < t.y.in_count; row++) {
          C* in = t.input + (plan.reads_rows ? 0 : row * plan.in_rows.stride);
          if (plan.reads_rows) read_row<T>(plan, t, sample, channel, channels, t.y.in_begin + row, in);
          passes.widen(plan, t, in, row);
        }
        if (p.read_codes) read_codes(plan, t, plane);
        passes.columns(plan, t);
        if (p.write_codes) write_codes(plan, t, plane);
        passes.narrow(plan, t);
        t.input += plan.in_stride;
        t.output += plan.out_stride;
      }
      if (!writes_output) write_output<T>(plan, first, sample, channel, channels);
    }
  });
  STD_TORCH_CHECK(!out_of_memory, "no memory for filtered_lrelu's tiles");
}

void filtered_lrelu(const FilteredLreluParams& p) {
  dispatch(p.dtype, [&](auto tag) { filtered_lrelu_tensor<typename decltype(tag)::type>(p); });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_filtered_lrelu_cpu(const FilteredLreluParams& p, void*) {
  GANOPS_BEST_ISA(filtered_lrelu)(p);
}
}  // namespace ganops
#endif

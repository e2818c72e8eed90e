// How the marching CUDA kernel of filtered_lrelu cuts its work: instances, tiles, pitches, and a block's share.
#pragma once
#include "filtered_lrelu/direct.h"

namespace ganops {

// What an instance of the kernel is for. A full filter is square, with this many taps along each axis.
struct MarchSpec {
  int up, up_taps;
  bool up_full;
  int down, down_taps;
  bool down_full;
  int columns;  // of the upsampled image a block, one a thread
  int blocks;   // that a multiprocessor's registers have to suffice for
};

constexpr MarchSpec kMarchSpecs[] = {
    {2, 12, false, 2, 12, false, 128, 5},  // its own mirror in the backward pass
    {4, 24, false, 2, 12, false, 128, 4},  // mirrored by the next
    {2, 12, false, 4, 24, false, 256, 2},  //
    {2, 12, false, 2, 12, true, 128, 3},   // radial, mirrored by the last but one
    {4, 24, false, 2, 12, true, 128, 3},   // radial, mirrored by the last
    {2, 12, true, 2, 12, false, 128, 3},   //
    {2, 12, true, 4, 24, false, 192, 2},
};

constexpr int kMarchRowUnit = 8;  // an output row this often starts at a group
constexpr int kBanks = 32;
constexpr int kStoreLength = 4;  // the most elements that are stored at a time

constexpr int round_up_to(int unit, int n) {
  return (n + unit - 1) / unit * unit;
}

// The least pitch from `count` on that leaves this bank.
constexpr int pitch_to_bank(int bank, int count) {
  while (count % kBanks != bank % kBanks) count++;
  return count;
}

template <int index>
struct March {
  static constexpr MarchSpec kSpec = kMarchSpecs[index];
  static constexpr int kUp = kSpec.up, kUpTaps = kSpec.up_taps, kDown = kSpec.down, kDownTaps = kSpec.down_taps;
  static constexpr bool kUpFull = kSpec.up_full, kDownFull = kSpec.down_full;
  static constexpr int kColumns = kSpec.columns;

  static constexpr int kWindow = kUpTaps / kUp;    // inputs of a group
  static constexpr int kAges = kDownTaps / kDown;  // outputs that a sample reaches
  static constexpr int kUpRows = 16;               // a step; their codes fill a 32-bit register
  static constexpr int kInRows = kUpRows / kUp, kOutRows = kUpRows / kDown;

  // The upsampled image may have up to kDown - 1 samples more than its outputs reach; they have codes.
  static constexpr int kOutColumns = (kColumns - (kUp - 1) - (kDownTaps - 1)) / kDown / 8 * 8;
  static constexpr int kInStrip = kUpRows / (kUp * kUp);  // inputs a thread's turn at widening: a turn for each thread
  static constexpr int kOutStrip = 8 / kDown;             // outputs a thread's turn at narrowing
  static constexpr int kInColumns = kColumns / kUp + kWindow - 1;
  static constexpr int kInPitch = round_up_to(kInStrip, kInColumns);
  static constexpr int kUpPitch = pitch_to_bank(kBanks / kUp, kColumns / kUp), kUpRowPitch = kUp * kUpPitch;
  static constexpr int kDownPitch = pitch_to_bank(kBanks / kDown, kColumns / kDown);
  // A row goes on in the banks where the outputs of the row before end: a warp narrows parts of several rows.
  static constexpr int kDownRowPitch = pitch_to_bank(kOutColumns, kDown* kDownPitch);
  static constexpr int kLowRows = kDownFull ? kUpRows + 1 : kOutRows;
  static constexpr int kCodeBytes = kColumns / kCodesPerByte, kCodePitch = kCodeBytes + kCodesPerByte;
  static constexpr int kCodeWords = kCodeBytes / sizeof(uint32_t);

  // The march's first rows fill the windows. Samples are downsampled from row kStart + 1 on, or + 3 where two fit into
  // a group: see MarchGrid. So an output is finished at rows kFirst, kFirst + kDown, ... of each step.
  static constexpr int kStart = (kWindow - 1) * kUp;
  static constexpr int kFirst = (kStart + kDownTaps) % kDown;

  static_assert(kUpTaps % kUp == 0 && kDownTaps % kDown == 0 && kUpRows % kUp == 0 && kUpRows % kDown == 0);
  static_assert(kOutColumns * kDown % kCodesPerByte == 0 && kOutColumns * kDown % kUp == 0);
  static_assert(kOutColumns - kOutStrip + round_up_to(kOutStrip, kOutStrip + (kDownTaps - 1) / kDown) <=
                kColumns / kDown);
  static_assert(!kDownFull || kDown == 2, "two groups of threads share a full filter, one for each phase");

  static __device__ constexpr int down_phase(int row) { return ((row - kStart - 1) % kDown + kDown) % kDown; }
};

// What one launch's blocks agree on.
struct MarchGrid {
  int64_t strips, segments;            // of a plane, along x and along y
  int64_t elements;                    // of x
  int64_t code_bytes, code_row_bytes;  // of all codes, and of a row
  int segment_rows;                    // of the output
  int store_length;                    // elements that rows of y are aligned to: 4, 2 or 1
  // The samples between the start of a group and the first one that an output needs. Along x a thread takes the place
  // of its sample among those needed. Along y samples wait for a row where `lead_y` is even: so the rows at which
  // outputs are finished are known when compiled.
  int lead_x, lead_y;

  __device__ bool waits() const { return lead_y % 2 == 0; }
};

struct Span {
  int begin, end;
  __device__ bool contains(int i) const { return i >= begin && i < end; }
};

// The piece of work of a block. Rows and columns are those of the march, of the input, of samples or of outputs, from
// the first one on. Offsets are those of row 0, column 0, which may lie outside.
struct MarchBlock {
  int64_t channel;
  int64_t x, y;                     // elements
  int64_t read_codes, write_codes;  // bytes
  int read_shift;                   // codes in the byte read_codes before column 0
  Span in_rows, in_columns;         // in the image, and needed
  Span code_rows, code_columns;     // with codes to read, and needed
  int start, end;                   // rows with samples that are needed; `start` has the first one of the block
  int rows, columns;                // of outputs
  int delay;                        // rows of outputs that are finished before the first one of the block
  int write_rows, write_columns;    // of codes, from row `start` on, from the first column needed

  template <class M>
  __device__ void plan(const FilteredLreluParams& p, const MarchGrid& grid, M) {
    // Where channels are adjacent in memory, so are their blocks: they share sectors in the cache.
    int64_t rest = blockIdx.x, sample = 0;
    if (p.channels_last) {
      channel = rest % p.channels;
      rest /= p.channels;
    }
    const int64_t strip = rest % grid.strips, segment = rest / grid.strips % grid.segments;
    rest /= grid.strips * grid.segments;
    if (p.channels_last) {
      sample = rest;
    } else {
      channel = rest % p.channels;
      sample = rest / p.channels;
    }
    const int64_t plane = sample * p.channels + channel;
    const Planes in = plane_of(p, sample, channel, p.height * p.width);
    const Planes out = plane_of(p, sample, channel, p.out_height * p.out_width);

    const int64_t out_x = strip * M::kOutColumns, out_y = segment * grid.segment_rows;
    rows = clamp_to(p.out_height - out_y, grid.segment_rows);
    columns = clamp_to(p.out_width - out_x, M::kOutColumns);
    y = out.plane + (out_y * p.out_width + out_x) * out.step;

    const int64_t needed_x = out_x * M::kDown, needed_y = out_y * M::kDown;
    const bool last_strip = strip == grid.strips - 1, last_segment = segment == grid.segments - 1;
    write_columns = last_strip ? static_cast<int>(p.up_width - needed_x) : M::kOutColumns * M::kDown;
    write_rows = last_segment ? static_cast<int>(p.up_height - needed_y) : rows * M::kDown;
    write_codes = (plane * p.codes_height + needed_y) * grid.code_row_bytes + needed_x / kCodesPerByte;

    const int up_columns = grid.lead_x + samples(columns, p.write_codes ? write_columns : 0, M{});
    start = M::kStart + grid.lead_y;
    end = start + samples(rows, p.write_codes ? write_rows : 0, M{});
    delay = (start + grid.waits() + M::kDownTaps - 1) / M::kDown;

    const int64_t up_x = needed_x - grid.lead_x, up_y = needed_y - grid.lead_y;                        // start groups
    const int64_t in_x = (up_x - p.pad_x - 1) / M::kUp + 1, in_y = (up_y - p.pad_y - 1) / M::kUp + 1;  // exact
    x = in.plane + (in_y * p.width + in_x) * in.step;
    in_columns = inside(in_x, p.width, ceil_div_by<M::kUp>(up_columns) + M::kWindow - 1);
    in_rows = inside(in_y, p.height, ceil_div_by<M::kUp>(end));

    const int64_t code_x = up_x + p.codes_x, code_y = up_y + p.codes_y - M::kStart;
    read_shift = static_cast<int>(code_x & (kCodesPerByte - 1));
    read_codes = (plane * p.codes_height + code_y) * grid.code_row_bytes + (code_x - read_shift) / kCodesPerByte;
    code_columns = inside(code_x, p.codes_width, up_columns);
    code_rows = inside(code_y, p.codes_height, end);
    if (code_rows.begin < start) code_rows.begin = start;
  }

  // Steps until the last sample is used.
  template <class M>
  __device__ int steps(const MarchGrid& grid, M) const {
    return ceil_div_by<M::kUpRows>(end + grid.waits());
  }

 private:
  template <int n>
  static __device__ int ceil_div_by(int a) {
    return (a + n - 1) / n;
  }
  static __device__ int clamp_to(int64_t n, int most) { return n < 0 ? 0 : n < most ? static_cast<int>(n) : most; }

  // Those of `count` positions that lie in [0, size), if the first one is `first`.
  static __device__ Span inside(int64_t first, int64_t size, int count) {
    return {clamp_to(-first, count), clamp_to(size - first, count)};
  }

  // The samples that so many outputs need, or that have codes to be written.
  template <class M>
  static __device__ int samples(int outputs, int codes, M) {
    const int needed = (outputs - 1) * M::kDown + M::kDownTaps;
    return needed < codes ? codes : needed;
  }
};

}  // namespace ganops

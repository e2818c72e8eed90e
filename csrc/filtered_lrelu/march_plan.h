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
  int lead, columns;  // columns: of the upsampled image a block, one a thread
  int blocks;         // that a multiprocessor's registers have to suffice for
};

constexpr MarchSpec kMarchSpecs[] = {
    {2, 12, false, 2, 12, false, 0, 128, 5},  // its own mirror in the backward pass
    {4, 24, false, 2, 12, false, 1, 128, 4},  // mirrored by the next
    {2, 12, false, 4, 24, false, 1, 256, 2},  //
    {2, 12, false, 2, 12, true, 0, 128, 3},   // radial, mirrored by the last but one
    {4, 24, false, 2, 12, true, 1, 128, 3},   // radial, mirrored by the last
    {2, 12, true, 2, 12, false, 0, 128, 3},   //
    {2, 12, true, 4, 24, false, 1, 192, 2},
};

constexpr int kMarchRowUnit = 8;  // an output row this often starts at a group
constexpr int kBanks = 32;

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
  static constexpr int kLead = kSpec.lead, kColumns = kSpec.columns;

  static constexpr int kWindow = kUpTaps / kUp;    // inputs of a group
  static constexpr int kAges = kDownTaps / kDown;  // outputs that a sample reaches
  static constexpr int kUpRows = 16;               // a step; their codes fill a 32-bit register
  static constexpr int kInRows = kUpRows / kUp, kOutRows = kUpRows / kDown;

  // The strip's last outputs may own codes beyond their own samples, up to the edge of a byte.
  static constexpr int kOutColumns = (kColumns - kLead - (kDownTaps - 1) - (kCodesPerByte - 1)) / kDown / 8 * 8;
  static constexpr int kInStrip = kUpRows / (kUp * kUp);  // inputs a thread's turn at widening: a turn for each thread
  static constexpr int kOutStrip = 8 / kDown;             // outputs a thread's turn at narrowing
  static constexpr int kInColumns = kColumns / kUp + kWindow - 1;
  static constexpr int kInPitch = round_up_to(kInStrip, kInColumns);
  static constexpr int kUpPitch = pitch_to_bank(kBanks / kUp, kColumns / kUp), kUpRowPitch = kUp * kUpPitch;
  static constexpr int kDownPitch = pitch_to_bank(kBanks / kDown, kColumns / kDown);
  // A row goes on in the banks where the outputs of the row before end: a warp narrows parts of several rows.
  static constexpr int kDownRowPitch = pitch_to_bank(kOutColumns, kDown* kDownPitch);
  static constexpr int kLowRows = kDownFull ? kUpRows : kOutRows;
  static constexpr int kCodeBytes = kColumns / kCodesPerByte, kCodePitch = kCodeBytes + kCodesPerByte;

  // Row r of the march is sample r - kStart of those that the first output's filter covers: the first rows fill the
  // windows. An output is finished at rows kFirst, kFirst + kDown, ... of each step, kDelay outputs late.
  static constexpr int kStart = (kWindow - 1) * kUp + kLead;
  static constexpr int kFirst = (kStart + kDownTaps - 1) % kDown, kDelay = (kStart + kDownTaps - 1) / kDown;

  static_assert(kUpTaps % kUp == 0 && kDownTaps % kDown == 0 && kUpRows % kUp == 0 && kUpRows % kDown == 0);
  static_assert(kOutColumns * kDown % kCodesPerByte == 0 && kOutColumns * kDown % kUp == 0);
  static_assert(kOutColumns - kOutStrip + round_up_to(kOutStrip, kOutStrip + (kDownTaps - 1 + kLead) / kDown) <=
                kColumns / kDown);
  static_assert(!kDownFull || kDown == 2, "two groups of threads share a full filter, one for each phase");

  static __device__ constexpr int down_phase(int row) { return ((row - kStart) % kDown + kDown) % kDown; }
};

// What one launch's blocks agree on.
struct MarchGrid {
  int64_t strips, segments;  // of a plane, along x and along y
  int segment_rows;          // of the output
  int store_length;          // elements to which rows of y are aligned: a thread's outputs, 2 or 1
};

// The piece of work of a block.
struct MarchBlock {
  int64_t plane, channel;  // plane: counted over samples and channels
  Planes in, out;
  int64_t out_x, out_y;          // first output
  int64_t in_x, in_y;            // first input
  int64_t up_x, up_y;            // first sample of the upsampled image: of column 0, and of the first output's row
  int rows;                      // of the output
  int in_begin, in_end;          // columns of the strip that lie in the image
  int code_rows;                 // rows of codes that this block writes, from row out_y * down on
  int64_t code_begin, code_end;  // bytes of a row of codes that it writes

  template <class M>
  __device__ static MarchBlock of(const FilteredLreluParams& p, const MarchGrid& grid, M) {
    MarchBlock b;
    // Where channels are adjacent in memory, so are their blocks: they share sectors in the cache.
    int64_t rest = blockIdx.x, sample = 0;
    if (p.channels_last) {
      b.channel = rest % p.channels;
      rest /= p.channels;
    }
    const int64_t strip = rest % grid.strips, segment = rest / grid.strips % grid.segments;
    rest /= grid.strips * grid.segments;
    if (p.channels_last) {
      sample = rest;
    } else {
      b.channel = rest % p.channels;
      sample = rest / p.channels;
    }
    b.plane = sample * p.channels + b.channel;
    b.in = plane_of(p, sample, b.channel, p.height * p.width);
    b.out = plane_of(p, sample, b.channel, p.out_height * p.out_width);

    b.out_x = strip * M::kOutColumns;
    b.out_y = segment * grid.segment_rows;
    const int64_t rows_left = p.out_height - b.out_y;
    b.rows = rows_left < grid.segment_rows ? static_cast<int>(rows_left) : grid.segment_rows;
    b.up_x = b.out_x * M::kDown - M::kLead;
    b.up_y = b.out_y * M::kDown - M::kLead;
    b.in_x = (b.up_x - p.pad_x - 1) / M::kUp + 1;  // exact
    b.in_y = (b.up_y - p.pad_y - 1) / M::kUp + 1;
    b.in_begin = clamp_to(-b.in_x, M::kInColumns);
    b.in_end = clamp_to(p.width - b.in_x, M::kInColumns);

    const bool last_strip = strip == grid.strips - 1, last_segment = segment == grid.segments - 1;
    b.code_rows = static_cast<int>(last_segment ? p.up_height - b.out_y * M::kDown : int64_t{b.rows} * M::kDown);
    b.code_begin = b.out_x * M::kDown / kCodesPerByte;
    b.code_end = last_strip ? (p.up_width + kCodesPerByte - 1) / kCodesPerByte
                            : b.code_begin + M::kOutColumns * M::kDown / kCodesPerByte;
    return b;
  }

  static __device__ int clamp_to(int64_t n, int most) { return n < 0 ? 0 : n < most ? static_cast<int>(n) : most; }

  // Steps until the last output is finished, and the last code written.
  template <class M>
  __device__ int steps(const FilteredLreluParams& p, M) const {
    int samples = (rows - 1) * M::kDown + M::kDownTaps;
    if (p.write_codes && samples < code_rows) samples = code_rows;
    return (M::kStart + samples + M::kUpRows - 1) / M::kUpRows;
  }
};

}  // namespace ganops

// The CUDA kernel of filtered_lrelu for the filters of StyleGAN3's networks.
//
// A block makes a strip of the output and marches down it; a thread owns one column of the upsampled image. Of the rows
// that it passes, a thread keeps in registers only what is not finished: neither the upsampled nor the activated image
// exists as a whole, and the halo of a strip is at its sides alone. A step of the march takes kUpRows rows:
//
//   fetch    input rows, by 16-byte copies in flight while the step before is computed -> raw
//   convert  to float, add the bias inside the image, times the gain                    -> input
//   widen    upsampling along x, if separable                                           -> widened
//   column   upsampling along y (or both), leaky ReLU, codes, downsampling along y      -> lowered
//   narrow   downsampling along x; or both by a full filter                             -> outputs
//   store    whole pieces of rows, a warp each, while the next step is computed         -> y
//
// Positions: i in the input, m in the upsampled image, o in the output. Samples m = m0 + q, 0 <= q < up, with m0 - pad
// - 1 a multiple of up, are a group: sums over the same inputs, with taps up - 1 - q + t up, from i = (m0 - pad - 1) /
// up + 1 on. So no zero is multiplied. A strip's columns and rows start at a group, which depends on the padding: see
// MarchGrid. A row in shared memory is kept phase by phase (m % up, or m % down): both filters then read consecutive
// values, 16 bytes at a time; the phases' pitch puts consecutive columns into distinct banks.
#pragma once
#include "filtered_lrelu/march_fetch.h"
#include "filtered_lrelu/march_tensor.h"

namespace ganops {

// A thread's registers on its way down a column.
template <class M, class C>
struct MarchColumn {
  static constexpr int kWindow = M::kWindow, kUp = M::kUp;
  // Separable: taps along either axis. Full: those for the column's phase, [tap along y][phase along y][tap along x].
  C up_taps[M::kUpFull ? kWindow * kUp * kWindow : M::kUpTaps];
  C down_taps[M::kDownFull ? 1 : M::kDownTaps];
  C window[M::kUpFull ? 1 : kWindow];        // the last rows
  C groups[M::kUpFull ? kWindow * kUp : 1];  // sums for the groups of samples that are to come
  C sums[M::kDownFull ? 1 : M::kAges];       // for the outputs that are to come, youngest first
  C last;                                    // the sample of the row before

  __device__ __forceinline__ explicit MarchColumn(const FilteredLreluParams& p) {
    const int phase = threadIdx.x % kUp;
    if constexpr (M::kUpFull) {
      GANOPS_UNROLL
      for (int t = 0; t < kWindow; t++) {
        GANOPS_UNROLL
        for (int q = 0; q < kUp; q++) {
          GANOPS_UNROLL
          for (int s = 0; s < kWindow; s++)
            up_taps[(t * kUp + q) * kWindow + s] =
                full_tap<M::kUpTaps, C>(p.fu, p.flip_filter, kUp - 1 - q + t * kUp, kUp - 1 - phase + s * kUp);
        }
      }
    } else {
      const C* taps = static_cast<const C*>(p.fu.data);
      GANOPS_UNROLL
      for (int k = 0; k < M::kUpTaps; k++) up_taps[k] = taps[p.flip_filter ? k : M::kUpTaps - 1 - k];
    }
    if constexpr (!M::kDownFull) {
      const C* taps = static_cast<const C*>(p.fd.data);
      GANOPS_UNROLL
      for (int k = 0; k < M::kDownTaps; k++) down_taps[k] = taps[p.flip_filter ? k : M::kDownTaps - 1 - k];
    }
    GANOPS_UNROLL
    for (C& value : window) value = C(0);
    GANOPS_UNROLL
    for (C& value : groups) value = C(0);
    GANOPS_UNROLL
    for (C& value : sums) value = C(0);
    last = C(0);
  }

  // Takes one row in and makes a group of samples. Sums start at zero, so that only negative products make one of -0.
  __device__ __forceinline__ void upsample(const C* row, C (&u)[M::kUp]) {
    if constexpr (M::kUpFull) {
      C inputs[kWindow];
      GANOPS_UNROLL
      for (int s = 0; s < kWindow; s++) inputs[s] = row[threadIdx.x / kUp + s];
      GANOPS_UNROLL
      for (int age = 0; age < kWindow; age++) {
        GANOPS_UNROLL
        for (int q = 0; q < kUp; q++) {
          GANOPS_UNROLL
          for (int s = 0; s < kWindow; s++)
            groups[age * kUp + q] += inputs[s] * up_taps[((kWindow - 1 - age) * kUp + q) * kWindow + s];
        }
      }
      GANOPS_UNROLL
      for (int q = 0; q < kUp; q++) u[q] = groups[q];
      GANOPS_UNROLL
      for (int i = 0; i < kWindow * kUp; i++) groups[i] = i + kUp < kWindow * kUp ? groups[i + kUp] : C(0);
    } else {
      GANOPS_UNROLL
      for (int t = 0; t + 1 < kWindow; t++) window[t] = window[t + 1];
      window[kWindow - 1] = row[threadIdx.x % kUp * M::kUpPitch + threadIdx.x / kUp];
      GANOPS_UNROLL
      for (int q = 0; q < kUp; q++) {
        u[q] = C(0);
        GANOPS_UNROLL
        for (int t = 0; t < kWindow; t++) u[q] += window[t] * up_taps[kUp - 1 - q + t * kUp];
      }
    }
  }

  // Adds a sample, or the one before, to the outputs that it reaches; true if that finishes one.
  __device__ __forceinline__ bool downsample(C v, bool waits, int phase, C& finished) {
    const C sample = waits ? last : v;
    last = v;
    GANOPS_UNROLL
    for (int age = 0; age < M::kAges; age++) sums[age] += sample * down_taps[phase + M::kDown * age];
    if (phase != M::kDown - 1) return false;
    finished = sums[M::kAges - 1];
    GANOPS_UNROLL
    for (int age = M::kAges - 1; age > 0; age--) sums[age] = sums[age - 1];
    sums[0] = C(0);
    return true;
  }
};

// Lane k of four has 16 codes of its column, row after row; afterwards, in byte t, row 4 t + k of all four columns. Its
// own inverse.
__device__ __forceinline__ uint32_t transpose_codes(uint32_t codes) {
  constexpr uint32_t kEvenCodes = 0x33333333u, kEvenPairs = 0x0f0f0f0fu;
  const uint32_t next = __shfl_xor_sync(kAllLanes, codes, 1);
  codes = threadIdx.x & 1 ? (codes & ~kEvenCodes) | (next >> 2 & kEvenCodes)
                          : (codes & kEvenCodes) | (next & kEvenCodes) << 2;
  const uint32_t other = __shfl_xor_sync(kAllLanes, codes, 2);
  return threadIdx.x & 2 ? (codes & ~kEvenPairs) | (other >> 4 & kEvenPairs)
                         : (codes & kEvenPairs) | (other & kEvenPairs) << 4;
}

// Writes outputs of a row, `length` at a time, to which rows of y are aligned: a warp's lanes side by side.
template <int length, class T>
__device__ __forceinline__ void store_row(T* to, int64_t step, const T* from, int columns) {
  for (int at = threadIdx.x % kWarpSize * length; at < columns; at += kWarpSize * length)
    store_vector(to + at * step, load_vector<length>(from + at));
}

template <class T>
__device__ __forceinline__ void store_row(T* to, int64_t step, const T* from, int columns, int length) {
  if (length == 4) return store_row<4>(to, 1, from, columns);
  if (length == 2) return store_row<2>(to, 1, from, columns);
  store_row<1>(to, step, from, columns);
}

template <class T, int index, bool reads_codes>
__global__ void __launch_bounds__(March<index>::kColumns, March<index>::kSpec.blocks)
    filtered_lrelu_march_kernel(FilteredLreluParams p, LeakyRelu<accumulate_t<T>> leaky_relu, accumulate_t<T> gain,
                                MarchGrid grid) {
  using C = accumulate_t<T>;
  using M = March<index>;
  using InVector = Vector<C, M::kInStrip>;
  using OutVector = Vector<C, M::kOutStrip>;
  using RawVector = Vector<T, kVectorLength<T>>;
  using StoreVector = Vector<T, kStoreLength>;
  using Rows = RawRows<T, M>;
  // A full filter downsamples on tensor cores where these take the type; else threads share it.
  constexpr bool kTensorCores = M::kDownFull && sizeof(T) == 2, kFullByThreads = M::kDownFull && !kTensorCores;
  using Product = FullDownsampling<T, M, kTensorCores>;
  constexpr int kRawPitch = Rows::kPieces * Rows::kLength;
  constexpr int kStripsX = M::kColumns / M::kUp / M::kInStrip;
  GANOPS_SHARED(MarchBlock, blocks, [1]);  // not in registers, which are few
  GANOPS_SHARED(RawVector, raw_pieces, [M::kInRows * Rows::kPieces]);
  GANOPS_SHARED(InVector, input_strips, [M::kInRows * M::kInPitch / M::kInStrip]);
  GANOPS_SHARED(InVector, widened_strips, [M::kUpFull ? 1 : M::kInRows * M::kUpRowPitch / M::kInStrip]);
  GANOPS_SHARED(OutVector, lowered_strips, [kTensorCores ? 1 : M::kLowRows * M::kDownRowPitch / M::kOutStrip]);
  GANOPS_SHARED(OutVector, partial_strips, [kFullByThreads ? 2 * M::kOutRows * M::kOutColumns / M::kOutStrip : 1]);
  GANOPS_SHARED(RawVector, sample_pieces, [Product::kVectors]);
  GANOPS_SHARED(StoreVector, output_pieces, [M::kOutRows * M::kOutColumns / kStoreLength]);
  GANOPS_SHARED(uint32_t, raw_codes, [reads_codes ? M::kUpRows * RawCodes<M>::kWords : 1]);
  GANOPS_SHARED(uint32_t, code_words, [M::kUpRows][M::kCodePitch / sizeof(uint32_t)]);
  T *raw = &raw_pieces[0][0], *samples = &sample_pieces[0][0];
  C *input = &input_strips[0][0], *widened = &widened_strips[0][0], *lowered = &lowered_strips[0][0];
  C* partial = &partial_strips[0][0];
  T* outputs = &output_pieces[0][0];
  auto& codes = reinterpret_cast<uint8_t (&)[M::kUpRows][M::kCodePitch]>(code_words);

  const int thread = threadIdx.x;
  if (thread == 0) blocks[0].plan(p, grid, M{});
  __syncthreads();
  const MarchBlock& b = blocks[0];
  const bool waits = grid.waits();
  const int64_t pixel = p.channels_last ? p.channels : 1;  // elements from a column to the next
  const C bias = p.b ? widen(static_cast<const T*>(p.b)[b.channel]) : C(0);
  MarchColumn<M, C> column(p);
  // Where the column's samples lie in a row, phase by phase. Those before the first one needed come last.
  const int place = (thread + M::kColumns - grid.lead_x) % M::kColumns;
  const int at = place % M::kDown * M::kDownPitch + place / M::kDown;

  const Product product(p.fd, p.flip_filter);
  if constexpr (kTensorCores) {
    for (int i = thread; i < Product::kVectors; i += M::kColumns) sample_pieces[i] = RawVector{};
  }
  // Of a full filter, each half of the threads has the taps for one phase of the columns.
  constexpr int kHalf = M::kColumns / 2, kTapsX = kFullByThreads ? M::kAges : 1,
                kTapsY = kFullByThreads ? M::kDownTaps : 1;
  const int half = thread / kHalf;
  C full_taps[kTapsY * kTapsX], full_sums[M::kAges];
  if constexpr (kFullByThreads) {
    GANOPS_UNROLL
    for (int y = 0; y < kTapsY; y++) {
      GANOPS_UNROLL
      for (int t = 0; t < kTapsX; t++)
        full_taps[y * kTapsX + t] = full_tap<M::kDownTaps, C>(p.fd, p.flip_filter, y, half + M::kDown * t);
    }
    GANOPS_UNROLL
    for (C& sum : full_sums) sum = C(0);
    lowered[M::kUpRows * M::kDownRowPitch + at] = C(0);
  }

  const auto fetch = [&](int step) {
    if (!p.channels_last) Rows::fetch(raw, p, grid, b, step);
    if constexpr (reads_codes) RawCodes<M>::fetch(raw_codes, p, grid, b, step);
    cp_async_commit();
  };

  const auto convert = [&](int step) {
    constexpr int kWarps = M::kColumns / kWarpSize;
    for (int r = thread / kWarpSize; r < M::kInRows; r += kWarps) {
      const int row = step * M::kInRows + r;
      const T* pixels = static_cast<const T*>(p.x) + b.x + row * p.width * pixel;
      const T* fetched = raw + r * kRawPitch + Rows::row_shift(p, b, row);
      const bool inside = b.in_rows.contains(row);
      for (int c = thread % kWarpSize; c < M::kInPitch; c += kWarpSize) {
        C value = C(0);
        if (inside && b.in_columns.contains(c)) {
          // Not a pointer to either: the compiler has to know that it reads shared memory.
          const C read = p.channels_last ? widen(pixels[c * pixel]) : widen(fetched[c]);
          value = (read + bias) * gain;
        }
        input[r * M::kInPitch + c] = value;
      }
    }
  };

  const auto read_codes = [&](int step) {
    for (int item = thread; item < M::kUpRows * M::kCodeWords; item += M::kColumns) {
      const int row = item / M::kCodeWords, word = item % M::kCodeWords;
      code_words[row][word] = RawCodes<M>::word(raw_codes, p, grid, b, step, row, word);
    }
  };

  const auto write_codes = [&](int step) {
    const int shift = grid.lead_x * kCodeBits;
    for (int item = thread; item < M::kUpRows * M::kCodeBytes; item += M::kColumns) {
      const int row = item / M::kCodeBytes, byte = item % M::kCodeBytes;
      const int y = step * M::kUpRows + row - b.start, there = b.write_columns - byte * kCodesPerByte;
      if (y < 0 || y >= b.write_rows || there <= 0) continue;
      unsigned value = (codes[row][byte] | static_cast<unsigned>(codes[row][byte + 1]) << 8) >> shift & 0xff;
      if (there < kCodesPerByte) value &= (1u << kCodeBits * there) - 1;
      p.write_codes[b.write_codes + y * grid.code_row_bytes + byte] = static_cast<uint8_t>(value);
    }
  };

  const auto widen_rows = [&] {
    constexpr int kVectors = (M::kInStrip + M::kWindow - 1 + M::kInStrip - 1) / M::kInStrip;
    const int row = thread / kStripsX, strip = thread % kStripsX;
    C inputs[kVectors * M::kInStrip];
    GANOPS_UNROLL
    for (int v = 0; v < kVectors; v++) {
      const InVector loaded = load_vector<M::kInStrip>(input + row * M::kInPitch + (strip + v) * M::kInStrip);
      GANOPS_UNROLL
      for (int i = 0; i < M::kInStrip; i++) inputs[v * M::kInStrip + i] = loaded[i];
    }
    GANOPS_UNROLL
    for (int q = 0; q < M::kUp; q++) {
      InVector samples;
      GANOPS_UNROLL
      for (int i = 0; i < M::kInStrip; i++) {
        samples[i] = C(0);
        GANOPS_UNROLL
        for (int t = 0; t < M::kWindow; t++) samples[i] += inputs[i + t] * column.up_taps[M::kUp - 1 - q + t * M::kUp];
      }
      store_vector(widened + row * M::kUpRowPitch + q * M::kUpPitch + strip * M::kInStrip, samples);
    }
  };

  const auto march_columns = [&]([[maybe_unused]] int step) {
    uint32_t word = 0;
    const int four = thread / kCodesPerByte, lane = thread % kCodesPerByte;
    if constexpr (reads_codes) {
      GANOPS_UNROLL
      for (int t = 0; t < kCodesPerByte; t++)
        word |= static_cast<uint32_t>(codes[kCodesPerByte * t + lane][four]) << 8 * t;
      word = transpose_codes(word);
    }
    C* to = lowered + at;
    [[maybe_unused]] T *even_rows = nullptr, *odd_rows = nullptr, *last_row = nullptr;
    if constexpr (kTensorCores) {
      const int first = step * M::kUpRows + waits;
      even_rows = Product::row_of(samples, first) + place;
      odd_rows = Product::row_of(samples, first + 1) + place;
      last_row = Product::row_of(samples, first + M::kUpRows - 1) + place;
    }
    if (kFullByThreads && waits) {
      to[0] = to[M::kUpRows * M::kDownRowPitch];
      to += M::kDownRowPitch;
    }
    GANOPS_UNROLL
    for (int group = 0; group < M::kInRows; group++) {
      C u[M::kUp];
      column.upsample(M::kUpFull ? input + group * M::kInPitch : widened + group * M::kUpRowPitch, u);
      GANOPS_UNROLL
      for (int q = 0; q < M::kUp; q++) {
        const int row = group * M::kUp + q;
        C v;
        if constexpr (reads_codes) {
          v = leaky_relu.obey(u[q], word >> kCodeBits * row & 3);
        } else {
          unsigned code;
          v = leaky_relu.decide(u[q], code);
          word |= code << kCodeBits * row;
        }
        if constexpr (kTensorCores) {
          T* row_start =
              row == M::kUpRows - 1 ? last_row : (row % 2 ? odd_rows : even_rows) + row / 2 * Product::kPitch;
          *row_start = narrow<T>(v);
        } else if constexpr (kFullByThreads) {
          to[row * M::kDownRowPitch] = v;
        } else {
          C finished;
          if (column.downsample(v, waits, M::down_phase(row), finished))
            lowered[(row - M::kFirst) / M::kDown * M::kDownRowPitch + at] = finished;
        }
      }
    }
    if constexpr (!reads_codes) {
      if (p.write_codes) {
        word = transpose_codes(word);
        GANOPS_UNROLL
        for (int t = 0; t < kCodesPerByte; t++)
          codes[kCodesPerByte * t + lane][four] = static_cast<uint8_t>(word >> 8 * t);
      }
    }
  };

  // Each half's sums, to be added.
  [[maybe_unused]] const auto apply_full_filter = [&] {
    const int o = thread % kHalf;
    if (kFullByThreads && o < M::kOutColumns) {
      GANOPS_UNROLL
      for (int row = 0; row < M::kUpRows; row++) {
        C samples[kTapsX];
        GANOPS_UNROLL
        for (int t = 0; t < kTapsX; t++) samples[t] = lowered[row * M::kDownRowPitch + half * M::kDownPitch + o + t];
        const int phase = M::down_phase(row);
        GANOPS_UNROLL
        for (int age = 0; age < M::kAges; age++) {
          GANOPS_UNROLL
          for (int t = 0; t < kTapsX; t++)
            full_sums[age] += samples[t] * full_taps[(phase + M::kDown * age) * kTapsX + t];
        }
        if (phase == M::kDown - 1) {
          partial[(half * M::kOutRows + (row - M::kFirst) / M::kDown) * M::kOutColumns + o] = full_sums[M::kAges - 1];
          GANOPS_UNROLL
          for (int age = M::kAges - 1; age > 0; age--) full_sums[age] = full_sums[age - 1];
          full_sums[0] = C(0);
        }
      }
    }
  };

  [[maybe_unused]] const auto narrow_rows = [&] {
    constexpr int kStrips = M::kOutColumns / M::kOutStrip;
    for (int item = thread; item < M::kOutRows * kStrips; item += M::kColumns) {
      const int row = item / kStrips, first = item % kStrips * M::kOutStrip;
      C sums[M::kOutStrip];
      if constexpr (M::kDownFull) {
        const OutVector even = load_vector<M::kOutStrip>(partial + row * M::kOutColumns + first);
        const OutVector odd = load_vector<M::kOutStrip>(partial + (M::kOutRows + row) * M::kOutColumns + first);
        GANOPS_UNROLL
        for (int i = 0; i < M::kOutStrip; i++) sums[i] = even[i] + odd[i];
      } else {
        constexpr int kReach = (M::kDownTaps - 1) / M::kDown;
        constexpr int kVectors = (M::kOutStrip + kReach + M::kOutStrip - 1) / M::kOutStrip;
        GANOPS_UNROLL
        for (int i = 0; i < M::kOutStrip; i++) sums[i] = C(0);
        GANOPS_UNROLL
        for (int phase = 0; phase < M::kDown; phase++) {
          C samples[kVectors * M::kOutStrip];
          GANOPS_UNROLL
          for (int v = 0; v < kVectors; v++) {
            const OutVector loaded = load_vector<M::kOutStrip>(lowered + row * M::kDownRowPitch +
                                                               phase * M::kDownPitch + first + v * M::kOutStrip);
            GANOPS_UNROLL
            for (int i = 0; i < M::kOutStrip; i++) samples[v * M::kOutStrip + i] = loaded[i];
          }
          GANOPS_UNROLL
          for (int t = 0; t <= kReach; t++) {
            const int k = phase + t * M::kDown;
            GANOPS_UNROLL
            for (int i = 0; i < M::kOutStrip; i++) sums[i] += samples[i + t] * column.down_taps[k];
          }
        }
      }
      Vector<T, M::kOutStrip> narrowed;
      GANOPS_UNROLL
      for (int i = 0; i < M::kOutStrip; i++) narrowed[i] = narrow<T>(sums[i]);
      store_vector(outputs + row * M::kOutColumns + first, narrowed);
    }
  };

  const auto store = [&](int step) {
    for (int row = thread / kWarpSize; row < M::kOutRows; row += M::kColumns / kWarpSize) {
      const int out_row = step * M::kOutRows + row - b.delay;
      if (out_row < 0 || out_row >= b.rows) continue;
      T* to = static_cast<T*>(p.y) + b.y + out_row * p.out_width * pixel;
      store_row(to, pixel, outputs + row * M::kOutColumns, b.columns, grid.store_length);
    }
  };

  const int steps = b.steps(grid, M{});
  fetch(0);
  cp_async_wait<0>();
  __syncthreads();
  convert(0);
  if constexpr (reads_codes) read_codes(0);

  for (int step = 0; step < steps; step++) {
    __syncthreads();
    if (step + 1 < steps) fetch(step + 1);
    if (step > 0) store(step - 1);
    if constexpr (!M::kUpFull) {
      widen_rows();
      __syncthreads();
    }
    march_columns(step);
    cp_async_wait<0>();
    __syncthreads();
    if constexpr (kTensorCores) {
      product(outputs, samples, step);
    } else {
      if constexpr (M::kDownFull) {
        apply_full_filter();
        __syncthreads();
      }
      narrow_rows();
    }
    if constexpr (!reads_codes) {
      if (p.write_codes) write_codes(step);
    }
    if (step + 1 < steps) {
      convert(step + 1);
      if constexpr (reads_codes) read_codes(step + 1);
    }
  }
  __syncthreads();
  store(steps - 1);
}

}  // namespace ganops

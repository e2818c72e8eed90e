// What the marching kernel reads: rows of the input and of codes, copied as they lie in memory by pieces in flight. A
// row starts anywhere, so its first piece is the aligned one around its start. Each row is copied by one warp, which
// asks for each of its sectors once.
#pragma once
#include "filtered_lrelu/march_plan.h"

namespace ganops {

// Calls f(row, piece) for all pieces of all rows. Lanes that have none wait for the others.
template <int pieces, int threads, class F>
__device__ __forceinline__ void for_pieces(int rows, F&& f) {
  constexpr int kLanes = pieces < static_cast<int>(kWarpSize) ? pieces : kWarpSize, kRowsAtOnce = kWarpSize / kLanes;
  const int group = threadIdx.x % kWarpSize / kLanes, warp = threadIdx.x / kWarpSize;
  if (group < kRowsAtOnce) {
    for (int row = warp * kRowsAtOnce + group; row < rows; row += threads / kWarpSize * kRowsAtOnce)
      for (int piece = threadIdx.x % kWarpSize % kLanes; piece < pieces; piece += kLanes) f(row, piece);
  }
  __syncwarp();
}

// Input rows, by 16 bytes. A row starts row_shift() elements late.
template <class T, class M>
struct RawRows {
  static constexpr int kLength = kVectorLength<T>, kPieces = (M::kInPitch + 2 * kLength - 2) / kLength;  // of a row

  static __device__ int row_shift(const FilteredLreluParams& p, const MarchBlock& b, int row) {
    const uint64_t bytes = static_cast<uint64_t>(b.x + row * p.width) * sizeof(T);
    return static_cast<int>((reinterpret_cast<uintptr_t>(p.x) + bytes) % 16 / sizeof(T));
  }

  static __device__ void fetch(T* raw, const FilteredLreluParams& p, const MarchGrid& grid, const MarchBlock& b,
                               int step) {
    for_pieces<kPieces, M::kColumns>(M::kInRows, [&](int r, int piece) {
      const int row = step * M::kInRows + r;
      if (!b.in_rows.contains(row)) return;
      const int column = piece * kLength - row_shift(p, b, row);
      if (column + kLength <= b.in_columns.begin || column >= b.in_columns.end) return;
      const T* x = static_cast<const T*>(p.x);
      T* to = raw + (r * kPieces + piece) * kLength;
      const int64_t from = b.x + row * p.width + column;
      if (from >= 0 && from + kLength <= grid.elements) {
        cp_async<16>(to, x + from);
      } else {
        for (int i = 0; i < kLength; i++)
          if (from + i >= 0 && from + i < grid.elements) to[i] = x[from + i];
      }
    });
  }
};

// Rows of codes, by 32-bit words.
template <class M>
struct RawCodes {
  static constexpr int kBytes = sizeof(uint32_t), kWords = M::kCodeWords + 1;  // of a row

  // The byte with the codes of column 0, and how far it lies behind an aligned word.
  static __device__ int64_t row_start(const MarchGrid& grid, const MarchBlock& b, int row) {
    return b.read_codes + row * grid.code_row_bytes;
  }
  static __device__ int misalignment(const FilteredLreluParams& p, int64_t byte) {
    return static_cast<int>((reinterpret_cast<uintptr_t>(p.read_codes) + static_cast<uint64_t>(byte)) % kBytes);
  }

  static __device__ void fetch(uint32_t* raw, const FilteredLreluParams& p, const MarchGrid& grid, const MarchBlock& b,
                               int step) {
    const int first_byte = (b.code_columns.begin + b.read_shift) / kCodesPerByte;
    const int last_byte = (b.code_columns.end - 1 + b.read_shift) / kCodesPerByte;
    for_pieces<kWords, M::kColumns>(M::kUpRows, [&](int r, int word) {
      const int row = step * M::kUpRows + r;
      if (!b.code_rows.contains(row)) return;
      const int64_t start = row_start(grid, b, row);
      const int byte = word * kBytes - misalignment(p, start);
      const int64_t from = start + byte;
      const bool needed = byte + kBytes > first_byte && byte <= last_byte;
      uint32_t* to = raw + r * kWords + word;
      if (!needed || (from >= 0 && from + kBytes <= grid.code_bytes)) {
        cp_async<kBytes>(to, p.read_codes + from, needed);
      } else {
        uint32_t value = 0;
        for (int i = 0; i < kBytes; i++)
          if (from + i >= 0 && from + i < grid.code_bytes) value |= uint32_t{p.read_codes[from + i]} << 8 * i;
        *to = value;
      }
    });
  }

  // The codes of 16 columns of the strip. What has none counts as clamped.
  static __device__ uint32_t word(const uint32_t* raw, const FilteredLreluParams& p, const MarchGrid& grid,
                                  const MarchBlock& b, int step, int r, int word) {
    constexpr int kCodes = kBytes * kCodesPerByte;
    constexpr uint32_t kOutside = 0xaaaaaaaau;
    static_assert(static_cast<int>(Code::clamped) == 2, "kOutside repeats the code of a clamped sample");
    const int row = step * M::kUpRows + r;
    const int begin = b.code_columns.begin - word * kCodes, end = b.code_columns.end - word * kCodes;
    if (begin >= kCodes || end <= 0 || !b.code_rows.contains(row)) return kOutside;
    const uint32_t* pair = raw + r * kWords + word;
    const uint64_t both = uint64_t{pair[1]} << 32 | pair[0];
    const int bits = misalignment(p, row_start(grid, b, row)) * 8 + b.read_shift * kCodeBits;
    const uint32_t mask = codes_below(end) & ~codes_below(begin);
    return (static_cast<uint32_t>(both >> bits) & mask) | (kOutside & ~mask);
  }

 private:
  static __device__ uint32_t codes_below(int n) {
    return n <= 0 ? 0 : n * kCodeBits >= 32 ? ~0u : (1u << n * kCodeBits) - 1;
  }
};

}  // namespace ganops

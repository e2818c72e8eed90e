// Downsampling by 2 with a full filter, on tensor cores, for 16-bit types.
//
// A tile of 8 x 8 outputs is a sum of products, one for each row y of taps: of samples [8 rows of outputs, 32 columns]
// and a Toeplitz matrix [32, 8 columns of outputs], in which row k and column n hold tap (y, k - 2 n). Each warp makes
// two neighbouring tiles of a step: one in rows 0 to 7 of its products, the other in rows 8 to 15. The Toeplitz
// matrices stay in registers.
//
// Samples and taps are rounded to T, and summed in float. The last rows of samples lie in a ring in shared memory, even
// and odd ones apart, so that the rows that an ldmatrix reads are neighbours, whose pitch puts them into distinct
// banks.
#pragma once
#include "filtered_lrelu/march_plan.h"

namespace ganops {

// Tap (y, x) of a full filter, in the order of a correlation.
template <int taps, class C>
__device__ __forceinline__ C full_tap(const FirFilter& f, bool flip, int y, int x) {
  const int i = y * taps + x;
  return static_cast<const C*>(f.data)[flip ? i : taps * taps - 1 - i];
}

template <class T, class M, bool enabled>
struct FullDownsampling {
  static constexpr int kVectors = 1;
  __device__ FullDownsampling(const FirFilter&, bool) {}
};

template <class T, class M>
struct FullDownsampling<T, M, true> {
  static constexpr int kTile = 8, kDepth = 16,
                       kDepths = 2;  // outputs a side; samples of a product, products a row of taps
  static constexpr int kTiles = M::kOutColumns / kTile;
  static constexpr int kRing = 16;                // even rows, and odd ones
  static constexpr int kPitch = M::kColumns + 8;  // an odd number of 16-byte pieces
  static constexpr int kVectors = 2 * kRing * kPitch / kVectorLength<T>;
  static_assert(M::kFirst == 0 && M::kOutRows == kTile && 2 * (M::kColumns / kWarpSize) * kTile >= M::kOutColumns);
  static_assert(kDepths * kDepth >= 2 * (kTile - 1) + M::kDownTaps && 2 * kRing >= M::kUpRows + M::kDownTaps - 2);

  uint32_t toeplitz[M::kDownTaps][kDepths][2];
  float scale;  // a power of two, by which the taps are divided, to fit T's range

  __device__ __forceinline__ FullDownsampling(const FirFilter& f, bool flip) {
    const int lane = threadIdx.x % kWarpSize;
    const float* taps = static_cast<const float*>(f.data);
    float greatest = 0;
    for (int i = lane; i < M::kDownTaps * M::kDownTaps; i += kWarpSize) greatest = fmaxf(greatest, fabsf(taps[i]));
    for (unsigned distance = kWarpSize / 2; distance > 0; distance /= 2)
      greatest = fmaxf(greatest, __shfl_xor_sync(kAllLanes, greatest, distance));
    scale = greatest > 0 ? exp2f(floorf(log2f(greatest))) : 1.0f;
    const float inverse = 1 / scale;
    const auto tap = [&](int y, int x) {
      return x >= 0 && x < M::kDownTaps ? full_tap<M::kDownTaps, float>(f, flip, y, x) * inverse : 0.0f;
    };
    GANOPS_UNROLL
    for (int y = 0; y < M::kDownTaps; y++) {
      GANOPS_UNROLL
      for (int i = 0; i < 2 * kDepths; i++) {
        // Fragment i of B: rows 2 (lane % 4) and the next, of 8, and column lane / 4.
        const int x = 8 * i + 2 * (lane % 4) - 2 * (lane / 4);
        toeplitz[y][i / 2][i % 2] = pack<T>(tap(y, x), tap(y, x + 1));
      }
    }
  }

  // Row `row` of the march, which may be one before the first.
  static __device__ __forceinline__ T* row_of(T* samples, int row) {
    return samples + ((row & 1) * kRing + (row >> 1 & (kRing - 1))) * kPitch;
  }

  // The rows of outputs that this step finishes.
  __device__ __forceinline__ void operator()(T* outputs, T* samples, int step) const {
    const int lane = threadIdx.x % kWarpSize, first_tile = threadIdx.x / kWarpSize * 2;
    // ldmatrix: lane i names row i % 8 of matrix i / 8. Matrices 1 and 3 are the second tile's, 2 and 3 the later
    // columns.
    const int tile = min(first_tile + (lane >> 3 & 1), kTiles - 1), first_column = tile * 2 * kTile + (lane >> 4) * 8;
    const int last_row = step * M::kUpRows + 2 * (lane % 8);  // that the output needs
    float sums[4] = {};
    GANOPS_UNROLL
    for (int y = 0; y < M::kDownTaps; y++) {
      const T* row = row_of(samples, last_row - (M::kDownTaps - 1) + y) + first_column;
      GANOPS_UNROLL
      for (int depth = 0; depth < kDepths; depth++) {
        uint32_t a[4];
        ldmatrix_x4(a, row + depth * kDepth);
        mma_m16n8k16<T>(sums, a, toeplitz[y][depth], sums);
      }
    }
    T* to = outputs + lane / 4 * M::kOutColumns + lane % 4 * 2;
    GANOPS_UNROLL
    for (int i = 0; i < 2; i++) {
      const Vector<T, 2> pair{{narrow<T>(sums[2 * i] * scale), narrow<T>(sums[2 * i + 1] * scale)}};
      if (first_tile + i < kTiles) store_vector(to + (first_tile + i) * kTile, pair);
    }
  }
};

}  // namespace ganops

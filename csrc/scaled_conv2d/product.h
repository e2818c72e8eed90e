// The products of a block: kPixels x kOut sums, to which each tap and row of channels adds.
#pragma once
#include "scaled_conv2d/tile.h"

namespace ganops::scaled_conv {

// By tensor cores: a warp has kRows * 16 pixels by 32 channels.
template <class Tile>
struct MmaProduct {
  using Element = typename Tile::Element;
  static constexpr int kWarpOut = 32, kWarpsOut = Tile::kOut / kWarpOut, kWarpsPixels = kThreads / 32 / kWarpsOut;
  static constexpr int kWarpPixels = Tile::kPixels / kWarpsPixels;
  static constexpr int kRows = kWarpPixels / 16, kColumns = kWarpOut / 8;
  static_assert(kWarpsOut * kWarpsPixels * 32 == kThreads && kWarpPixels % 16 == 0);
  static_assert(kWarpPixels <= Tile::kStagedPixels, "a warp's results go at once");

  float sums[kRows][kColumns][4] = {};
  int first_pixel, first_out;
  int x_at[kRows];  // of this lane's row of each matrix of x, and of weights
  int weight_at;

  template <class PlaceOfPixel>
  __device__ explicit MmaProduct(const PlaceOfPixel& place) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    first_pixel = warp / kWarpsOut * kWarpPixels;
    first_out = warp % kWarpsOut * kWarpOut;
    // Lane i names row i % 8 of matrix i / 8: pixels 0 to 7, 8 to 15, and again with the next 8 channels; channels of
    // the weights 0 to 7, those with the next 8 input channels, and so for 8 to 15.
    GANOPS_UNROLL
    for (int i = 0; i < kRows; i++) x_at[i] = place(first_pixel + i * 16 + lane % 16) * Tile::kPitch + lane / 16 * 8;
    weight_at = (first_out + lane / 16 * 8 + lane % 8) * Tile::kPitch + lane / 8 % 2 * 8;
  }

  // x at the tap's place, the tap's weights, and how many channels are not all zero.
  __device__ __forceinline__ void add(const Element* x, const Element* weights, int channels) {
    GANOPS_UNROLL
    for (int depth = 0; depth < Tile::kChannels; depth += 16) {
      if (depth >= channels) break;
      uint32_t a[kRows][4], b[kColumns / 2][4];
      GANOPS_UNROLL
      for (int i = 0; i < kRows; i++) ldmatrix_x4(a[i], x + x_at[i] + depth);
      GANOPS_UNROLL
      for (int j = 0; j < kColumns / 2; j++) ldmatrix_x4(b[j], weights + weight_at + j * 16 * Tile::kPitch + depth);
      GANOPS_UNROLL
      for (int i = 0; i < kRows; i++) {
        GANOPS_UNROLL
        for (int j = 0; j < kColumns; j++) {
          const uint32_t column[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k16<Element>(sums[i][j], a[i], column, sums[i][j]);
        }
      }
    }
  }

  // Calls put(pixel, channel, sum) for this thread's sums of the kStagedPixels pixels from `first` on.
  template <class Put>
  __device__ __forceinline__ void visit(int first, const Put& put) const {
    if (first_pixel < first || first_pixel >= first + Tile::kStagedPixels) return;
    const int lane = threadIdx.x % kWarpSize;
    GANOPS_UNROLL
    for (int i = 0; i < kRows; i++) {
      GANOPS_UNROLL
      for (int j = 0; j < kColumns; j++) {
        GANOPS_UNROLL
        for (int k = 0; k < 4; k++)
          put(first_pixel + i * 16 + lane / 4 + k / 2 * 8, first_out + j * 8 + lane % 4 * 2 + k % 2, sums[i][j][k]);
      }
    }
  }
};

// By multiply-adds: a thread has every 16th pixel and every 16th channel.
template <class Tile>
struct FmaProduct {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  static constexpr int kLanes = 16, kRows = Tile::kPixels / kLanes, kColumns = Tile::kOut / kLanes;
  static_assert(kLanes * kLanes == kThreads && Tile::kStagedPixels % kLanes == 0);

  Sum sums[kRows][kColumns] = {};
  int pixel, out;
  int x_at[kRows];

  template <class PlaceOfPixel>
  __device__ explicit FmaProduct(const PlaceOfPixel& place) {
    // A warp has 8 neighbouring pixels and 4 channels.
    pixel = threadIdx.x % 8 + threadIdx.x / 32 % 2 * 8;
    out = threadIdx.x / 8 % 4 + threadIdx.x / 64 * 4;
    GANOPS_UNROLL
    for (int i = 0; i < kRows; i++) x_at[i] = place(pixel + i * kLanes) * Tile::kPitch;
  }

  __device__ __forceinline__ void add(const Element* x, const Element* weights, int channels) {
    GANOPS_UNROLL
    for (int depth = 0; depth < Tile::kChannels; depth += Tile::kVector) {
      if (depth >= channels) break;
      Vector<Element, Tile::kVector> a[kRows];
      GANOPS_UNROLL
      for (int i = 0; i < kRows; i++) a[i] = load_vector<Tile::kVector>(x + x_at[i] + depth);
      GANOPS_UNROLL
      for (int j = 0; j < kColumns; j++) {
        const auto b = load_vector<Tile::kVector>(weights + (out + j * kLanes) * Tile::kPitch + depth);
        GANOPS_UNROLL
        for (int k = 0; k < Tile::kVector; k++) {
          GANOPS_UNROLL
          for (int i = 0; i < kRows; i++) sums[i][j] += a[i][k] * b[k];
        }
      }
    }
  }

  template <class Put>
  __device__ __forceinline__ void visit(int first, const Put& put) const {
    GANOPS_UNROLL
    for (int i = 0; i < kRows; i++) {
      if (i * kLanes < first || i * kLanes >= first + Tile::kStagedPixels) continue;
      GANOPS_UNROLL
      for (int j = 0; j < kColumns; j++) put(pixel + i * kLanes, out + j * kLanes, sums[i][j]);
    }
  }
};

}  // namespace ganops::scaled_conv

// How x and the weights come into shared memory: rows of kChannels input channels of a cell, or of an output channel.
#pragma once
#include "scaled_conv2d/tile.h"

namespace ganops::scaled_conv {

// The lanes of a warp share out `1 << shift` rows, and then the vectors of a row: neighbours have rows of their own, so
// that a warp's accesses to shared memory spread over all banks.
struct Slot {
  int row, vector;
  __device__ Slot(int slot, int shift)
      : row((slot >> (shift + 2) << shift) + (slot & ((1 << shift) - 1))), vector(slot >> shift & (kRowVectors - 1)) {
    static_assert(kRowVectors == 4);
  }
};
constexpr int kEightRows = 3, kWarpOfRows = 5;

// Starts the copy of the weights of one tap and the channels from first_channel on.
template <class Tile>
__device__ __forceinline__ void load_weights(typename Tile::Element* to, const ScaledConv2dParams& p, int64_t first_out,
                                             int tap, int first_channel) {
  using Element = typename Tile::Element;
  const int64_t channels = p.packed_channels;
  const auto* from = static_cast<const Element*>(p.packed) + tap * p.out_channels * channels;
  GANOPS_UNROLL
  for (int i = 0; i < (Tile::kOut * kRowVectors + kThreads - 1) / kThreads; i++) {
    const Slot slot(threadIdx.x + i * kThreads, kEightRows);
    if (slot.row >= Tile::kOut) break;
    const int64_t out = first_out + slot.row;
    const int channel = first_channel + slot.vector * Tile::kVector;
    cp_async<kVectorBytes>(to + slot.row * Tile::kPitch + slot.vector * Tile::kVector, from + out * channels + channel,
                           out < p.out_channels && channel < channels);
  }
}

// Cells on their way through registers, where they are multiplied by the scales. A part is what all threads hold at a
// time; a tile has one or more.
template <class Tile>
struct Cells {
  using Element = typename Tile::Element;
  Element held[Tile::kHeld][Tile::kVector] = {};

  static __device__ int parts(const Tiling& t) {
    return (t.listed * kRowVectors + Tile::kHeld * kThreads - 1) / (Tile::kHeld * kThreads);
  }

  __device__ __forceinline__ void load(const ScaledConv2dParams& p, const Tiling& t, const Shared<Tile>& shared,
                                       int part, int first_channel) {
    const auto* x = static_cast<const Element*>(p.x);
    const int64_t plane = p.height.in * p.width.in;
    GANOPS_UNROLL
    for (int i = 0; i < Tile::kHeld; i++) {
      const int number = (part * Tile::kHeld + i) * kThreads + threadIdx.x;
      if (t.reading == Reading::along_channels) {
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++) {
          const int cell = cell_along_channels(number, e), channel = first_channel + channel_along_channels(number);
          const int64_t offset = cell < t.listed && channel < p.in_channels ? shared.cell_offset[cell] : -1;
          held[i][e] = offset < 0 ? narrow<Element>(0) : x[offset + channel];
        }
        continue;
      }
      const Slot slot(number, t.reading == Reading::vectors ? kEightRows : kWarpOfRows);
      const int channel = first_channel + slot.vector * Tile::kVector;
      const int64_t offset = slot.row < t.listed ? shared.cell_offset[slot.row] : -1;
      if (t.reading == Reading::vectors && offset >= 0 && channel < p.in_channels) {
        const auto vector = load_vector<Tile::kVector>(x + offset + channel);
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++) held[i][e] = vector[e];
      } else {
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++)
          held[i][e] =
              offset < 0 || channel + e >= p.in_channels ? narrow<Element>(0) : x[offset + (channel + e) * plane];
      }
    }
  }

  __device__ __forceinline__ void store(const Tiling& t, const Shared<Tile>& shared, int part, int first_channel,
                                        Element* to) const {
    using Sum = typename Tile::Sum;
    GANOPS_UNROLL
    for (int i = 0; i < Tile::kHeld; i++) {
      const int number = (part * Tile::kHeld + i) * kThreads + threadIdx.x;
      if (t.reading == Reading::along_channels) {
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++) {
          const int cell = cell_along_channels(number, e), channel = channel_along_channels(number);
          const int place = cell < t.listed ? shared.cell_place[cell] : -1;
          if (place < 0) continue;
          const Sum scale = shared.scales[shared.cell_image[cell] * t.scales + first_channel + channel];
          to[place * Tile::kPitch + channel] = narrow<Element>(widen(held[i][e]) * scale);
        }
        continue;
      }
      const Slot slot(number, t.reading == Reading::vectors ? kEightRows : kWarpOfRows);
      const int place = slot.row < t.listed ? shared.cell_place[slot.row] : -1;
      if (place < 0) continue;
      constexpr int kScales = kVectorLength<Sum>;
      const int channel = slot.vector * Tile::kVector;
      const Sum* scales = shared.scales + shared.cell_image[slot.row] * t.scales + first_channel + channel;
      Vector<Element, Tile::kVector> scaled;
      GANOPS_UNROLL
      for (int first = 0; first < Tile::kVector; first += kScales) {
        const auto scale = load_vector<kScales>(scales + first);
        GANOPS_UNROLL
        for (int e = 0; e < kScales; e++) scaled[first + e] = narrow<Element>(widen(held[i][first + e]) * scale[e]);
      }
      store_vector(to + place * Tile::kPitch + channel, scaled);
    }
  }

 private:
  // A warp has 8 cells, too, and its lanes run along their channels.
  static __device__ int cell_along_channels(int number, int e) {
    constexpr int kCellsAtOnce = kWarpSize / Tile::kChannels;
    static_assert(kCellsAtOnce * Tile::kVector == 8);
    const int lane = number % static_cast<int>(kWarpSize);
    return number / static_cast<int>(kWarpSize) * 8 + e * kCellsAtOnce + lane / Tile::kChannels;
  }
  static __device__ int channel_along_channels(int number) { return number % Tile::kChannels; }
};

}  // namespace ganops::scaled_conv

// How x and the weights come into shared memory: rows of kChannels input channels of a cell, or of an output channel.
#pragma once
#include <type_traits>

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
// time; a tile has one or more. Between load and store nothing touches the registers: the loads are on their way.
template <class Tile>
struct Cells {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  static constexpr bool kShort = sizeof(Element) == 2;
  // As loads leave them: an element each, or the first hold a vector's words, of two short elements each.
  using Word = std::conditional_t<kShort, uint32_t, Element>;
  static constexpr int kWords = kVectorBytes / sizeof(Word);
  static constexpr int kTogether = kShort ? 2 : 1;  // channels whose rows a thread reads: a word of each cell
  Word held[Tile::kHeld][Tile::kVector] = {};

  static __device__ int parts(const Tiling& t) {
    const int loads = t.reading == Reading::rows ? t.vectors * kRowWords : t.listed * kRowVectors;
    return (loads + Tile::kHeld * kThreads - 1) / (Tile::kHeld * kThreads);
  }

  __device__ __forceinline__ void load(const ScaledConv2dParams& p, const Tiling& t, const Shared<Tile>& shared,
                                       int part, int first_channel) {
    const auto* x = static_cast<const Element*>(p.x);
    GANOPS_UNROLL
    for (int i = 0; i < Tile::kHeld; i++) {
      GANOPS_UNROLL
      for (int e = 0; e < Tile::kVector; e++) held[i][e] = 0;
    }
    if (t.reading == Reading::vectors) {
      GANOPS_UNROLL
      for (int i = 0; i < Tile::kHeld; i++) {
        const Slot slot(number(part, i), kEightRows);
        const int channel = first_channel + slot.vector * Tile::kVector;
        const int64_t offset = slot.row < t.listed ? shared.offset[slot.row] : -1;
        if (offset < 0 || channel >= p.in_channels) continue;
        const auto words = load_vector<kWords>(reinterpret_cast<const Word*>(x + offset + channel));
        GANOPS_UNROLL
        for (int e = 0; e < kWords; e++) held[i][e] = words[e];
      }
    } else if (Tile::kByRows && t.reading == Reading::rows) {
      const int64_t plane = p.height.in * p.width.in;
      GANOPS_UNROLL
      for (int i = 0; i < Tile::kHeld; i++) {
        const int vector = number(part, i) / kRowWords,
                  channel = first_channel + number(part, i) % kRowWords * kTogether;
        const int64_t offset = vector < t.vectors ? shared.offset[vector] : -1;
        GANOPS_UNROLL
        for (int c = 0; c < kTogether; c++) {
          if (offset < 0 || channel + c >= p.in_channels) continue;
          const auto words = load_vector<kWords>(reinterpret_cast<const Word*>(x + offset + (channel + c) * plane));
          GANOPS_UNROLL
          for (int e = 0; e < kWords; e++) held[i][c * kWords + e] = words[e];
        }
      }
    } else if (t.reading == Reading::along_pixels) {
      const int64_t plane = p.height.in * p.width.in;
      GANOPS_UNROLL
      for (int i = 0; i < Tile::kHeld; i++) {
        const Slot slot(number(part, i), kWarpOfRows);
        const int channel = first_channel + slot.vector * Tile::kVector;
        const int64_t offset = slot.row < t.listed ? shared.offset[slot.row] : -1;
        const Element* from = x + offset + channel * plane;
        const int64_t channels = offset < 0 ? 0 : p.in_channels - channel;
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++)
          if (e < channels) held[i][e] = load_word(from + e * plane);
      }
    } else {
      GANOPS_UNROLL
      for (int i = 0; i < Tile::kHeld; i++) {
        const int channel = first_channel + channel_along(number(part, i));
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++) {
          const int cell = cell_along(number(part, i), e);
          const int64_t offset = cell < t.listed && channel < p.in_channels ? shared.offset[cell] : -1;
          if (offset >= 0) held[i][e] = load_word(x + offset + channel);
        }
      }
    }
  }

  __device__ __forceinline__ void store(const Tiling& t, const Shared<Tile>& shared, int part, int first_channel,
                                        Element* to) const {
    if constexpr (Tile::kByRows) {
      if (t.reading == Reading::rows) return store_rows(t, shared, part, first_channel, to);
    }
    GANOPS_UNROLL
    for (int i = 0; i < Tile::kHeld; i++) {
      if (t.reading == Reading::along_channels) {
        const int channel = channel_along(number(part, i));
        GANOPS_UNROLL
        for (int e = 0; e < Tile::kVector; e++) {
          const int cell = cell_along(number(part, i), e), place = cell < t.listed ? shared.cell_place[cell] : -1;
          if (place < 0) continue;
          const Sum scale = shared.scales[shared.image[cell] * t.scales + first_channel + channel];
          to[place * Tile::kPitch + channel] = narrow<Element>(value_of(held[i][e]) * scale);
        }
        continue;
      }
      const bool as_words = kShort && t.reading == Reading::vectors;
      const Slot slot(number(part, i), t.reading == Reading::vectors ? kEightRows : kWarpOfRows);
      const int place = slot.row < t.listed ? shared.cell_place[slot.row] : -1;
      if (place < 0) continue;
      const int channel = slot.vector * Tile::kVector;
      const Sum* scales = shared.scales + shared.image[slot.row] * t.scales + first_channel + channel;
      constexpr int kScales = kVectorLength<Sum>;
      Vector<Word, kWords> scaled;
      GANOPS_UNROLL
      for (int first = 0; first < Tile::kVector; first += kScales) {
        const auto scale = load_vector<kScales>(scales + first);
        GANOPS_UNROLL
        for (int e = 0; e < kScales; e += kShort ? 2 : 1) {
          const int at = first + e;
          if constexpr (kShort) {
            Sum low, high;
            unpack<Element>(as_words ? held[i][at / 2] : held[i][at] | held[i][at + 1] << 16, low, high);
            scaled[at / 2] = pack<Element>(low * scale[e], high * scale[e + 1]);
          } else {
            scaled[at] = held[i][at] * scale[e];
          }
        }
      }
      store_vector(reinterpret_cast<Word*>(to + place * Tile::kPitch + channel), scaled);
    }
  }

 private:
  // Each pixel of a vector is another cell's: a thread stores a word at a time, and 16 in turn a cell's row. 8 rows
  // fill all banks, so that the other 16, whose vector is the next, begin with another pixel than 8 cells further.
  __device__ __forceinline__ void store_rows(const Tiling& t, const Shared<Tile>& shared, int part, int first_channel,
                                             Element* to) const {
    GANOPS_UNROLL
    for (int i = 0; i < Tile::kHeld; i++) {
      const int vector = number(part, i) / kRowWords, channel = number(part, i) % kRowWords * kTogether;
      if (vector >= t.vectors) continue;
      const auto scale =
          load_vector<kTogether>(shared.scales + shared.image[vector] * t.scales + first_channel + channel);
      const int first_x = shared.vector_x[vector], first_cell = shared.vector_cell[vector];
      constexpr int kTurn = 4;
      const bool turned = kShort && vector % 2;
      GANOPS_UNROLL
      for (int e = 0; e < Tile::kVector; e++) {
        const int pixel = turned ? e ^ kTurn : e;
        if (first_x + pixel < 0 || first_x + pixel >= t.cells_x) continue;
        Element* const cell = to + shared.cell_place[first_cell + pixel] * Tile::kPitch + channel;
        if constexpr (kShort) {
          const int word = e / 2, other = word ^ kTurn / 2;
          const uint32_t low = turned ? held[i][other] : held[i][word];
          const uint32_t high = turned ? held[i][kWords + other] : held[i][kWords + word];
          Sum first, second;
          unpack<Element>(e % 2 ? low >> 16 | (high & 0xffff0000u) : (low & 0xffffu) | high << 16, first, second);
          const Vector<Word, 1> both{{pack<Element>(first * scale[0], second * scale[1])}};
          store_vector(reinterpret_cast<Word*>(cell), both);
        } else {
          *cell = held[i][e] * scale[0];
        }
      }
    }
  }
  static __device__ int number(int part, int i) { return (part * Tile::kHeld + i) * kThreads + threadIdx.x; }
  static __device__ __forceinline__ Word load_word(const Element* from) {
    if constexpr (kShort) return load_bits(from);
    if constexpr (!kShort) return *from;
  }
  static __device__ __forceinline__ Sum value_of(Word word) {
    if constexpr (kShort) {
      Sum low, high;
      unpack<Element>(word, low, high);
      return low;
    }
    if constexpr (!kShort) return word;
  }
  // Along channels a warp has 8 cells, too, and its lanes run along their channels.
  static __device__ int cell_along(int number, int e) {
    constexpr int kWarp = kWarpSize, kCellsAtOnce = kWarp / Tile::kChannels;
    static_assert(kCellsAtOnce * Tile::kVector == 8);
    return number / kWarp * 8 + e * kCellsAtOnce + number % kWarp / Tile::kChannels;
  }
  static __device__ int channel_along(int number) { return number % Tile::kChannels; }
};

}  // namespace ganops::scaled_conv

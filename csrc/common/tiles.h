// The matrix unit AMX: eight tiles of 16 rows of 64 bytes. Rows lie `stride` bytes apart in memory.
#pragma once
#include "common/cpu.h"

namespace ganops {

constexpr int64_t kTiles = 8, kTileRows = 16, kTileRowBytes = 64;

#ifdef GANOPS_X86_64
// A thread's tiles while this lives. For a process that has them: see bfloat16_unit().
class AmxTiles {
 public:
  AmxTiles() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    std::fill_n(config.row_bytes, kTiles, static_cast<uint16_t>(kTileRowBytes));
    std::fill_n(config.rows, kTiles, static_cast<uint8_t>(kTileRows));
    static_assert(sizeof(config) == 64);
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~AmxTiles() { asm volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;

  template <int tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
  }
  template <int tile>
  void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
  }
  // sums[i][j] += the products of the pairs of bfloat16 a[i][k] and b[k][j].
  template <int sums, int a, int b>
  void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
  }
};
#endif

// The same without such a processor, for tests.
class EmulatedTiles {
 public:
  template <int tile>
  void zero() {
    std::memset(tiles_[tile], 0, sizeof(tiles_[tile]));
  }
  template <int tile>
  void load(const void* from, int64_t stride) {
    for (int64_t i = 0; i < kTileRows; i++)
      std::memcpy(tiles_[tile][i], static_cast<const char*>(from) + i * stride, kTileRowBytes);
  }
  template <int tile>
  void store(void* to, int64_t stride) {
    for (int64_t i = 0; i < kTileRows; i++)
      std::memcpy(static_cast<char*>(to) + i * stride, tiles_[tile][i], kTileRowBytes);
  }
  template <int sums, int a, int b>
  void multiply() {
    for (int64_t i = 0; i < kTileRows; i++) {
      float row[kWords];
      std::memcpy(row, tiles_[sums][i], sizeof(row));
      for (int64_t k = 0; k < kWords; k++)
        for (int64_t j = 0; j < kWords; j++)
          row[j] += first(tiles_[a][i][k]) * first(tiles_[b][k][j]) + second(tiles_[a][i][k]) * second(tiles_[b][k][j]);
      std::memcpy(tiles_[sums][i], row, sizeof(row));
    }
  }

 private:
  static constexpr int64_t kWords = kTileRowBytes / sizeof(uint32_t);

  static float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
  static float first(uint32_t pair) { return as_float(pair << 16); }
  static float second(uint32_t pair) { return as_float(pair & 0xffff0000); }

  uint32_t tiles_[kTiles][kTileRows][kWords];
};

}  // namespace ganops

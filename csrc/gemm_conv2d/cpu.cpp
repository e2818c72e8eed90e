#include "common/cpu.h"

#include "gemm_conv2d/params.h"
#include "common/tiles.h"
#define GANOPS_KERNEL_FILE "gemm_conv2d/cpu.cpp"
#define GANOPS_KERNEL_HAS_BFLOAT16
#include "common/isa.h"

namespace ganops::GANOPS_ISA {

// What a word holds: how two rows of channels become words, parts of them part_stride apart, and how vectors of words
// are multiplied and added up.
struct Float {
  static constexpr int64_t kChannels = 1;

  template <class T>
  static void pack(const T* row, const T*, float scale, float, int64_t count, int64_t, int64_t, uint32_t* to) {
    for (int64_t i = 0; i < count; i += kLanes<float>) {
      const int64_t lanes = std::min(kLanes<float>, count - i);
      store_first(to + i, as_bits(scale * load_floats(row + i, lanes)), lanes);
    }
  }
  static GANOPS_INLINE Vec<float> multiply_add(Vec<float> sum, Vec<uint32_t> a, Vec<uint32_t> b) {
    return sum + as_floats(a) * as_floats(b);
  }
};

struct Bfloat16Pair {
  static constexpr int64_t kChannels = 2;

  template <class T>
  static void pack(const T* even, const T* odd, float even_scale, float odd_scale, int64_t count, int64_t parts,
                   int64_t part_stride, uint32_t* to) {
    for (int64_t i = 0; i < count; i += kLanes<float>) {
      const int64_t lanes = std::min(kLanes<float>, count - i);
      const Vec<float> a = even_scale * load_floats(even + i, lanes);
      const Vec<float> b = odd ? odd_scale * load_floats(odd + i, lanes) : Vec<float>{};
      const Vec<uint32_t> rounded = to_pairs(a, b);
      store_first(to + i, rounded, lanes);
      if (parts > 1) store_first(to + part_stride + i, to_pairs(a - first_of(rounded), b - second_of(rounded)), lanes);
    }
  }
  static GANOPS_INLINE Vec<float> multiply_add(Vec<float> sum, Vec<uint32_t> a, Vec<uint32_t> b) {
    return add_products(sum, a, b);
  }
};

constexpr int64_t kWordLine = kLine<uint32_t>;
constexpr int64_t kBlockRows = 128;  // output channels, for threads to share a tile

// How outputs are cut into tiles, and a packed tile: [parts, words, positions].
struct Tiling {
  int64_t rows, columns;         // of a tile
  int64_t in_y, in_x;            // tiles along each axis
  int64_t row;                   // positions in one
  int64_t parts, words, stride;  // between words
};

template <class Product>
Tiling tiling_of(const GemmConv2dParams& p) {
  constexpr int64_t kTileBytes = 448 << 10;  // half of a core's own cache, with the sums
  Tiling t;
  t.parts = parts_of(p.factors);
  t.words = ceil_div(ceil_div(p.in, Product::Word::kChannels), Product::kWordStep) * Product::kWordStep;
  const int64_t words = t.words * t.parts + std::min(p.out, kBlockRows);
  const int64_t positions = std::max(kTileBytes / (words * static_cast<int64_t>(sizeof(uint32_t))), Product::kColumns);
  const int64_t most = p.kernel_height == 1 ? positions / Product::kColumns * Product::kColumns
                                            : std::max(Product::kColumns, positions / (2 * p.kernel_height));
  t.in_x = ceil_div(p.out_width, most);
  t.columns = std::min(ceil_div(ceil_div(p.out_width, t.in_x), Product::kColumns) * Product::kColumns, p.out_width);
  t.in_x = ceil_div(p.out_width, t.columns);
  t.row = t.columns + p.kernel_width - 1;
  const int64_t most_rows = std::clamp<int64_t>(positions / t.row - (p.kernel_height - 1), 1, p.out_height);
  t.in_y = ceil_div(p.out_height, most_rows);
  t.rows = ceil_div(p.out_height, t.in_y);
  const int64_t lines = ceil_div((t.rows + p.kernel_height - 1) * t.row, kWordLine);
  t.stride = (lines + 1 - lines % 2) * kWordLine;  // an odd number of lines spreads words over the cache
  return t;
}

// What is packed lies in as many pages as there are channels: it is asked for some channels ahead.
template <class T, class Word>
void pack_tile(const GemmConv2dParams& p, const Tiling& t, int64_t n, int64_t top, int64_t left, uint32_t* to) {
  constexpr int64_t kAhead = 32;
  const int64_t part_stride = t.words * t.stride;
  const int64_t first = std::clamp<int64_t>(p.pad_x - left, 0, t.row);
  const int64_t last = std::clamp<int64_t>(p.width + p.pad_x - left, first, t.row);
  for (int64_t word = 0; word < t.words; word++)
    for (int64_t row = 0; row < t.rows + p.kernel_height - 1; row++) {
      uint32_t* at = to + word * t.stride + row * t.row;
      const int64_t y = top + row - p.pad_y, channel = Word::kChannels * word;
      const bool is_inside = y >= 0 && y < p.height && channel < p.in;
      for (int64_t part = 0; part < t.parts; part++) {
        std::fill_n(at + part * part_stride, is_inside ? first : t.row, 0);
        std::fill(at + part * part_stride + last, at + part * part_stride + t.row, 0);
      }
      if (!is_inside) continue;
      const int64_t plane = n * p.in + channel, offset = left + first - p.pad_x;
      const T* even = static_cast<const T*>(p.x) + (plane * p.height + y) * p.width + offset;
      const T* odd = Word::kChannels == 2 && channel + 1 < p.in ? even + p.height * p.width : nullptr;
      const float even_scale = p.scale ? p.scale[plane] : 1, odd_scale = p.scale && odd ? p.scale[plane + 1] : 1;
      prefetch(even + kAhead * p.height * p.width, last - first);
      Word::pack(even, odd, even_scale, odd_scale, last - first, t.parts, part_stride, at + first);
    }
}

// What is summed in registers at a time, for all filters in turn: some words of one row of taps.
struct Chunk {
  int64_t filter, position;  // offsets of the first
  int64_t taps, words;
  int64_t filter_stride, position_stride;  // between taps, and between words
  int64_t group_stride;                    // between groups of filters
  bool is_first;
};

template <class F>
void for_chunks(const GemmConv2dParams& p, const Tiling& t, int64_t chunk_words, const F& f) {
  const int64_t tap = p.blocks * kFilterBlock, filter_part = p.kernel_height * p.kernel_width * tap;
  const int64_t x_part = t.words * t.stride;
  for (int64_t term = 0; term < 2 * t.parts - 1; term++)
    for (int64_t tap_y = 0; tap_y < p.kernel_height; tap_y++)
      for (int64_t word = 0; word < t.words; word += chunk_words) {
        const int64_t filter = (term == 2) * filter_part + tap_y * p.kernel_width * tap + word * kFilterRows;
        const int64_t position = (term == 1) * x_part + tap_y * t.row + word * t.stride;
        f(Chunk{filter, position, p.kernel_width, std::min(chunk_words, t.words - word), tap, t.stride,
                t.parts * filter_part, term + tap_y + word == 0});
      }
}

// Sums [kRows, kColumns] of products, in registers, of vectors of positions and a filter's words.
template <class WordOf>
struct VectorProduct {
  using Word = WordOf;
  static constexpr int64_t kRows = kRegisters >= 32 ? 8 : 4, kVectors = 3;
  static constexpr int64_t kColumns = kVectors * kLanes<float>, kWordStep = 1, kChunkWords = 256;

  template <int vectors>
  GANOPS_INLINE void sum(const Chunk& c, const uint32_t* filters, const uint32_t* positions, float* to) {
    Vec<float> sums[kRows][vectors] = {};
    for (int64_t tap = 0; tap < c.taps; tap++)
      for (int64_t block = 0; block < c.words; block += kFilterWords) {
        const uint32_t* filter = filters + tap * c.filter_stride + block * kFilterRows;
        const uint32_t* position = positions + tap + block * c.position_stride;
        for (int64_t word = 0; word < std::min(kFilterWords, c.words - block); word++) {
          Vec<uint32_t> column[vectors];
          for (int v = 0; v < vectors; v++)
            column[v] = load_once(position + word * c.position_stride + v * kLanes<float>);
          for (int r = 0; r < kRows; r++) {
            const Vec<uint32_t> row = broadcast(filter[r * kFilterWords + word]);
            for (int v = 0; v < vectors; v++) sums[r][v] = Word::multiply_add(sums[r][v], row, column[v]);
          }
        }
      }
    for (int r = 0; r < kRows; r++)
      for (int v = 0; v < vectors; v++) {
        float* at = to + r * kColumns + v * kLanes<float>;
        store(at, c.is_first ? sums[r][v] : load(at) + sums[r][v]);
      }
  }

  void operator()(const Chunk& c, const uint32_t* filters, const uint32_t* positions, int64_t columns, float* to) {
    if (columns > 2 * kLanes<float>)
      sum<3>(c, filters, positions, to);
    else if (columns > kLanes<float>)
      sum<2>(c, filters, positions, to);
    else
      sum<1>(c, filters, positions, to);
  }
};

// The same in a matrix unit's tiles: two by two of sums, from two of filters and two of positions.
template <class Tiles>
struct TileProduct {
  using Word = Bfloat16Pair;
  static constexpr int64_t kRows = 2 * kTileRows, kColumns = 2 * kTileRowBytes / sizeof(float);
  static constexpr int64_t kWordStep = kTileRows, kChunkWords = 128;
  static_assert(kFilterRows == kTileRows && kFilterWords == kTileRows);

  void operator()(const Chunk& c, const uint32_t* filters, const uint32_t* positions, int64_t, float* to) {
    constexpr int64_t kLower = kTileRows * kColumns, kRight = kColumns / 2, kRowBytes = kColumns * sizeof(float);
    if (c.is_first) {
      tiles.template zero<0>(), tiles.template zero<1>(), tiles.template zero<2>(), tiles.template zero<3>();
    } else {
      tiles.template load<0>(to, kRowBytes);
      tiles.template load<1>(to + kRight, kRowBytes);
      tiles.template load<2>(to + kLower, kRowBytes);
      tiles.template load<3>(to + kLower + kRight, kRowBytes);
    }
    const int64_t word_bytes = c.position_stride * sizeof(uint32_t);
    for (int64_t tap = 0; tap < c.taps; tap++)
      for (int64_t word = 0; word < c.words; word += kFilterWords) {
        const uint32_t* filter = filters + tap * c.filter_stride + word * kFilterRows;
        const uint32_t* position = positions + tap + word * c.position_stride;
        tiles.template load<4>(filter, kTileRowBytes);
        tiles.template load<6>(position, word_bytes);
        tiles.template multiply<0, 4, 6>();
        tiles.template load<7>(position + kRight, word_bytes);
        tiles.template multiply<1, 4, 7>();
        tiles.template load<5>(filter + c.group_stride, kTileRowBytes);
        tiles.template multiply<2, 5, 6>();
        tiles.template multiply<3, 5, 7>();
      }
    tiles.template store<0>(to, kRowBytes);
    tiles.template store<1>(to + kRight, kRowBytes);
    tiles.template store<2>(to + kLower, kRowBytes);
    tiles.template store<3>(to + kLower + kRight, kRowBytes);
  }

  Tiles tiles;
};

// Neighbouring positions of a tile that are neighbouring pixels of the result, too.
struct Run {
  int64_t position, pixel, count;
};

template <class T>
void write_row(T* to, const float* from, int64_t n, bool streamed) {
  if constexpr (std::is_same_v<T, float>)
    if (streamed) return stream_row(to, from, n);
  store_row(to, from, n);
}

template <class T, class Product>
void convolve(const GemmConv2dParams& p) {
  const Tiling t = tiling_of<Product>(p);
  const int64_t row_blocks = ceil_div(p.out, kBlockRows), tiles = t.in_y * t.in_x;
  const int64_t group = t.parts * p.kernel_height * p.kernel_width * p.blocks * kFilterBlock;
  const int64_t out_plane = p.out_height * p.out_width;
  const bool streamed = is_streamed(p.n * p.out * out_plane * sizeof(T));
  parallel_for(p.n * tiles * row_blocks, 1, [&](int64_t begin, int64_t end) {
    Product product;
    std::vector<uint32_t> memory(t.parts * t.words * t.stride + Product::kColumns + kWordLine);
    uint32_t* packed =
        memory.data() + kWordLine - reinterpret_cast<uintptr_t>(memory.data()) / sizeof(uint32_t) % kWordLine;
    std::vector<float> sums(kBlockRows * ceil_div(t.stride, Product::kColumns) * Product::kColumns);
    for (int64_t i = begin, packed_tile = -1; i < end; i++) {
      const int64_t tile = i / row_blocks, n = tile / tiles;
      const int64_t top = tile % tiles / t.in_x * t.rows, left = tile % t.in_x * t.columns;
      const int64_t height = std::min(t.rows, p.out_height - top), width = std::min(t.columns, p.out_width - left);
      if (tile != packed_tile) pack_tile<T, typename Product::Word>(p, t, n, top, left, packed);
      packed_tile = tile;
      const int64_t first_row = i % row_blocks * kBlockRows, end_row = std::min(first_row + kBlockRows, p.out);
      const int64_t positions = (height - 1) * t.row + width;
      for_chunks(p, t, Product::kChunkWords, [&](const Chunk& c) {
        for (int64_t position = 0; position < positions; position += Product::kColumns)
          for (int64_t row = first_row; row < end_row; row += Product::kRows)
            product(c, p.filters + row / kFilterRows * group + row % kFilterRows * kFilterWords + c.filter,
                    packed + position + c.position, positions - position,
                    sums.data() + position * kBlockRows + (row - first_row) * Product::kColumns);
      });
      for (int64_t position = 0; position < positions; position += Product::kColumns) {
        const int64_t end_position = std::min(position + Product::kColumns, positions);
        Run runs[Product::kColumns];
        int64_t run_count = 0;
        for (int64_t y = position / t.row; y * t.row < end_position; y++) {
          const int64_t from = std::max(position, y * t.row), to = std::min(end_position, y * t.row + width);
          if (from < to)
            runs[run_count++] = {from - position, (top + y) * p.out_width + left + from - y * t.row, to - from};
        }
        for (int64_t row = first_row; row < end_row; row++) {
          const int64_t plane = n * p.out + row;
          float* of_row = sums.data() + position * kBlockRows + (row - first_row) * Product::kColumns;
          if (p.out_scale)
            for (int64_t i = 0; i < Product::kColumns; i++) of_row[i] *= p.out_scale[plane];
          for (int64_t run = 0; run < run_count; run++)
            write_row(static_cast<T*>(p.y) + plane * out_plane + runs[run].pixel, of_row + runs[run].position,
                      runs[run].count, streamed);
        }
      }
    }
    if (streamed) finish_streams();
  });
}

template <class Product>
void convolve(const GemmConv2dParams& p) {
  if (p.dtype == DType::bf16)
    convolve<BFloat16, Product>(p);
  else
    convolve<float, Product>(p);
}

// A few outputs of 1x1 filters take as long as it takes to read the input. Their sums over a run of pixels wait in L1,
// and the channels' pixels are read in place, page by page.
template <class T>
void sum_few_outputs(const GemmConv2dParams& p) {
  constexpr int64_t kRun = 1024, kAtOnce = 4;  // pixels, and channels, whose factors stay in registers
  const int64_t pixels = p.height * p.width, runs = ceil_div(pixels, kRun);
  static constexpr T kZeros[kRun] = {};  // the pixels of channels beyond the last
  parallel_for(p.n * runs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t n = i / runs, first = i % runs * kRun, count = std::min(kRun, pixels - first);
      alignas(GANOPS_VECTOR_BYTES) float sums[kFewOutputs][kRun] = {};
      for (int64_t channel = 0; channel < p.in; channel += kAtOnce) {
        const T* rows[kAtOnce];
        Vec<float> factors[kFewOutputs][kAtOnce];
        for (int64_t k = 0; k < kAtOnce; k++) {
          const int64_t word = channel + k, plane = n * p.in + word;
          const bool exists = word < p.in;
          rows[k] = exists ? static_cast<const T*>(p.x) + plane * pixels + first : kZeros;
          const float scale = exists && p.scale ? p.scale[plane] : 1;
          const uint32_t* filter = p.filters + word / kFilterWords * kFilterBlock + word % kFilterWords;
          for (int64_t o = 0; o < kFewOutputs; o++)
            factors[o][k] = scale * as_floats(broadcast(filter[o * kFilterWords]));
        }
        for (int64_t pixel = 0; pixel < count; pixel += kLanes<float>) {
          Vec<float> x[kAtOnce];
          for (int64_t k = 0; k < kAtOnce; k++) x[k] = load_floats(rows[k] + pixel, count - pixel);
          for (int64_t o = 0; o < p.out; o++) {
            Vec<float> sum = load(sums[o] + pixel);
            for (int64_t k = 0; k < kAtOnce; k++) sum += factors[o][k] * x[k];
            store(sums[o] + pixel, sum);
          }
        }
      }
      for (int64_t o = 0; o < p.out; o++) {
        const int64_t plane = n * p.out + o;
        if (p.out_scale)
          for (int64_t k = 0; k < count; k++) sums[o][k] *= p.out_scale[plane];
        store_row(static_cast<T*>(p.y) + plane * pixels + first, sums[o], count);
      }
    }
  });
}

void gemm_conv2d(const GemmConv2dParams& p) {
  if (p.few_outputs) return p.dtype == DType::bf16 ? sum_few_outputs<BFloat16>(p) : sum_few_outputs<float>(p);
  if (p.factors == Factors::float32) return convolve<float, VectorProduct<Float>>(p);
  switch (bfloat16_unit()) {
#ifdef GANOPS_X86_64
    case Bfloat16Unit::amx:
      return convolve<TileProduct<AmxTiles>>(p);
#endif
    case Bfloat16Unit::emulated_amx:
      return convolve<TileProduct<EmulatedTiles>>(p);
    default:
      return convolve<VectorProduct<Bfloat16Pair>>(p);
  }
}

template <class Word>
void pack_filters(const GemmFilters& p) {
  const int64_t parts = parts_of(p.factors), part_stride = p.kernel_height * p.kernel_width * p.blocks * kFilterBlock;
  parallel_for(p.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; group++)
      for (int64_t r = 0; r < kFilterRows; r++)
        for (int64_t block = 0; block < p.blocks; block++)
          for (int64_t tap = 0; tap < p.kernel_height * p.kernel_width; tap++) {
            const int64_t row = group * kFilterRows + r, first = block * Word::kChannels * kFilterWords;
            const float* from = p.filters + row * p.strides[0] + first * p.strides[1] +
                                tap / p.kernel_width * p.strides[2] + tap % p.kernel_width * p.strides[3];
            const int64_t count = row < p.out ? std::min(Word::kChannels * kFilterWords, p.in - first) : 0;
            float channels[2][kFilterWords] = {};  // the first and second of each word
            for (int64_t i = 0; i < Word::kChannels; i++)
              for (int64_t k = 0; k < ceil_div(count - i, Word::kChannels); k++)
                channels[i][k] = from[(k * Word::kChannels + i) * p.strides[1]];
            uint32_t* to = p.packed + group * parts * part_stride + (tap * p.blocks + block) * kFilterBlock;
            Word::pack(channels[0], channels[1], 1, 1, kFilterWords, parts, part_stride, to + r * kFilterWords);
          }
  });
}

void gemm_filters(const GemmFilters& p) {
  if (p.factors == Factors::float32)
    pack_filters<Float>(p);
  else
    pack_filters<Bfloat16Pair>(p);
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_gemm_filters_cpu(const GemmFilters& p) {
  GANOPS_BEST_BFLOAT16_ISA(gemm_filters)(p);
}
void launch_gemm_conv2d_cpu(const GemmConv2dParams& p) {
  GANOPS_BEST_BFLOAT16_ISA(gemm_conv2d)(p);
}
}  // namespace ganops
#endif

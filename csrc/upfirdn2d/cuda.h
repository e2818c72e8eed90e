// How upfirdn2d's images are cut into tiles, and how tiles move between global and shared memory. Both memory formats
// are [images, height, width, inner] here: inner is 1 for planes and the number of channels where these come last.
#pragma once
#include <algorithm>

#include "common/cuda.h"
#include "upfirdn2d/math.h"

namespace ganops::upfirdn {

constexpr int kThreads = 128, kLanes = kWarpSize;
constexpr int kSectorBytes = 32, kVectorBytes = 16;  // what global memory moves at least, and a thread at most
constexpr int kBlocks = 4;                           // on a multiprocessor, as far as registers go
constexpr int64_t kSharedBytes = 47 * 1024;          // of a tile
constexpr int64_t kChannels = 32;                    // of a tile, where channels come last and are many
constexpr int64_t kMostColumns = 1 << 14, kMostRows = 32, kFewestRows = 8;

template <class T>
inline constexpr int kSector = kSectorBytes / sizeof(T);

// A filter that has a kernel of its own. A thread works on `run` outputs of a column, a multiple of up.
template <int up_, int down_, int taps_, bool separable_, int run_>
struct Fir {
  static constexpr int up = up_, down = down_, taps = taps_, run = run_;
  static constexpr bool separable = separable_;
  static constexpr int tap_count = separable ? taps : taps * taps;
  static constexpr int reach = taps / up;                                  // the inputs that an output meets, an axis
  static constexpr int window = (run - 1) * down / up + (up > 1) + reach;  // the inputs that a run of outputs meets
  static_assert((up == 1 || down == 1) && taps % up == 0 && run % up == 0, "every output meets `reach` inputs");
};

template <class... F>
struct Firs {};

// up, down, taps, whether separable, run.
using TiledFirs = Firs<Fir<1, 1, 4, false, 8>,   // blurs about strided convolutions
                       Fir<2, 1, 4, false, 8>,   // skips, and each other's gradient
                       Fir<1, 2, 4, false, 4>,   //
                       Fir<1, 1, 12, true, 8>,   // wavelets and Kaiser windows
                       Fir<2, 1, 12, true, 8>,   //
                       Fir<1, 2, 12, true, 8>,   //
                       Fir<4, 1, 24, true, 8>,   //
                       Fir<1, 4, 24, true, 8>>;  //

// Sizes of a tile, in outputs unless they say otherwise.
struct Tiling {
  int images, rows, columns, channels;
  int rows_in, columns_in;        // the inputs that a tile meets
  int before;                     // rows of the first tile that lie above the image, so that runs start alike
  int pitch_in, pitch_out;        // elements between rows in shared memory, where rows are copied one by one
  int pitch_middle;               // columns of what lies between the passes of a separable filter, a phase of down
  int elements_in, elements_out;  // of shared memory
  int lanes;                      // threads side by side; others work on other rows
  unsigned tiles, tiles_x, tiles_y, tiles_c;
  int64_t all_images, shared_bytes;
};

// The part of an image that lies in a tile, in both memories. Rows are as far from 32-byte boundaries in shared memory
// as in global memory, so that aligned vectors can be copied whatever the width. Whole rows are copied as one stretch.
template <class T>
struct Box {
  T* global;           // the first element
  int64_t row, pixel;  // elements between rows and pixels in global memory
  int rows, length;    // to be copied: rows of so many elements
  int channels;        // elements between pixels in shared memory
  int start, pitch;    // of row 0, and between rows, in shared memory

  __device__ __forceinline__ int at(int r) const { return start + r * pitch; }
  // From a row to the next in shared memory, gaps included: lanes that run on into the next row meet other banks.
  __device__ __forceinline__ int vectors() const {
    const int elements = rows == 1 ? start + length : pitch;
    return (elements + kSector<T> - 1) / kSector<T> * (kSectorBytes / kVectorBytes);
  }
  __device__ __forceinline__ int64_t offset(int element) const {
    return pixel == channels ? element : element / channels * pixel + element % channels;
  }
};

// All of the images, in global memory.
template <class T>
struct Extent {
  T* base;
  int64_t height, width, inner;
};

// Rows and columns [begin, end) of the images from `image` on, of which there are several only where all is copied.
template <class T>
__device__ __forceinline__ Box<T> make_box(const Extent<T>& e, int64_t image, int images, int64_t y_begin,
                                           int64_t y_end, int64_t x_begin, int64_t x_end, int64_t channel, int channels,
                                           int pitch) {
  Box<T> box;
  box.global = e.base + ((image * e.height + y_begin) * e.width + x_begin) * e.inner + channel;
  box.row = e.width * e.inner;
  box.pixel = e.inner;
  box.channels = channels;
  const int rows = static_cast<int>(y_end - y_begin) * images;
  const int length = static_cast<int>(x_end - x_begin) * channels;
  const bool whole = x_end - x_begin == e.width && channels == e.inner;
  const bool in_pixels = channels != e.inner;
  box.rows = whole ? 1 : rows;
  box.length = whole ? rows * length : length;
  box.pitch = whole ? length : pitch;
  box.start = in_pixels ? 0 : static_cast<int>(reinterpret_cast<uintptr_t>(box.global) / sizeof(T)) & (kSector<T> - 1);
  return box;
}

// Starts the copy of a box into shared memory. `begin` and `end` enclose the tensor: nothing beyond is read.
template <class T>
__device__ __forceinline__ void load_box(T* tile, const Box<const T>& box, const T* begin, const T* end) {
  constexpr int N = kVectorLength<T>;
  if (box.rows <= 0 || box.length <= 0) return;
  const int vectors = box.vectors();
  for (int i = threadIdx.x; i < box.rows * vectors; i += kThreads) {
    const int r = box.rows == 1 ? 0 : i / vectors, v = i - r * vectors;
    const int start = box.at(r), at = start / kSector<T> * kSector<T> + v * N;
    const int last_sector = (start + box.length - 1) / kSector<T>;
    if (at >= (last_sector + 1) * kSector<T>) continue;
    const T* from = box.global + r * box.row + box.offset(at - start);
    T* to = tile + at;
    if (from >= begin && from + N <= end) {
      cp_async<16>(to, from);
    } else {
      GANOPS_UNROLL
      for (int k = 0; k < N; k++)
        if (from + k >= begin && from + k < end) to[k] = from[k];
    }
  }
}

template <class T>
__device__ __forceinline__ void store_box(const T* tile, const Box<T>& box) {
  constexpr int N = kVectorLength<T>;
  const int vectors = box.vectors();
  for (int i = threadIdx.x; i < box.rows * vectors; i += kThreads) {
    const int r = box.rows == 1 ? 0 : i / vectors, v = i - r * vectors;
    const int start = box.at(r), at = start / kSector<T> * kSector<T> + v * N, first = at - start;
    if (first >= 0 && first + N <= box.length)
      store_vector(box.global + r * box.row + box.offset(first), load_vector<N>(tile + at));
  }
  // Elements before the first vector of a row and after the last one: a row has up to 2 N - 2, side by side.
  for (int i = threadIdx.x; i < box.rows * 2 * N; i += kThreads) {
    const int r = i / (2 * N), k = i % (2 * N), start = box.at(r), head = -start & (N - 1);
    const int tail = head + (box.length - head) / N * N;  // after the last vector
    const int element = k < N ? k : tail + k - N;
    if (k < N ? k < head && k < box.length : head <= box.length && element < box.length)
      box.global[r * box.row + box.offset(element)] = tile[start + element];
  }
}

inline int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

inline int64_t power_of_two_from(int64_t a) {
  int64_t power = 1;
  while (power < a) power *= 2;
  return power;
}

// The tiling for a largest number of rows and columns, as even as can be; false if its tiles are too large.
template <class T, class F>
bool make_tiling(const Upfirdn2dParams& p, int64_t rows, int64_t columns, Tiling& t) {
  const int64_t inner = p.channels_last ? p.channels : 1, images = p.samples * p.channels / inner;
  const bool in_pixels = inner > kChannels && inner % kVectorLength<T> == 0 && is_aligned(p.x, kVectorBytes) &&
                         is_aligned(p.y, kVectorBytes);
  const int64_t channels = in_pixels ? kChannels : inner;
  const int64_t before = (F::up - p.height.padding % F::up) % F::up, height = p.height.out + before;
  columns = ceil_div(p.width.out, ceil_div(p.width.out, columns));
  if (inner == 1) columns = std::min(p.width.out, round_up(columns, kSector<T>));  // tiles start where sectors do
  rows = round_up(ceil_div(height, ceil_div(height, rows)), F::run);
  const int64_t tiles_x = ceil_div(p.width.out, columns), tiles_y = ceil_div(height, rows);
  const int64_t tiles_c = ceil_div(inner, channels);

  const int64_t rows_in = (rows - F::run) * F::down / F::up + F::window;
  const int64_t columns_in = ceil_div((columns - 1) * F::down, F::up) + F::reach;
  // Rows keep apart by what aligns them, and advance over boundaries as they do in global memory.
  const auto pitch_of = [&](int64_t length, int64_t width) {
    return in_pixels ? length : round_up(length + 2 * kSector<T> - 2, kSector<T>) + width * inner % kSector<T>;
  };
  const int64_t pitch_in = pitch_of(columns_in * channels, p.width.in);
  const int64_t pitch_out = pitch_of(columns * channels, p.width.out);
  // What lies between the passes: phases of down start in banks of their own.
  const int64_t middle = round_up(ceil_div(columns_in, F::down), kWarpSize) + (F::down > 1 ? kWarpSize / F::down : 0);
  const auto elements_in = [&](int64_t together) {
    return round_up(pitch_in * (together > 1 ? together * p.height.in : rows_in), kSector<T>);
  };
  const auto elements_out = [&](int64_t together) { return round_up(pitch_out * rows * together, kSector<T>); };
  const auto bytes = [&](int64_t together) {
    const int64_t between = F::separable ? together * rows * F::down * middle * channels : 0;
    return (elements_in(together) + elements_out(together)) * sizeof(T) + between * sizeof(accumulate_t<T>);
  };
  // Small planes share a block.
  const int64_t work = columns * rows / F::run;
  const bool alone = inner > 1 || tiles_x * tiles_y > 1;
  int64_t together = alone ? 1 : std::min(images, ceil_div(2 * kThreads, work));
  while (together > 1 && bytes(together) > kSharedBytes) together /= 2;
  const int64_t tiles = ceil_div(images, together) * tiles_y * tiles_x * tiles_c;
  if (bytes(together) > kSharedBytes || tiles > std::numeric_limits<int32_t>::max()) return false;

  const int64_t lanes = std::min<int64_t>(power_of_two_from(columns * channels), kWarpSize);
  t.lanes = static_cast<int>(kThreads / std::min(power_of_two_from(rows / F::run * together), kThreads / lanes));
  t.tiles = static_cast<unsigned>(tiles);
  t.tiles_x = static_cast<unsigned>(tiles_x);
  t.tiles_y = static_cast<unsigned>(tiles_y);
  t.tiles_c = static_cast<unsigned>(tiles_c);
  t.all_images = images;
  t.shared_bytes = bytes(together);
  t.images = static_cast<int>(together);
  t.rows = static_cast<int>(rows);
  t.columns = static_cast<int>(columns);
  t.channels = static_cast<int>(channels);
  t.rows_in = static_cast<int>(rows_in);
  t.columns_in = static_cast<int>(columns_in);
  t.before = static_cast<int>(before);
  t.pitch_in = static_cast<int>(pitch_in);
  t.pitch_out = static_cast<int>(pitch_out);
  t.pitch_middle = static_cast<int>(middle);
  t.elements_in = static_cast<int>(elements_in(together));
  t.elements_out = static_cast<int>(elements_out(together));
  return true;
}

// The sectors that an image's tiles read, margins included, and those that the ends of misaligned rows cost, which are
// written element by element unless a tile has whole rows.
template <class T, class F>
int64_t cost(const Upfirdn2dParams& p, const Tiling& t) {
  const int64_t rows = p.height.in + int64_t{t.tiles_y} * (t.rows_in - t.rows * F::down / F::up);
  const int64_t inner = p.channels_last ? p.channels : 1, parts = int64_t{t.tiles_x} * t.tiles_c;
  const int64_t rounding = inner == 1 && parts > 1 ? kSector<T> : 0;
  const int64_t columns = p.width.in + int64_t{t.tiles_x} * (t.columns_in - t.columns * F::down / F::up + rounding);
  const bool ragged = parts > 1 && p.width.out * inner % kSector<T> != 0;
  return rows * columns * inner / kSector<T> + (ragged ? p.height.out * parts * kVectorLength<T> : 0);
}

// The best of tilings with halved rows and columns; false if even the smallest tiles are too large.
template <class T, class F>
bool make_tiling(const Upfirdn2dParams& p, Tiling& best) {
  constexpr int64_t none = std::numeric_limits<int64_t>::max();
  int64_t least = none;
  for (int64_t columns = std::min(p.width.out, kMostColumns); columns > 0; columns /= 2) {
    for (int64_t rows = kMostRows; rows >= kFewestRows; rows /= 2) {
      Tiling t;
      if (!make_tiling<T, F>(p, rows, columns, t) || cost<T, F>(p, t) >= least) continue;
      least = cost<T, F>(p, t);
      best = t;
    }
  }
  return least < none;
}

}  // namespace ganops::upfirdn

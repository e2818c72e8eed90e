// What a block of the convolution works on, and how that lies in shared memory.
//
// A convolution of an upsampled image falls apart into up * up ordinary ones: along an axis the outputs phase,
// phase + up, ... meet every up-th tap alone, and inserted zeros otherwise. Coordinates of an axis are therefore
//
//   output   sample of y
//   q        output of one phase: output = phase + up * q
//   input    sample of x: q and the phase's i-th tap meet input first_input + q * down + i
//   cell     pixel of x in a tile, those that the taps meet around it included
//
// A block makes kOut channels of kPixels pixels: a box of images x rows x columns of q.
#pragma once
#include <algorithm>
#include <limits>

#include "common/math.h"
#include "scaled_conv2d/order.h"
#include "scaled_conv2d/params.h"
// Needs the types first.
#include "common/cuda.h"

namespace ganops::scaled_conv {

constexpr int kThreads = 256;
constexpr int kVectorBytes = 16;
constexpr int kRowBytes = 64;    // of a cell's, or an output channel's, input channels in shared memory at a time
constexpr int kPitchBytes = 80;  // from row to row: an odd number of vectors, so that 8 rows in turn fill all banks
constexpr int kRowVectors = kRowBytes / kVectorBytes;
constexpr int kWordBytes = 4, kRowWords = kRowBytes / kWordBytes;
constexpr int kSectorBytes = 32;         // what memory moves at least
constexpr int kStages = 3;               // taps whose weights are in shared memory or on the way
constexpr int kStagedBytes = 32 * 1024;  // of results that go through shared memory at a time
constexpr int64_t kMostImages = 8;       // in a tile

// Compile-time choices. Element: of x, packed weights and y. Blocks: that a multiprocessor is to have registers for.
template <class Element_, int Pixels, int Out, int Blocks>
struct Tile {
  using Element = Element_;
  using Sum = accumulate_t<Element>;
  static constexpr int kPixels = Pixels, kOut = Out, kBlocks = Blocks;
  static constexpr int kChannels = kRowBytes / sizeof(Element);  // input channels at a time
  static constexpr int kPitch = kPitchBytes / sizeof(Element);
  static constexpr int kVector = kVectorLength<Element>;
  static constexpr int kHeld = 2;  // vectors of x that a thread loads at a time
  static constexpr int kSector = kSectorBytes / sizeof(Element);
  static constexpr bool kByRows = sizeof(Element) <= kWordBytes;
  // Results on their way: either order of pixels and channels, padded so that writes spread over the banks.
  static constexpr int kStagedPixels = std::min<int>(kPixels, kStagedBytes / sizeof(Sum) / kOut);
  static constexpr int kPixelPitch = kOut + 8, kChannelPitch = kStagedPixels + 4;
  static constexpr int kStaged = std::max(kStagedPixels * kPixelPitch, kOut* kChannelPitch);
  static_assert(kPixels % kStagedPixels == 0, "results go in whole parts");
};

// What the outputs of one phase meet.
struct Phase {
  int64_t outputs, first_input;
  int taps, first_tap;  // every up-th from the first
};

GANOPS_HOST_DEVICE Phase phase_of(const ScaledConv2dAxis& axis, int64_t up, int64_t down, int64_t phase) {
  const int64_t start = phase * down - axis.padding;  // where the first output's taps start in the upsampled signal
  const int64_t first_tap = (up - start % up) % up;
  const int64_t taps = first_tap < axis.taps ? (axis.taps - first_tap + up - 1) / up : 0;
  const int64_t outputs = phase < axis.out ? (axis.out - phase + up - 1) / up : 0;
  return {outputs, (start + first_tap) / up, static_cast<int>(taps), static_cast<int>(first_tap)};
}

// How x is read: by vectors of a pixel's channels, by vectors of a plane's row, or by elements along pixels or along
// channels.
enum class Reading { vectors, rows, along_pixels, along_channels };

// Cells that differ by `down` are neighbours in shared memory, and so are those that a tap meets at neighbouring
// pixels: along an axis, cell u lies at u % down * plane + u / down.
struct Tiling {
  int images, rows, columns;  // of q
  int image_pixels;           // of an image: rows * columns, and what makes them whole vectors
  unsigned tiles_x, tiles_y;  // of an image
  Order order;
  int cells_y, cells_x;  // of an image
  int row_plane, column_plane;
  int row_pitch, image_pitch;  // in cells
  int listed;                  // cells of all images, rounded up to whole warps
  int vectors_x, vectors;      // of a row of cells, in whole sectors of x, and of all rows; 0 unless x is read by rows
  int taps;                    // of the phase with most
  int scales;                  // input channels, rounded up to whole rows
  Reading reading;
  bool wide_stores;

  __device__ int place(int image, int y, int x, int down) const {
    return image * image_pitch + (y % down * row_plane + y / down) * row_pitch + x % down * column_plane + x / down;
  }
};

// The parts of the dynamic shared memory, from its start.
template <class Tile>
struct Shared {
  typename Tile::Element* weights;  // [kStages, kOut, kPitch]
  typename Tile::Element* x;        // [2, images * image_pitch, kPitch]: the channels in use, and the next
  typename Tile::Sum* staged;       // [kStaged], where weights and x were
  int64_t* offset;                  // [loads] of a cell or vector, elements from x's start; negative: zero
  int64_t* pixel;                   // [kPixels] in its image of y; negative: none
  typename Tile::Sum* scales;       // [images, scales] of x
  typename Tile::Sum* y_scales;     // [images, kOut]
  typename Tile::Sum* bias;         // [kOut]
  typename Tile::Sum* noise;        // [kPixels]
  int* cell_place;                  // [listed] cell; negative: none
  int* image;                       // [loads] of a cell or vector, in the tile
  int* vector_x;                    // [vectors] of the first element, in the row of cells; may be outside
  int* vector_cell;                 // [vectors] of the first element, in the list; may be another row's
  int* pixel_image;                 // [kPixels] in the tile
  int* tap_place;                   // [taps] cells from that of the first tap
  int* tap_weight;                  // [taps] of all taps

  static constexpr size_t kWeightBytes = size_t{kStages} * Tile::kOut * kPitchBytes;
  GANOPS_HOST_DEVICE static int loads(const Tiling& t) { return t.reading == Reading::rows ? t.vectors : t.listed; }
  GANOPS_HOST_DEVICE static size_t x_bytes(const Tiling& t) { return size_t{kPitchBytes} * t.images * t.image_pitch; }
  GANOPS_HOST_DEVICE static size_t tile_bytes(const Tiling& t) {
    const size_t staged = Tile::kStaged * sizeof(typename Tile::Sum), tiles = kWeightBytes + 2 * x_bytes(t);
    return tiles < staged ? staged : tiles;
  }
  static size_t bytes(const Tiling& t) {
    const size_t doubles = loads(t) + Tile::kPixels;
    const size_t words = t.listed + loads(t) + 2 * t.vectors + Tile::kPixels + 2 * t.taps;
    const size_t sums = size_t(t.images) * (t.scales + Tile::kOut) + Tile::kOut + Tile::kPixels;
    return tile_bytes(t) + doubles * sizeof(int64_t) + sums * sizeof(typename Tile::Sum) + words * sizeof(int);
  }

  __device__ Shared(unsigned char* memory, const Tiling& t) {
    weights = reinterpret_cast<typename Tile::Element*>(memory);
    x = reinterpret_cast<typename Tile::Element*>(memory + kWeightBytes);
    staged = reinterpret_cast<typename Tile::Sum*>(memory);
    offset = reinterpret_cast<int64_t*>(memory + tile_bytes(t));
    pixel = offset + loads(t);
    scales = reinterpret_cast<typename Tile::Sum*>(pixel + Tile::kPixels);
    y_scales = scales + t.images * t.scales;
    bias = y_scales + t.images * Tile::kOut;
    noise = bias + Tile::kOut;
    cell_place = reinterpret_cast<int*>(noise + Tile::kPixels);
    image = cell_place + t.listed;
    vector_x = image + loads(t);
    vector_cell = vector_x + t.vectors;
    pixel_image = vector_cell + t.vectors;
    tap_place = pixel_image + Tile::kPixels;
    tap_weight = tap_place + t.taps;
  }
};

// The part of y that a block makes.
struct Block {
  Phase y, x;
  int phase_y, phase_x;
  int64_t first_image, first_row, first_column;  // q
  int64_t first_out;

  __device__ Block(const ScaledConv2dParams& p, const Tiling& t, int out) {
    const Order::Turn turn = t.order.turn(blockIdx.x);
    phase_y = turn.phase / static_cast<int>(p.up);
    phase_x = turn.phase % static_cast<int>(p.up);
    y = phase_of(p.height, p.up, p.down, phase_y);
    x = phase_of(p.width, p.up, p.down, phase_x);
    first_column = int64_t{turn.tile % t.tiles_x} * t.columns;
    first_row = int64_t{turn.tile / t.tiles_x % t.tiles_y} * t.rows;
    first_image = int64_t{turn.tile / t.tiles_x / t.tiles_y} * t.images;
    first_out = int64_t{turn.out} * out;
  }
  __device__ int taps() const { return y.taps * x.taps; }
};

inline int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

// Pixels that ldmatrix reads together. Where the places of 8 in turn are 8 in turn, modulo 8, they fill all banks.
constexpr int64_t kTogether = 8;

// From row to row of cells: at least `length`, and so that this holds from one row's last pixels to the next row's.
inline int64_t row_pitch_for(int64_t length, int64_t columns) {
  return columns % kTogether == 0 ? length : length + ((columns - length) % kTogether + kTogether) % kTogether;
}

// The tiling with these rows and columns, as many images as fit; false if it needs too much shared memory.
template <class Tile>
bool make_tiling(const ScaledConv2dParams& p, int64_t rows, int64_t columns, size_t shared_limit, Tiling& t) {
  const int64_t all_rows = ceil_div(p.height.out, p.up), all_columns = ceil_div(p.width.out, p.up);
  const int64_t taps_y = ceil_div(p.height.taps, p.up), taps_x = ceil_div(p.width.taps, p.up);
  const bool whole = rows == all_rows && columns == all_columns;
  const int64_t cells_y = (rows - 1) * p.down + taps_y, cells_x = (columns - 1) * p.down + taps_x;
  const int64_t row_plane = ceil_div(cells_y, p.down), column_plane = ceil_div(cells_x, p.down);
  const int64_t row_pitch = row_pitch_for(p.down * column_plane, columns);
  const int64_t image_pitch = round_up(p.down * row_plane * row_pitch, kTogether);
  const int64_t image_pixels = round_up(rows * columns, kTogether);
  int64_t images = whole ? std::min({p.samples, kMostImages, Tile::kPixels / image_pixels}) : 1;
  const bool aligned = is_aligned(p.x, kVectorBytes) && p.in_channels % Tile::kVector == 0;
  const bool whole_sectors = is_aligned(p.x, kSectorBytes) && p.width.in % Tile::kSector == 0;
  const Reading of_planes = Tile::kByRows && whole_sectors ? Reading::rows : Reading::along_pixels;
  const bool wide = p.channels_last ? p.out_channels % Tile::kVector == 0
                                    : p.up == 1 && columns % Tile::kVector == 0 && p.width.out % Tile::kVector == 0;
  constexpr int64_t most = std::numeric_limits<int>::max() / kPitchBytes;
  for (; images > 0; images /= 2) {
    const int64_t tiles_x = ceil_div(all_columns, columns), tiles_y = ceil_div(all_rows, rows);
    const int64_t tiles = ceil_div(p.samples, images) * tiles_x * tiles_y;
    const int64_t outs = ceil_div(p.out_channels, Tile::kOut), phases = p.up * p.up;
    if (images * image_pitch > most || tiles * outs * phases > std::numeric_limits<int>::max()) continue;
    t.images = static_cast<int>(images);
    t.rows = static_cast<int>(rows);
    t.columns = static_cast<int>(columns);
    t.image_pixels = static_cast<int>(image_pixels);
    t.tiles_x = static_cast<unsigned>(tiles_x);
    t.tiles_y = static_cast<unsigned>(tiles_y);
    t.order = {static_cast<unsigned>(tiles), static_cast<unsigned>(outs), static_cast<unsigned>(phases)};
    t.cells_y = static_cast<int>(cells_y);
    t.cells_x = static_cast<int>(cells_x);
    t.row_plane = static_cast<int>(row_plane);
    t.column_plane = static_cast<int>(column_plane);
    t.row_pitch = static_cast<int>(row_pitch);
    t.image_pitch = static_cast<int>(image_pitch);
    t.listed = static_cast<int>(round_up(images * cells_y * cells_x, kWarpSize));
    t.taps = static_cast<int>(taps_y * taps_x);
    t.scales = static_cast<int>(round_up(p.in_channels, Tile::kChannels));
    t.reading = !p.channels_last ? of_planes : aligned ? Reading::vectors : Reading::along_channels;
    // A row of cells begins anywhere in a sector.
    const int64_t vectors_x = ceil_div(cells_x + Tile::kSector - 1, Tile::kSector) * (kSectorBytes / kVectorBytes);
    t.vectors_x = static_cast<int>(vectors_x);
    t.vectors = static_cast<int>(t.reading == Reading::rows ? images * cells_y * vectors_x : 0);
    t.wide_stores = wide && is_aligned(p.y, kVectorBytes);
    if (Shared<Tile>::bytes(t) <= shared_limit) return true;
  }
  return false;
}

// Rows of weights and cells of x that all blocks read of each row's channels, as 32-byte sectors have them.
template <class Tile>
int64_t cost(const ScaledConv2dParams& p, const Tiling& t) {
  constexpr int64_t sector = 32 / sizeof(typename Tile::Element);
  const bool ragged = !p.channels_last && t.tiles_x > 1;
  const int64_t cells = int64_t{t.images} * t.cells_y * (t.cells_x + (ragged ? sector : 0));
  return int64_t{t.order.tiles} * (cells + int64_t{Tile::kOut} * t.taps);
}

// The best tiling of those with halved columns; false if none fits.
template <class Tile>
bool make_tiling(const ScaledConv2dParams& p, size_t shared_limit, Tiling& best) {
  constexpr int64_t none = std::numeric_limits<int64_t>::max();
  const int64_t all_rows = ceil_div(p.height.out, p.up), all_columns = ceil_div(p.width.out, p.up);
  int64_t least = none;
  const auto consider = [&](int64_t columns) {
    for (int64_t rows = std::min(all_rows, Tile::kPixels / columns); rows > 0; rows /= 2) {
      Tiling t;
      if (!make_tiling<Tile>(p, rows, columns, shared_limit, t)) continue;
      if (cost<Tile>(p, t) >= least) return;
      least = cost<Tile>(p, t);
      best = t;
      return;
    }
  };
  if (all_columns <= Tile::kPixels) consider(all_columns);
  for (int64_t columns = Tile::kPixels; columns > 0; columns /= 2)
    if (columns < all_columns) consider(columns);
  return least < none;
}

}  // namespace ganops::scaled_conv

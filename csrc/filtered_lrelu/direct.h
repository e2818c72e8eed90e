// What both CUDA kernels of filtered_lrelu share, and the one for any filters and factors.
//
// Names for positions along an axis: i in the input, m in the upsampled image, o in the output. With correlation taps g
// and h (the filters, reversed unless flip_filter):
//
//   upsampled[m] = sum over k with (m + k - pad) % up == 0 of g[k] input[(m + k - pad) / up]
//   output[o]    = sum over k of h[k] activated[o * down + k]
#pragma once
#include <cmath>
#include <limits>

#include "common/device.h"
#include "filtered_lrelu/params.h"

namespace ganops {

__device__ __forceinline__ bool sign_bit(single_t x) {
  return std::signbit(static_cast<float>(x));
}
__device__ __forceinline__ bool sign_bit(double x) {
  return std::signbit(x);
}

// The leaky ReLU with its clamp: decides, or obeys a code.
template <class C>
struct LeakyRelu {
  C slope, clamp;  // clamp: NaN for none, which no magnitude reaches

  explicit LeakyRelu(const FilteredLreluParams& p)
      : slope(p.slope), clamp(p.clamp >= 0 ? p.clamp : std::numeric_limits<double>::quiet_NaN()) {}

  __device__ __forceinline__ C decide(C u, unsigned& code) const {
    const bool negative = sign_bit(u);
    const C v = negative ? u * slope : u;
    const bool clamped = (v < C(0) ? -v : v) >= clamp;
    code = static_cast<unsigned>(clamped ? Code::clamped : negative ? Code::negative : Code::positive);
    return clamped ? (v < C(0) ? -clamp : clamp) : v;
  }

  __device__ __forceinline__ C obey(C u, unsigned code) const {
    const C v = code == static_cast<unsigned>(Code::positive) ? u : u * slope;
    return code >= static_cast<unsigned>(Code::clamped) ? C(0) : v;
  }
};

// Where element (row, column) of a plane lies: plane + (row * width + column) * step.
struct Planes {
  int64_t plane, step;
};

__device__ __forceinline__ Planes plane_of(const FilteredLreluParams& p, int64_t sample, int64_t channel,
                                           int64_t pixels) {
  if (p.channels_last) return {sample * pixels * p.channels + channel, p.channels};
  return {(sample * p.channels + channel) * pixels, 1};
}

// Tap (y, x) in the order of a correlation; the identity has one tap.
template <class C>
__device__ __forceinline__ C tap(const FirFilter& f, bool flip, int64_t y, int64_t x) {
  if (!f.data) return C(1);
  const C* taps = static_cast<const C*>(f.data);
  if (!flip) y = f.height - 1 - y, x = f.width - 1 - x;
  return f.separable ? taps[y] * taps[x] : taps[y * f.width + x];
}

// A byte of a row of codes. What lies beyond the edges counts as clamped.
__device__ __forceinline__ uint32_t code_byte(const FilteredLreluParams& p, int64_t plane, int64_t row, int64_t byte) {
  constexpr uint32_t kOutside = 0xaa;
  static_assert(static_cast<int>(Code::clamped) == 2, "kOutside repeats the code of a clamped sample");
  const int64_t row_bytes = (p.codes_width + kCodesPerByte - 1) / kCodesPerByte;
  if (row < 0 || row >= p.codes_height || byte < 0 || byte >= row_bytes) return kOutside;
  const uint32_t codes = p.read_codes[(plane * p.codes_height + row) * row_bytes + byte];
  const int64_t there = p.codes_width - byte * kCodesPerByte;
  const uint32_t mask = there < kCodesPerByte ? (1u << kCodeBits * there) - 1 : 0xff;
  return (codes & mask) | (kOutside & ~mask);
}

// Four codes from code column `first` on, whatever its sign.
__device__ __forceinline__ uint32_t four_codes(const FilteredLreluParams& p, int64_t plane, int64_t row,
                                               int64_t first) {
  const int64_t before = first & (kCodesPerByte - 1), byte = (first - before) / kCodesPerByte;
  uint32_t codes = code_byte(p, plane, row, byte);
  if (before) codes |= code_byte(p, plane, row, byte + 1) << 8;
  return codes >> kCodeBits * before & 0xff;
}

// The kernel for any filters and factors. A block makes a tile of the output, a thread one sample of it. The activated
// image passes by in pieces: the block fills a piece, then each thread adds what its filter covers of it.
constexpr int kDirectTile = 16, kDirectThreads = kDirectTile * kDirectTile;
constexpr int kPieceWidth = 64, kPieceHeight = 32;

// Sample (y, x) of the upsampled image, before its gain.
template <class T>
__device__ accumulate_t<T> upsampled_sample(const FilteredLreluParams& p, const T* x_plane, int64_t step,
                                            accumulate_t<T> bias, int64_t y, int64_t x) {
  using C = accumulate_t<T>;
  const auto first_tap = [&](int64_t at) { return (at % p.up + p.up) % p.up; };
  const int64_t first_y = first_tap(p.pad_y - y), first_x = first_tap(p.pad_x - x);
  C sum = 0;
  for (int64_t ky = first_y, row = (y + first_y - p.pad_y) / p.up; ky < p.fu.height; ky += p.up, row++) {
    if (row < 0 || row >= p.height) continue;
    for (int64_t kx = first_x, column = (x + first_x - p.pad_x) / p.up; kx < p.fu.width; kx += p.up, column++) {
      if (column < 0 || column >= p.width) continue;
      const C value = widen(x_plane[(row * p.width + column) * step]) + bias;
      // Alone, a product keeps the sign of zero.
      sum = p.fu.data ? sum + value * tap<C>(p.fu, p.flip_filter, ky, kx) : value;
    }
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kDirectThreads, 2)
    filtered_lrelu_direct_kernel(FilteredLreluParams p, LeakyRelu<accumulate_t<T>> leaky_relu, int64_t tiles_x,
                                 int64_t tiles_y) {
  using C = accumulate_t<T>;
  GANOPS_SHARED(C, piece, [kPieceHeight][kPieceWidth]);
  const int64_t plane = blockIdx.x / (tiles_x * tiles_y), tile = blockIdx.x % (tiles_x * tiles_y);
  const int64_t sample = plane / p.channels, channel = plane % p.channels;
  const int64_t out_x = tile % tiles_x * kDirectTile, out_y = tile / tiles_x * kDirectTile;
  const Planes in = plane_of(p, sample, channel, p.height * p.width);
  const Planes out = plane_of(p, sample, channel, p.out_height * p.out_width);
  const T* x_plane = static_cast<const T*>(p.x) + in.plane;
  const C bias = p.b ? widen(static_cast<const T*>(p.b)[channel]) : C(-0.0);  // -0 changes nothing
  const C gain = static_cast<C>(p.gain * static_cast<double>(p.up * p.up));

  // The last tile writes the codes of what is left of the upsampled image, too.
  const int64_t begin_x = out_x * p.down, begin_y = out_y * p.down;
  const bool last_x = out_x + kDirectTile >= p.out_width, last_y = out_y + kDirectTile >= p.out_height;
  const int64_t codes_end_x = last_x ? p.up_width : begin_x + kDirectTile * p.down;
  const int64_t codes_end_y = last_y ? p.up_height : begin_y + kDirectTile * p.down;
  const int64_t reach = (kDirectTile - 1) * p.down;
  int64_t end_x = begin_x + reach + p.fd.width, end_y = begin_y + reach + p.fd.height;
  if (p.write_codes && end_x < codes_end_x) end_x = codes_end_x;
  if (p.write_codes && end_y < codes_end_y) end_y = codes_end_y;
  if (end_x > p.up_width) end_x = p.up_width;
  if (end_y > p.up_height) end_y = p.up_height;

  const int64_t o_x = out_x + threadIdx.x % kDirectTile, o_y = out_y + threadIdx.x / kDirectTile;
  C sum = 0;
  for (int64_t piece_y = begin_y; piece_y < end_y; piece_y += kPieceHeight) {
    for (int64_t piece_x = begin_x; piece_x < end_x; piece_x += kPieceWidth) {
      __syncthreads();
      constexpr int kFours = kPieceWidth / kCodesPerByte;
      for (int item = threadIdx.x; item < kPieceHeight * kFours; item += kDirectThreads) {
        const int row = item / kFours, column = item % kFours * kCodesPerByte;
        const int64_t y = piece_y + row, x = piece_x + column;
        unsigned byte = p.read_codes ? four_codes(p, plane, y + p.codes_y, x + p.codes_x) : 0;
        for (int i = 0; i < kCodesPerByte; i++) {
          C v = 0;
          if (y < end_y && x + i < end_x) {
            const C u = upsampled_sample(p, x_plane, in.step, bias, y, x + i) * gain;
            unsigned code = byte >> kCodeBits * i & 3;
            if (p.read_codes) {
              v = leaky_relu.obey(u, code);
            } else {
              v = leaky_relu.decide(u, code);
              byte |= code << kCodeBits * i;
            }
          }
          piece[row][column + i] = v;
        }
        if (p.write_codes && y < codes_end_y && x < codes_end_x) {
          const int64_t row_bytes = (p.codes_width + kCodesPerByte - 1) / kCodesPerByte;
          p.write_codes[(plane * p.codes_height + y) * row_bytes + x / kCodesPerByte] = static_cast<uint8_t>(byte);
        }
      }
      __syncthreads();
      const int64_t skip_y = piece_y - o_y * p.down, skip_x = piece_x - o_x * p.down;  // taps before the piece
      for (int row = 0; row < kPieceHeight; row++) {
        const int64_t ky = skip_y + row;
        if (ky < 0 || ky >= p.fd.height) continue;
        const int64_t first = skip_x < 0 ? -skip_x : 0;
        for (int64_t column = first; column < kPieceWidth && skip_x + column < p.fd.width; column++) {
          const C v = piece[row][column];
          sum = p.fd.data ? sum + v * tap<C>(p.fd, p.flip_filter, ky, skip_x + column) : v;
        }
      }
    }
  }
  if (o_x < p.out_width && o_y < p.out_height) {
    static_cast<T*>(p.y)[out.plane + (o_y * p.out_width + o_x) * out.step] = narrow<T>(sum);
  }
}

}  // namespace ganops

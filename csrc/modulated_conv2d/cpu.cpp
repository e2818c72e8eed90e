#include "common/cpu.h"

#include "bias_act/math.h"
#include "modulated_conv2d/params.h"
#define GANOPS_KERNEL_FILE "modulated_conv2d/cpu.cpp"
#include "common/isa.h"
// Once per instruction set, too.
#include "bias_act/cpu.h"

namespace ganops::GANOPS_ISA {

constexpr int64_t kRow = 512;  // elements worked on at a time: their float copy stays in L1

// x[0..n) in C: x itself, or a copy in row.
template <class C, class T>
const C* in_compute_type(C* row, const T* x, int64_t n) {
  if constexpr (std::is_same_v<T, C>) {
    return x;
  } else {
    load_row(row, x, n);
    return row;
  }
}

// y = activation(row + b) of n elements; b is `bias` where it is null.
template <class T, class C>
void finish_row(const BiasActBlock<C>& activate, C* row, const C* b, C bias, T* y, int64_t n, bool streamed) {
  if (std::is_same_v<T, C> && !streamed) return activate(row, nullptr, b, bias, reinterpret_cast<C*>(y), n);
  activate(row, nullptr, b, bias, row, n);
  if constexpr (std::is_same_v<T, float>)
    stream_row(y, row, n);
  else
    store_row(y, row, n);
}

// Rows of one sample and channel (contiguous): scale and bias are constant, noise runs along.
template <class T>
void epilogue_of_plane(const EpilogueParams& p, const BiasActBlock<compute_t<T>>& activate, bool streamed,
                       int64_t plane) {
  using C = compute_t<T>;
  const int64_t n = plane / p.channels, channel = plane % p.channels;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  T* y = static_cast<T*>(p.y) + plane * p.pixels;
  const C scale = p.scale ? static_cast<const C*>(p.scale)[plane] : C(1);
  const C* noise = p.noise ? static_cast<const C*>(p.noise) + n * p.noise_stride : nullptr;
  const C bias = p.b ? static_cast<const C*>(p.b)[channel] : C(0);
  alignas(GANOPS_VECTOR_BYTES) C row[kRow];
  for (int64_t i = 0; i < p.pixels; i += kRow) {
    const int64_t count = std::min(kRow, p.pixels - i);
    const C* from = in_compute_type(row, x + i, count);
    if (noise)
      for (int64_t j = 0; j < count; j++) row[j] = from[j] * scale + noise[i + j];
    else
      for (int64_t j = 0; j < count; j++) row[j] = from[j] * scale;
    finish_row(activate, row, static_cast<const C*>(nullptr), bias, y + i, count, streamed);
  }
}

// How many pixels of all their channels (channels_last) are worked on at a time, and how many channels.
struct PixelRow {
  int64_t pixels, channels;

  explicit PixelRow(int64_t all_channels)
      : pixels(std::max<int64_t>(kRow / all_channels, 1)), channels(std::min(kRow, all_channels)) {}
};

// Pixels [begin, end) of one sample (channels_last): noise is constant along a pixel, scale and bias run along. b has
// the bias of as many pixels as are worked on at a time.
template <class T>
void epilogue_of_pixels(const EpilogueParams& p, const BiasActBlock<compute_t<T>>& activate, bool streamed,
                        const compute_t<T>* b, int64_t n, int64_t begin, int64_t end) {
  using C = compute_t<T>;
  const C* scale = p.scale ? static_cast<const C*>(p.scale) + n * p.channels : nullptr;
  const C* noise = p.noise ? static_cast<const C*>(p.noise) + n * p.noise_stride : nullptr;
  const PixelRow at_once(p.channels);
  alignas(GANOPS_VECTOR_BYTES) C row[kRow];
  for (int64_t pixel = begin; pixel < end; pixel += at_once.pixels) {
    const int64_t pixels = std::min(at_once.pixels, end - pixel);
    for (int64_t first = 0; first < p.channels; first += at_once.channels) {
      const int64_t channels = std::min(at_once.channels, p.channels - first), count = pixels * channels;
      const int64_t at = (n * p.pixels + pixel) * p.channels + first;
      const C* from = in_compute_type(row, static_cast<const T*>(p.x) + at, count);
      for (int64_t k = 0; k < pixels; k++) {
        const C* in = from + k * channels;
        C *out = row + k * channels, added = noise ? noise[pixel + k] : C(0);
        if (scale)
          for (int64_t j = 0; j < channels; j++) out[j] = in[j] * scale[first + j] + added;
        else
          for (int64_t j = 0; j < channels; j++) out[j] = in[j] + added;
      }
      finish_row(activate, row, b ? b + first : nullptr, C(0), static_cast<T*>(p.y) + at, count, streamed);
    }
  }
}

void epilogue(const EpilogueParams& p) {
  dispatch(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = compute_t<T>;
    constexpr int64_t kGrain = 1 << 15;  // elements that are worth a thread
    const BiasActBlock<C> activate(p.activation);
    const bool streamed = std::is_same_v<T, float> && p.y != p.x &&
                          is_streamed(p.batch * p.channels * p.pixels * static_cast<int64_t>(sizeof(T)));
    if (!p.channels_last) {
      parallel_for(p.batch * p.channels, kGrain / p.pixels + 1, [&](int64_t begin, int64_t end) {
        for (int64_t plane = begin; plane < end; plane++) epilogue_of_plane<T>(p, activate, streamed, plane);
        if (streamed) finish_streams();
      });
      return;
    }
    std::vector<C> b;
    for (int64_t i = 0; p.b && i < PixelRow(p.channels).pixels; i++)
      b.insert(b.end(), static_cast<const C*>(p.b), static_cast<const C*>(p.b) + p.channels);
    parallel_for(p.batch * p.pixels, kGrain / p.channels + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin, next; i < end; i = next) {
        const int64_t n = i / p.pixels, first = i % p.pixels;
        next = std::min(end, i - first + p.pixels);
        epilogue_of_pixels<T>(p, activate, streamed, p.b ? b.data() : nullptr, n, first, first + next - i);
      }
      if (streamed) finish_streams();
    });
  });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_epilogue_cpu(const EpilogueParams& p, void*) {
  GANOPS_BEST_ISA(epilogue)(p);
}
}  // namespace ganops
#endif

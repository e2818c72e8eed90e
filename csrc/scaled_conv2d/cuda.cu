// Convolution with scales before and after it, as an implicit matrix product, and all that follows it (tile.h says how
// the work is divided).
#include "scaled_conv2d/params.h"
// Needs the parameters' headers first.
#include "bias_act/cuda.h"
#include "scaled_conv2d/load.h"
#include "scaled_conv2d/product.h"

namespace ganops {
namespace {

using namespace scaled_conv;

// weight[out, channel, tap] becomes packed[tap, out, channel] in the type of x: a block turns a run of channels of one
// output channel.
constexpr int kPackChannels = 64, kPackThreads = 128;

template <class Element>
__global__ void __launch_bounds__(kPackThreads) pack_weights_kernel(ScaledConv2dParams p, int runs) {
  using Weight = accumulate_t<Element>;
  GANOPS_SHARED_DYNAMIC(Weight, run);
  const int64_t out = blockIdx.x / runs, taps = p.height.taps * p.width.taps, channels = p.packed_channels;
  const int64_t first = int64_t{blockIdx.x % runs} * kPackChannels;
  const int count = static_cast<int>(p.in_channels - first < kPackChannels ? p.in_channels - first : kPackChannels);
  const int padded = static_cast<int>(channels - first < kPackChannels ? channels - first : kPackChannels);
  const auto* weight = static_cast<const Weight*>(p.weight) + (out * p.in_channels + first) * taps;
  auto* packed = static_cast<Element*>(p.packed) + out * channels + first;
  for (int i = threadIdx.x; i < count * taps; i += kPackThreads) run[i] = weight[i];
  __syncthreads();
  for (int i = threadIdx.x; i < padded * taps; i += kPackThreads) {
    const int tap = i / padded, channel = i - tap * padded;
    packed[tap * p.out_channels * channels + channel] = narrow<Element>(channel < count ? run[channel * taps + tap] : 0);
  }
}

// Where everything is, in tables: the loops that follow divide by nothing.
template <class Tile>
__device__ __forceinline__ void fill_tables(const ScaledConv2dParams& p, const Tiling& t, const Block& block,
                                            const Shared<Tile>& shared) {
  const int down = static_cast<int>(p.down);
  for (int i = threadIdx.x; i < t.listed; i += kThreads) {
    const int x = i % t.cells_x, y = i / t.cells_x % t.cells_y, image = i / t.cells_x / t.cells_y;
    const int64_t input_x = block.first_column * down + block.x.first_input + x;
    const int64_t input_y = block.first_row * down + block.y.first_input + y;
    const int64_t sample = block.first_image + image;
    const bool inside = image < t.images && sample < p.samples && input_x >= 0 && input_x < p.width.in &&
                        input_y >= 0 && input_y < p.height.in;
    const int64_t in_image = input_y * p.width.in + input_x, plane = p.height.in * p.width.in;
    const int64_t offset = p.channels_last ? (sample * plane + in_image) * p.in_channels
                                           : sample * p.in_channels * plane + in_image;
    shared.cell_offset[i] = inside ? offset : -1;
    shared.cell_place[i] = image < t.images ? t.place(image, y, x, down) : -1;
    shared.cell_image[i] = image;
  }
  for (int i = threadIdx.x; i < Tile::kPixels; i += kThreads) {
    const int image = i / (t.rows * t.columns);
    const int64_t row = block.first_row + i / t.columns % t.rows, column = block.first_column + i % t.columns;
    const bool inside = image < t.images && block.first_image + image < p.samples && row < block.y.outputs &&
                        column < block.x.outputs;
    const int64_t in_image = (block.phase_y + p.up * row) * p.width.out + block.phase_x + p.up * column;
    shared.pixel[i] = inside ? in_image : -1;
    shared.pixel_image[i] = image;
  }
  for (int i = threadIdx.x; i < t.images * t.scales; i += kThreads) {
    using Sum = typename Tile::Sum;
    const int64_t sample = block.first_image + i / t.scales, channel = i % t.scales;
    Sum scale = Sum(sample < p.samples && channel < p.in_channels);
    if (p.x_scale && scale) scale = static_cast<const Sum*>(p.x_scale)[sample * p.in_channels + channel];
    shared.scales[i] = scale;
  }
  for (int i = threadIdx.x; i < block.taps(); i += kThreads) {
    const int x = i % block.x.taps, y = i / block.x.taps, up = static_cast<int>(p.up);
    shared.tap_place[i] = t.place(0, y, x, down);
    shared.tap_weight[i] = (block.y.first_tap + up * y) * static_cast<int>(p.width.taps) + block.x.first_tap + up * x;
  }
}

// Scales, noise, bias, activation; results leave in runs of kVector along pixels or, in channels_last, along channels.
template <class Tile>
__device__ __forceinline__ void finish(const ScaledConv2dParams& p, const Tiling& t, const Block& block,
                                       const Shared<Tile>& shared, int first_pixel,
                                       const ActivationConstants<typename Tile::Sum>& k) {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  constexpr int N = Tile::kVector;
  auto* y = static_cast<Element*>(p.y);
  const int64_t plane = p.height.out * p.width.out;
  const int runs = (p.channels_last ? Tile::kOut : Tile::kStagedPixels) / N;
  const int step = t.wide_stores ? 1 : runs;  // of a run: neighbouring lanes store neighbours
  for (int i = threadIdx.x; i < Tile::kStagedPixels * Tile::kOut / N; i += kThreads) {
    const int across = i / runs, first = (i - across * runs) * (t.wide_stores ? N : 1);
    const Sum* staged = shared.staged + across * (p.channels_last ? Tile::kPixelPitch : Tile::kChannelPitch) + first;
    Sum value[N], bias[N], unused[N];
    int64_t to[N];
    if (t.wide_stores) {
      constexpr int kPart = kVectorLength<Sum>;
      GANOPS_UNROLL
      for (int e = 0; e < N; e += kPart) {
        const auto part = load_vector<kPart>(staged + e);
        GANOPS_UNROLL
        for (int j = 0; j < kPart; j++) value[e + j] = part[j];
      }
    } else {
      GANOPS_UNROLL
      for (int e = 0; e < N; e++) value[e] = staged[e * step];
    }
    GANOPS_UNROLL
    for (int e = 0; e < N; e++) {
      const int along = first + e * step, pixel = first_pixel + (p.channels_last ? across : along);
      const int64_t out = block.first_out + (p.channels_last ? along : across), at = shared.pixel[pixel];
      const int64_t sample = block.first_image + shared.pixel_image[pixel];
      to[e] = bias[e] = unused[e] = 0;
      if (at < 0 || out >= p.out_channels) {
        to[e] = -1;
        continue;
      }
      to[e] = p.channels_last ? (sample * plane + at) * p.out_channels + out : (sample * p.out_channels + out) * plane + at;
      if (p.y_scale) value[e] *= static_cast<const Sum*>(p.y_scale)[sample * p.out_channels + out];
      if (p.noise) value[e] += static_cast<const Sum*>(p.noise)[sample * p.noise_stride + at];
      if (p.b) bias[e] = static_cast<const Sum*>(p.b)[out];
    }
    bias_act_array<0>(p.activation.act, value, bias, unused, k);
    if (t.wide_stores) {
      Vector<Element, N> result;
      GANOPS_UNROLL
      for (int e = 0; e < N; e++) result[e] = narrow<Element>(value[e]);
      if (to[0] >= 0) store_vector(y + to[0], result);
    } else {
      GANOPS_UNROLL
      for (int e = 0; e < N; e++)
        if (to[e] >= 0) y[to[e]] = narrow<Element>(value[e]);
    }
  }
}

// The channels of x come in rows; of each row in use, every tap is used in turn, while the next row is loaded in parts.
template <class Tile, template <class> class Product>
__global__ void __launch_bounds__(kThreads, Tile::kBlocks)
    scaled_conv2d_kernel(ScaledConv2dParams p, Tiling t, ActivationConstants<typename Tile::Sum> k) {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  GANOPS_SHARED_DYNAMIC(unsigned char, memory);
  const Shared<Tile> shared(memory, t);
  const Block block(p, t, Tile::kOut);
  fill_tables(p, t, block, shared);
  const int pixels = t.images * t.rows * t.columns;
  Product<Tile> product([&](int pixel) {
    if (pixel >= pixels) return 0;  // any cell will do
    const int image = pixel / (t.rows * t.columns), row = pixel / t.columns % t.rows;
    return image * t.image_pitch + row * t.row_pitch + pixel % t.columns;
  });
  __syncthreads();

  const int channels = static_cast<int>(p.in_channels), taps = block.taps();
  const int parts = Cells<Tile>::parts(t);
  Cells<Tile> cells;
  int ahead_tap = 0, ahead_channel = 0, ahead_stage = 0;
  const auto load_ahead = [&] {
    if (ahead_channel < channels) {
      load_weights<Tile>(shared.weights + ahead_stage * Tile::kOut * Tile::kPitch, p, block.first_out,
                         shared.tap_weight[ahead_tap], ahead_channel);
      if (++ahead_tap == taps) ahead_tap = 0, ahead_channel += Tile::kChannels;
      if (++ahead_stage == kStages) ahead_stage = 0;
    }
    cp_async_commit();
  };
  if (taps > 0) {
    for (int i = 0; i < kStages - 1; i++) load_ahead();
    for (int part = 0; part < parts; part++) {
      cells.load(p, t, shared, part, 0);
      cells.store(t, shared, part, 0, shared.x);
    }
    int stage = 0;
    Element *x = shared.x, *next_x = x + t.images * t.image_pitch * Tile::kPitch;
    for (int channel = 0; channel < channels; channel += Tile::kChannels) {
      const int next_parts = channel + Tile::kChannels < channels ? parts : 0;
      for (int tap = 0; tap < taps; tap++) {
        cp_async_wait<kStages - 2>();
        __syncthreads();
        load_ahead();
        if (tap < next_parts) cells.load(p, t, shared, tap, channel + Tile::kChannels);
        product.add(x + shared.tap_place[tap] * Tile::kPitch,
                    shared.weights + stage * Tile::kOut * Tile::kPitch, channels - channel);
        if (tap < next_parts) cells.store(t, shared, tap, channel + Tile::kChannels, next_x);
        if (++stage == kStages) stage = 0;
      }
      for (int part = taps; part < next_parts; part++) {
        cells.load(p, t, shared, part, channel + Tile::kChannels);
        cells.store(t, shared, part, channel + Tile::kChannels, next_x);
      }
      Element* const done = x;
      x = next_x;
      next_x = done;
    }
    cp_async_wait<0>();
  }

  for (int first_pixel = 0; first_pixel < Tile::kPixels; first_pixel += Tile::kStagedPixels) {
    __syncthreads();
    product.visit(first_pixel, [&](int pixel, int out, Sum sum) {
      const int at = pixel - first_pixel;
      shared.staged[p.channels_last ? at * Tile::kPixelPitch + out : out * Tile::kChannelPitch + at] = sum;
    });
    __syncthreads();
    finish(p, t, block, shared, first_pixel, k);
  }
}

template <class Element>
void pack_weights(const ScaledConv2dParams& p, void* stream, int64_t packed_bytes) {
  using Weight = accumulate_t<Element>;
  const int64_t taps = p.height.taps * p.width.taps, runs = ceil_div(p.in_channels, kPackChannels);
  const cudaError_t error = launch(pack_weights_kernel<Element>, dim3(static_cast<unsigned>(p.out_channels * runs)),
                                   dim3(kPackThreads), kPackChannels * taps * sizeof(Weight),
                                   static_cast<cudaStream_t>(stream),
                                   {Buffer::input("weight", p.weight,
                                                  p.out_channels * p.in_channels * taps * int64_t{sizeof(Weight)}),
                                    Buffer::output("packed", p.packed, packed_bytes)},
                                   p, static_cast<int>(runs));
  check_launch(error, "scaled_conv2d", p.out_channels, p.in_channels, taps);
}

template <class Tile, template <class> class Product>
void launch_tile(const ScaledConv2dParams& p, void* stream) {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  DeviceProperties device{};
  check_launch(device_properties(&device), "scaled_conv2d");
  Tiling t{};
  STD_TORCH_CHECK(make_tiling<Tile>(p, device.shared_bytes_per_block, t), "a weight of ", p.height.taps, "x",
                  p.width.taps, " taps does not fit in the ", device.shared_bytes_per_block,
                  " bytes of a block's shared memory");
  const int64_t size = sizeof(Element), sum_size = sizeof(Sum), n = p.samples, in = p.in_channels, out = p.out_channels;
  const int64_t pixels_in = p.height.in * p.width.in, pixels_out = p.height.out * p.width.out;
  const int64_t packed_bytes = p.height.taps * p.width.taps * out * p.packed_channels * size;
  pack_weights<Element>(p, stream, packed_bytes);
  const dim3 grid(t.tiles, static_cast<unsigned>(ceil_div(out, Tile::kOut)), static_cast<unsigned>(p.up * p.up));
  const cudaError_t error =
      launch(scaled_conv2d_kernel<Tile, Product>, grid, dim3(kThreads), Shared<Tile>::bytes(t),
             static_cast<cudaStream_t>(stream),
             {Buffer::input("x", p.x, n * in * pixels_in * size), Buffer::input("packed", p.packed, packed_bytes),
              Buffer::input("x_scale", p.x_scale, n * in * sum_size),
              Buffer::input("y_scale", p.y_scale, n * out * sum_size),
              Buffer::input("noise", p.noise, (p.noise_stride ? n : 1) * pixels_out * sum_size),
              Buffer::input("b", p.b, out * sum_size), Buffer::output("y", p.y, n * out * pixels_out * size)},
             p, t, ActivationConstants<Sum>(p.activation));
  check_launch(error, "scaled_conv2d", n, in, out, p.height.out, p.width.out);
}

}  // namespace

void launch_scaled_conv2d_cuda(const ScaledConv2dParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2) {
      if (p.out_channels > 64) return launch_tile<Tile<T, 128, 128, 2>, MmaProduct>(p, stream);
      if (p.out_channels > 32) return launch_tile<Tile<T, 128, 64, 2>, MmaProduct>(p, stream);
      return launch_tile<Tile<T, 256, 32, 2>, MmaProduct>(p, stream);
    } else if constexpr (sizeof(T) == 4) {
      if (p.out_channels > 32) return launch_tile<Tile<T, 128, 128, 1>, FmaProduct>(p, stream);
      return launch_tile<Tile<T, 128, 32, 2>, FmaProduct>(p, stream);
    } else {
      return launch_tile<Tile<T, 128, 32, 1>, FmaProduct>(p, stream);
    }
  });
}

}  // namespace ganops

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
    packed[tap * p.out_channels * channels + channel] =
        narrow<Element>(channel < count ? run[channel * taps + tap] : 0);
  }
}

// Where everything is, in tables: the loops that follow divide by nothing.
template <class Tile>
__device__ __forceinline__ void fill_tables(const ScaledConv2dParams& p, const Tiling& t, const Block& block,
                                            const Shared<Tile>& shared) {
  using Sum = typename Tile::Sum;
  const int down = static_cast<int>(p.down);
  for (int i = threadIdx.x; i < t.listed; i += kThreads) {
    const int x = i % t.cells_x, y = i / t.cells_x % t.cells_y, image = i / t.cells_x / t.cells_y;
    const int64_t input_x = block.first_column * down + block.x.first_input + x;
    const int64_t input_y = block.first_row * down + block.y.first_input + y;
    const int64_t sample = block.first_image + image;
    const bool inside = image < t.images && sample < p.samples && input_x >= 0 && input_x < p.width.in &&
                        input_y >= 0 && input_y < p.height.in;
    const int64_t at = input_y * p.width.in + input_x, plane = p.height.in * p.width.in;
    const int64_t offset = sample * p.in_channels * plane + at * (p.channels_last ? p.in_channels : 1);
    shared.cell_place[i] = image < t.images ? t.place(image, y, x, down) : -1;
    if (t.reading == Reading::rows) continue;
    shared.offset[i] = inside ? offset : -1;
    shared.image[i] = image;
  }
  for (int i = threadIdx.x; i < t.vectors; i += kThreads) {
    const int row = i / t.vectors_x, y = row % t.cells_y, image = row / t.cells_y;
    const int64_t first_x = block.first_column * down + block.x.first_input;
    const int64_t input_x = (first_x & -int64_t{Tile::kSector}) + i % t.vectors_x * Tile::kVector;
    const int64_t input_y = block.first_row * down + block.y.first_input + y;
    const int64_t sample = block.first_image + image;
    const int x = static_cast<int>(input_x - first_x);  // of the row's cells
    const bool inside = x + Tile::kVector > 0 && x < t.cells_x && sample < p.samples && input_x >= 0 &&
                        input_x < p.width.in && input_y >= 0 && input_y < p.height.in;
    const int64_t offset = (sample * p.in_channels * p.height.in + input_y) * p.width.in + input_x;
    shared.offset[i] = inside ? offset : -1;
    shared.image[i] = image;
    shared.vector_x[i] = x;
    shared.vector_cell[i] = row * t.cells_x + x;
  }
  for (int i = threadIdx.x; i < Tile::kPixels; i += kThreads) {
    const int image = i / t.image_pixels, in_image = i % t.image_pixels;
    const int64_t row = block.first_row + in_image / t.columns, column = block.first_column + in_image % t.columns;
    const int64_t sample = block.first_image + image;
    const int64_t at = (block.phase_y + p.up * row) * p.width.out + block.phase_x + p.up * column;
    const bool inside = image < t.images && in_image < t.rows * t.columns && sample < p.samples &&
                        row < block.y.outputs && column < block.x.outputs;
    shared.pixel[i] = inside ? at : -1;
    shared.pixel_image[i] = image < t.images ? image : 0;
    shared.noise[i] = p.noise && inside ? static_cast<const Sum*>(p.noise)[sample * p.noise_stride + at] : Sum(0);
  }
  // A scale per sample and channel, 1 where there is none.
  const auto fill_scales = [&](Sum* to, int length, const void* from, int64_t first, int64_t channels) {
    for (int i = threadIdx.x; i < t.images * length; i += kThreads) {
      const int64_t sample = block.first_image + i / length, channel = first + i % length;
      const bool inside = sample < p.samples && channel < channels;
      to[i] = from && inside ? static_cast<const Sum*>(from)[sample * channels + channel] : Sum(1);
    }
  };
  fill_scales(shared.scales, t.scales, p.x_scale, 0, p.in_channels);
  fill_scales(shared.y_scales, Tile::kOut, p.y_scale, block.first_out, p.out_channels);
  for (int i = threadIdx.x; i < Tile::kOut; i += kThreads) {
    const bool inside = p.b && block.first_out + i < p.out_channels;
    shared.bias[i] = inside ? static_cast<const Sum*>(p.b)[block.first_out + i] : Sum(0);
  }
  for (int i = threadIdx.x; i < block.taps(); i += kThreads) {
    const int x = i % block.x.taps, y = i / block.x.taps, up = static_cast<int>(p.up);
    shared.tap_place[i] = t.place(0, y, x, down);
    shared.tap_weight[i] = (block.y.first_tap + up * y) * static_cast<int>(p.width.taps) + block.x.first_tap + up * x;
  }
}

// N values from `from` on, or N times the first.
template <int N, class Sum>
__device__ __forceinline__ void load_run(Sum (&run)[N], const Sum* from, bool runs) {
  constexpr int kPart = kVectorLength<Sum>;
  GANOPS_UNROLL
  for (int first = 0; first < N; first += kPart) {
    Vector<Sum, kPart> part;
    if (runs) {
      part = load_vector<kPart>(from + first);
    } else {
      GANOPS_UNROLL
      for (int i = 0; i < kPart; i++) part[i] = *from;
    }
    GANOPS_UNROLL
    for (int i = 0; i < kPart; i++) run[first + i] = part[i];
  }
}

// Scales, noise, bias, activation of the staged pixels from first_pixel on. A thread takes runs of kVector results:
// along the fastest dimension of y, to store each run at once; or across it, where y is not aligned to that, so that
// neighbouring threads store neighbours.
template <class Tile>
__device__ __forceinline__ void finish(const ScaledConv2dParams& p, const Tiling& t, const Block& block,
                                       const Shared<Tile>& shared, int first_pixel,
                                       const ActivationConstants<typename Tile::Sum>& k) {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  constexpr int N = Tile::kVector;
  const bool last = p.channels_last, wide = t.wide_stores, of_pixels = wide != last;
  const int pitch = last ? Tile::kPixelPitch : Tile::kChannelPitch;
  const int length = last ? Tile::kOut : Tile::kStagedPixels, starts = wide ? length / N : length;
  const int64_t plane = p.height.out * p.width.out;
  for (int i = threadIdx.x; i < Tile::kStagedPixels * Tile::kOut / N; i += kThreads) {
    const int row = i / starts, across = wide ? row : row * N, along = (i - row * starts) * (wide ? N : 1);
    const int pixel = first_pixel + (last ? across : along), channel = last ? along : across;
    const int image = shared.pixel_image[pixel];
    Sum value[N], scale[N], noise[N], bias[N], unused[N] = {};
    const Sum* staged = shared.staged + across * pitch + along;
    if (wide) {
      load_run(value, staged, true);
    } else {
      GANOPS_UNROLL
      for (int e = 0; e < N; e++) value[e] = staged[e * pitch];
    }
    load_run(scale, shared.y_scales + image * Tile::kOut + channel, !of_pixels);
    load_run(noise, shared.noise + pixel, of_pixels);
    load_run(bias, shared.bias + channel, !of_pixels);
    GANOPS_UNROLL
    for (int e = 0; e < N; e++) value[e] = value[e] * scale[e] + noise[e];
    bias_act_array<0>(p.activation.act, value, bias, unused, k);

    Vector<Element, N> result;
    GANOPS_UNROLL
    for (int e = 0; e < N; e++) result[e] = narrow<Element>(value[e]);
    const int64_t out = block.first_out + channel;
    auto* y = static_cast<Element*>(p.y) + (block.first_image + image) * p.out_channels * plane;
    y += last ? out : out * plane;
    if (wide) {
      const int64_t at = shared.pixel[pixel] * (last ? p.out_channels : 1);
      if (at >= 0 && out < p.out_channels) store_vector(y + at, result);
    } else {
      GANOPS_UNROLL
      for (int e = 0; e < N; e++) {
        const int64_t at = last ? shared.pixel[pixel + e] * p.out_channels : shared.pixel[pixel] + e * plane;
        const bool inside = shared.pixel[last ? pixel + e : pixel] >= 0 && out + (last ? 0 : e) < p.out_channels;
        if (inside) y[at] = result[e];
      }
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
  Product<Tile> product([&](int pixel) {
    // What is no pixel takes the place of the one before: lanes that read the same do not conflict.
    const int image = min(pixel / t.image_pixels, t.images - 1);
    const int in_image = min(pixel - image * t.image_pixels, t.rows * t.columns - 1);
    return image * t.image_pitch + in_image / t.columns * t.row_pitch + in_image % t.columns;
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
        product.add(x + shared.tap_place[tap] * Tile::kPitch, shared.weights + stage * Tile::kOut * Tile::kPitch,
                    channels - channel);
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
  const cudaError_t error =
      launch(pack_weights_kernel<Element>, dim3(static_cast<unsigned>(p.out_channels * runs)), dim3(kPackThreads),
             kPackChannels * taps * sizeof(Weight), static_cast<cudaStream_t>(stream),
             {Buffer::input("weight", p.weight, p.out_channels * p.in_channels * taps * int64_t{sizeof(Weight)}),
              Buffer::output("packed", p.packed, packed_bytes)},
             p, static_cast<int>(runs));
  check_launch(error, "scaled_conv2d", p.out_channels, p.in_channels, taps);
}

template <class Tile, template <class> class Product>
void launch_tile(const ScaledConv2dParams& p, const DeviceProperties& device, void* stream) {
  using Element = typename Tile::Element;
  using Sum = typename Tile::Sum;
  Tiling t{};
  STD_TORCH_CHECK(make_tiling<Tile>(p, device.shared_bytes_per_block, t), "a weight of ", p.height.taps, "x",
                  p.width.taps, " taps does not fit in the ", device.shared_bytes_per_block,
                  " bytes of a block's shared memory");
  const int64_t size = sizeof(Element), sum_size = sizeof(Sum), n = p.samples, in = p.in_channels, out = p.out_channels;
  const int64_t pixels_in = p.height.in * p.width.in, pixels_out = p.height.out * p.width.out;
  const int64_t packed_bytes = p.height.taps * p.width.taps * out * p.packed_channels * size;
  pack_weights<Element>(p, stream, packed_bytes);
  const dim3 grid(t.order.blocks());
  const cudaError_t error = launch(
      scaled_conv2d_kernel<Tile, Product>, grid, dim3(kThreads), Shared<Tile>::bytes(t),
      static_cast<cudaStream_t>(stream),
      {Buffer::input("x", p.x, n * in * pixels_in * size), Buffer::input("packed", p.packed, packed_bytes),
       Buffer::input("x_scale", p.x_scale, n * in * sum_size), Buffer::input("y_scale", p.y_scale, n * out * sum_size),
       Buffer::input("noise", p.noise, (p.noise_stride ? n : 1) * pixels_out * sum_size),
       Buffer::input("b", p.b, out * sum_size), Buffer::output("y", p.y, n * out * pixels_out * size)},
      p, t, ActivationConstants<Sum>(p.activation));
  check_launch(error, "scaled_conv2d", n, in, out, p.height.out, p.width.out);
}

// Output channels, each of 128 pixels, that the busiest multiprocessor makes with kOut of them in a block.
template <int kOut>
int64_t work_of_one(const ScaledConv2dParams& p, const DeviceProperties& device) {
  const int64_t tiles = ceil_div(p.samples * p.height.out * p.width.out, 128);
  return ceil_div(tiles * ceil_div(p.out_channels, kOut), device.multiprocessors) * kOut;
}

bool is_pointwise(const ScaledConv2dParams& p) {
  const auto alone = [](const ScaledConv2dAxis& axis) {
    return axis.taps == 1 && axis.padding == 0 && axis.out == axis.in;
  };
  return p.up == 1 && p.down == 1 && alone(p.width) && alone(p.height);
}

}  // namespace

void launch_scaled_conv2d_cuda(const ScaledConv2dParams& any, void* stream) {
  ScaledConv2dParams p = any;
  if (is_pointwise(p)) {
    // An image is one long row: its rows need not be aligned.
    p.width.in = p.width.out = p.height.in * p.width.in;
    p.height.in = p.height.out = 1;
  }
  DeviceProperties device{};
  check_launch(device_properties(&device), "scaled_conv2d");
  dispatch_device(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2) {
      // Of two equally fast tiles the wider one reads x less often.
      const bool wide = work_of_one<128>(p, device) <= work_of_one<64>(p, device);
      if (p.out_channels > 64 && wide) return launch_tile<Tile<T, 128, 128, 2>, MmaProduct>(p, device, stream);
      if (p.out_channels > 32) return launch_tile<Tile<T, 128, 64, 2>, MmaProduct>(p, device, stream);
      return launch_tile<Tile<T, 256, 32, 2>, MmaProduct>(p, device, stream);
    } else if constexpr (sizeof(T) == 4) {
      if (p.out_channels > 32) return launch_tile<Tile<T, 128, 128, 1>, FmaProduct>(p, device, stream);
      return launch_tile<Tile<T, 128, 32, 2>, FmaProduct>(p, device, stream);
    } else {
      return launch_tile<Tile<T, 128, 32, 1>, FmaProduct>(p, device, stream);
    }
  });
}

}  // namespace ganops

#include "upfirdn2d/cuda.h"

namespace ganops {
namespace {

using namespace upfirdn;

// Any factors, any filter: a thread sums one output.
template <class T>
__global__ void __launch_bounds__(kThreads) generic_kernel(Upfirdn2dParams p) {
  using C = accumulate_t<T>;
  const int64_t inner = p.channels_last ? p.channels : 1, outer = p.samples * p.channels / inner;
  const int64_t element = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t channel = element % inner, column = element / inner % p.width.out;
  const int64_t row = element / inner / p.width.out % p.height.out,
                image = element / inner / p.width.out / p.height.out;
  if (image >= outer) return;

  const T* x = static_cast<const T*>(p.x) + image * p.height.in * p.width.in * inner + channel;
  const C* f = static_cast<const C*>(p.f);
  const Phase across = phase_at(p.width, column), down = phase_at(p.height, row);
  C sum = 0;
  for (int64_t i = 0; i < down.count; i++) {
    const int64_t y_in = down.first_input + i;
    if (y_in < 0 || y_in >= p.height.in) continue;
    const int64_t tap_in_order = down.first_tap + i * p.height.up;
    const int64_t tap_y = p.flip_filter ? tap_in_order : p.height.taps - 1 - tap_in_order;
    C row_sum = 0;
    for (int64_t j = 0; j < across.count; j++) {
      const int64_t x_in = across.first_input + j;
      if (x_in < 0 || x_in >= p.width.in) continue;
      const int64_t tap = across.first_tap + j * p.width.up;
      const int64_t tap_x = p.flip_filter ? tap : p.width.taps - 1 - tap;
      const C weight = !f ? C(1) : f[p.separable ? tap_x : tap_y * p.width.taps + tap_x];
      row_sum += weight * widen(x[(y_in * p.width.in + x_in) * inner]);
    }
    sum += (p.separable ? f[tap_y] : C(1)) * row_sum;
  }
  static_cast<T*>(p.y)[element] = narrow<T>(static_cast<C>(p.gain) * sum);
}

// A tile in shared memory, and how the coordinates of its inputs and outputs become those of the boxes copied.
template <class T>
struct Tile {
  T *in, *out;
  Box<const T> box_in;
  Box<T> box_out;
  int images, channels;
  int width;                // elements of a row of outputs
  int phase;                // the tap that meets the first input column at the first output column
  int x_in, y_in, y_out;    // the first input column, input row and output row, counted in the box
  int columns_in, rows_in;  // of the box
  int rows_out;
};

// The inputs that meet an output column: tap first_tap + i * up meets column first + i of the tile.
template <class F>
struct Column {
  int first, first_tap;
  __device__ __forceinline__ Column(int column, int phase) {
    const int start = column * F::down - phase;
    first = static_cast<int>(static_cast<unsigned>(start + F::up - 1) / F::up);
    first_tap = first * F::up - start;
  }
};

// phase_at, with factors known to the compiler.
template <class F>
__device__ __forceinline__ Phase phase_of(const Upfirdn2dAxis& axis, int64_t out) {
  return phase_at({axis.in, axis.out, F::up, F::down, axis.padding, F::taps}, out);
}

template <class T, class F>
__device__ __forceinline__ Tile<T> make_tile(const Upfirdn2dParams& p, const Tiling& t, T* memory) {
  const int64_t inner = p.channels_last ? p.channels : 1;
  unsigned index = blockIdx.x;
  const int64_t channel = static_cast<int64_t>(index % t.tiles_c) * t.channels;
  index /= t.tiles_c;
  const int64_t x = static_cast<int64_t>(index % t.tiles_x) * t.columns;
  index /= t.tiles_x;
  const int64_t y = static_cast<int64_t>(index % t.tiles_y) * t.rows - t.before;
  const int64_t image = static_cast<int64_t>(index / t.tiles_y) * t.images;
  const auto clamp = [](int64_t a, int64_t low, int64_t high) { return a < low ? low : a > high ? high : a; };

  Tile<T> tile;
  tile.in = memory;
  tile.out = memory + t.elements_in;
  tile.images = static_cast<int>(clamp(t.all_images - image, 0, t.images));
  tile.channels = static_cast<int>(clamp(inner - channel, 0, t.channels));
  const Phase across = phase_of<F>(p.width, x), down = phase_of<F>(p.height, y);
  const int64_t x_end = clamp(x + t.columns, 0, p.width.out);
  const int64_t y_first = clamp(y, 0, p.height.out), y_end = clamp(y + t.rows, 0, p.height.out);
  const int64_t x_in = clamp(across.first_input, 0, p.width.in);
  const int64_t x_in_end = clamp(across.first_input + t.columns_in, 0, p.width.in);
  const bool all_rows = t.images > 1;
  const int64_t y_in = all_rows ? 0 : clamp(down.first_input, 0, p.height.in);
  const int64_t y_in_end = all_rows ? p.height.in : clamp(down.first_input + t.rows_in, 0, p.height.in);
  tile.width = static_cast<int>(x_end - x) * tile.channels;
  tile.phase = static_cast<int>(across.first_tap);
  tile.x_in = static_cast<int>(across.first_input - x_in);
  tile.y_in = static_cast<int>(down.first_input - y_in);
  tile.y_out = static_cast<int>(y - y_first);
  tile.columns_in = static_cast<int>(x_in_end - x_in);
  tile.rows_in = static_cast<int>(y_in_end - y_in);
  tile.rows_out = static_cast<int>(y_end - y_first);
  tile.box_in = make_box<const T>({static_cast<const T*>(p.x), p.height.in, p.width.in, inner}, image, tile.images,
                                  y_in, y_in_end, x_in, x_in_end, channel, tile.channels, t.pitch_in);
  tile.box_out = make_box<T>({static_cast<T*>(p.y), p.height.out, p.width.out, inner}, image, tile.images, y_first,
                             y_end, x, x_end, channel, tile.channels, t.pitch_out);
  return tile;
}

// Taps in the order of the samples they meet. The product of a separable filter, where its kernel wants a full one.
template <class F, class C>
__device__ __forceinline__ void load_taps(C* taps, const Upfirdn2dParams& p) {
  const C* f = static_cast<const C*>(p.f);
  for (int i = threadIdx.x; i < F::tap_count; i += kThreads) {
    const int tap = p.flip_filter ? i : F::tap_count - 1 - i;
    taps[i] = F::separable || !p.separable ? f[tap] : f[tap / F::taps] * f[tap % F::taps];
  }
}

// Neighbouring inputs in a row; zeros outside the image. Unrolled by recursion, for each read to be an instruction.
template <bool checked, int i = 0, int N, class C, class T>
__device__ __forceinline__ void read_row(C (&values)[N], const T* row, int stride, const bool (&inside)[N]) {
  values[i] = !checked || inside[i] ? widen(row[i * stride]) : C(0);
  if constexpr (i + 1 < N) read_row<checked, i + 1>(values, row, stride, inside);
}

// A run of outputs of a column from its window, whose first row is y. Unless `checked`, all of the window lies inside.
template <class F, bool checked, int N, class C, class T>
__device__ __forceinline__ void filter_run(C (&sum)[F::run], const C (&weights)[F::taps][N], const T* window, int pitch,
                                           int stride, const bool (&inside)[N], int y, int rows) {
  GANOPS_UNROLL
  for (int k = 0; k < F::window; k++) {
    if (checked && static_cast<unsigned>(y + k) >= static_cast<unsigned>(rows)) continue;
    C values[N];
    read_row<checked>(values, window + k * pitch, stride, inside);
    GANOPS_UNROLL
    for (int j = 0; j < F::run; j++) {
      const int tap = k * F::up - j * F::down;
      if (tap < 0 || tap >= F::taps) continue;
      GANOPS_UNROLL
      for (int i = 0; i < N; i++) sum[j] += weights[tap][i] * values[i];
    }
  }
}

template <class F, int N, class C, class T>
__device__ __forceinline__ void filter_run(C (&sum)[F::run], const C (&weights)[F::taps][N], const T* window, int pitch,
                                           int stride, const bool (&inside)[N], int y, int rows, bool columns_inside) {
  if (columns_inside && y >= 0 && y + F::window <= rows) {
    filter_run<F, false>(sum, weights, window, pitch, stride, inside, y, rows);
  } else {
    filter_run<F, true>(sum, weights, window, pitch, stride, inside, y, rows);
  }
}

// The taps of one phase of a full filter, times gain.
template <class F, class C>
__device__ __forceinline__ void read_taps(C (&weights)[F::taps][F::reach], const C* taps, int first_tap, C gain) {
  GANOPS_UNROLL
  for (int k = 0; k < F::taps; k++) {
    GANOPS_UNROLL
    for (int i = 0; i < F::reach; i++) weights[k][i] = taps[k * F::taps + first_tap + i * F::up] * gain;
  }
}

// Runs of outputs straight from the inputs.
template <class T, class F, class C>
__device__ __forceinline__ void filter_full(const Tile<T>& tile, const Tiling& t, const C* taps, C gain) {
  const int lane = threadIdx.x % t.lanes, group = threadIdx.x / t.lanes, groups = kThreads / t.lanes;
  const int runs = t.rows / F::run, channels = tile.channels;
  C weights[F::taps][F::reach];
  if constexpr (F::up == 1) read_taps<F>(weights, taps, 0, gain);
  for (int q = lane; q < tile.width; q += t.lanes) {
    const int x = channels == 1 ? q : q / channels, channel = q - x * channels;
    const Column<F> column(x, tile.phase);
    if constexpr (F::up > 1) read_taps<F>(weights, taps, column.first_tap, gain);
    bool inside[F::reach];
    GANOPS_UNROLL
    for (int i = 0; i < F::reach; i++) {
      inside[i] = static_cast<unsigned>(tile.x_in + column.first + i) < static_cast<unsigned>(tile.columns_in);
    }
    // Most warps meet no border, and need not look at it.
    const int q_first = q - q % kLanes, q_last = min(q_first + kLanes, tile.width) - 1;
    const int x_first = channels == 1 ? q_first : q_first / channels,
              x_last = channels == 1 ? q_last : q_last / channels;
    const bool columns_inside = tile.x_in + Column<F>(x_first, tile.phase).first >= 0 &&
                                tile.x_in + Column<F>(x_last, tile.phase).first + F::reach <= tile.columns_in;
    const T* in = tile.in + tile.box_in.at(0) + (tile.x_in + column.first) * channels + channel;
    for (int slot = group; slot < runs * tile.images; slot += groups) {
      const int image = tile.images == 1 ? 0 : slot / runs, run = slot - image * runs;
      const int y_first = tile.y_in + run * (F::run * F::down / F::up);
      const T* window = in + (image * tile.rows_in + y_first) * tile.box_in.pitch;
      C sum[F::run] = {};
      filter_run<F>(sum, weights, window, tile.box_in.pitch, channels, inside, y_first, tile.rows_in, columns_inside);
      GANOPS_UNROLL
      for (int j = 0; j < F::run; j++) {
        const int y = tile.y_out + run * F::run + j;
        if (static_cast<unsigned>(y) >= static_cast<unsigned>(tile.rows_out)) continue;
        tile.out[tile.box_out.at(image * tile.rows_out + y) + q] = narrow<T>(sum[j]);
      }
    }
  }
}

// Columns are filtered first, into `middle` [images * rows, down, pitch_middle, channels]: phases of down are kept
// apart.
template <class T, class F, class C>
__device__ __forceinline__ void filter_columns(const Tile<T>& tile, const Tiling& t, const C* taps, C* middle) {
  const int lane = threadIdx.x % t.lanes, group = threadIdx.x / t.lanes, groups = kThreads / t.lanes;
  const int runs = t.rows / F::run, channels = tile.channels;
  C weights[F::taps][1];
  GANOPS_UNROLL
  for (int k = 0; k < F::taps; k++) weights[k][0] = taps[k];
  for (int q = lane; q < t.columns_in * channels; q += t.lanes) {
    const int x = channels == 1 ? q : q / channels, channel = q - x * channels;
    const bool inside[1] = {static_cast<unsigned>(tile.x_in + x) < static_cast<unsigned>(tile.columns_in)};
    const T* in = tile.in + tile.box_in.at(0) + (tile.x_in + x) * channels + channel;
    C* to = middle + (x % F::down * t.pitch_middle + x / F::down) * channels + channel;
    for (int slot = group; slot < runs * tile.images; slot += groups) {
      const int image = tile.images == 1 ? 0 : slot / runs, run = slot - image * runs;
      const int y_first = tile.y_in + run * (F::run * F::down / F::up);
      const T* window = in + (image * tile.rows_in + y_first) * tile.box_in.pitch;
      C sum[F::run] = {};
      if (inside[0]) {
        filter_run<F>(sum, weights, window, tile.box_in.pitch, channels, inside, y_first, tile.rows_in, true);
      }
      GANOPS_UNROLL
      for (int j = 0; j < F::run; j++) to[(slot * F::run + j) * F::down * t.pitch_middle * channels] = sum[j];
    }
  }
}

// Outputs from their rows in `middle`.
template <class T, class F, class C>
__device__ __forceinline__ void filter_rows(const Tile<T>& tile, const Tiling& t, const C* taps, C gain,
                                            const C* middle) {
  const int lane = threadIdx.x % t.lanes, group = threadIdx.x / t.lanes, groups = kThreads / t.lanes;
  const int channels = tile.channels;
  for (int q = lane; q < tile.width; q += t.lanes) {
    const int x = channels == 1 ? q : q / channels, channel = q - x * channels;
    const Column<F> column(x, tile.phase);
    C weights[F::reach];
    GANOPS_UNROLL
    for (int i = 0; i < F::reach; i++) weights[i] = taps[column.first_tap + i * F::up] * gain;
    const C* from = middle + column.first / F::down * channels + channel;
    for (int slot = group; slot < tile.rows_out * tile.images; slot += groups) {
      const int image = tile.images == 1 ? 0 : slot / tile.rows_out;
      const int row = slot + image * (t.rows - tile.rows_out) - tile.y_out;
      C sum = 0;
      GANOPS_UNROLL
      for (int i = 0; i < F::reach; i++) {
        sum += weights[i] * from[((row * F::down + i % F::down) * t.pitch_middle + i / F::down) * channels];
      }
      tile.out[tile.box_out.at(slot) + q] = narrow<T>(sum);
    }
  }
}

// A block makes a tile of outputs in shared memory.
template <class T, class F>
__global__ void __launch_bounds__(kThreads, kBlocks) tiled_kernel(Upfirdn2dParams p, Tiling t) {
  using C = accumulate_t<T>;
  GANOPS_SHARED(C, taps, [F::tap_count]);
  GANOPS_SHARED_DYNAMIC(T, memory);
  const Tile<T> tile = make_tile<T, F>(p, t, memory);
  const T *x = static_cast<const T*>(p.x), *x_end = x + p.samples * p.channels * p.height.in * p.width.in;
  load_box(tile.in, tile.box_in, x, x_end);
  cp_async_commit();
  load_taps<F>(taps, p);
  cp_async_wait<0>();
  __syncthreads();
  if constexpr (F::separable) {
    C* middle = reinterpret_cast<C*>(tile.out + t.elements_out);
    filter_columns<T, F>(tile, t, taps, middle);
    __syncthreads();
    filter_rows<T, F>(tile, t, taps, static_cast<C>(p.gain), middle);
  } else {
    filter_full<T, F>(tile, t, taps, static_cast<C>(p.gain));
  }
  __syncthreads();
  store_box(tile.out, tile.box_out);
}

template <class T, class... Parameters, class... Arguments>
void launch_over_images(void (*kernel)(Parameters...), const Upfirdn2dParams& p, int64_t blocks, int64_t shared_bytes,
                        void* stream, const Arguments&... arguments) {
  const int64_t image_bytes = p.samples * p.channels * static_cast<int64_t>(sizeof(T));
  const int64_t taps = p.separable ? p.width.taps : p.width.taps * p.height.taps;
  const cudaError_t error = launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared_bytes,
                                   static_cast<cudaStream_t>(stream),
                                   {Buffer::input("x", p.x, image_bytes * p.height.in * p.width.in),
                                    Buffer::input("f", p.f, taps * static_cast<int64_t>(sizeof(accumulate_t<T>))),
                                    Buffer::output("y", p.y, image_bytes * p.height.out * p.width.out)},
                                   p, arguments...);
  check_launch(error, "upfirdn2d", p.samples, p.channels, p.height.in, p.width.in, p.height.out, p.width.out);
}

template <class F>
bool is_for(const Upfirdn2dAxis& axis) {
  return axis.up == F::up && axis.down == F::down && axis.taps == F::taps;
}

template <class T, class F>
bool launch_tiled(const Upfirdn2dParams& p, void* stream) {
  Tiling t;
  const bool fits = p.f && is_for<F>(p.width) && is_for<F>(p.height) && (p.separable || !F::separable);
  if (!fits || !make_tiling<T, F>(p, t)) return false;
  launch_over_images<T>(tiled_kernel<T, F>, p, t.tiles, t.shared_bytes, stream, t);
  return true;
}

template <class T, class... F>
bool launch_first_tiled(Firs<F...>, const Upfirdn2dParams& p, void* stream) {
  return (launch_tiled<T, F>(p, stream) || ...);
}

template <class T>
void launch_upfirdn2d(const Upfirdn2dParams& p, void* stream) {
  if constexpr (!std::is_same_v<T, double>) {
    if (launch_first_tiled<T>(TiledFirs{}, p, stream)) return;
  }
  const int64_t outputs = p.samples * p.channels * p.height.out * p.width.out;
  launch_over_images<T>(generic_kernel<T>, p, ceil_div(outputs, kThreads), 0, stream);
}

}  // namespace

void launch_upfirdn2d_cuda(const Upfirdn2dParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) { launch_upfirdn2d<typename decltype(tag)::type>(p, stream); });
}

}  // namespace ganops

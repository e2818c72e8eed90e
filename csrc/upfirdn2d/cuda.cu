#include "common/cuda.h"
#include "upfirdn2d/math.h"

namespace ganops {
namespace {

constexpr int kThreads = 128;

template <class T>
cudaError_t launch_over_images(void (*kernel)(Upfirdn2dParams), const Upfirdn2dParams& p, int64_t blocks,
                               void* stream) {
  const int64_t images = p.samples * p.channels * static_cast<int64_t>(sizeof(T));
  const int64_t taps = p.separable ? p.width.taps : p.width.taps * p.height.taps;
  return launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, static_cast<cudaStream_t>(stream),
                {Buffer::input("x", p.x, images * p.height.in * p.width.in),
                 Buffer::input("f", p.f, taps * static_cast<int64_t>(sizeof(accumulate_t<T>))),
                 Buffer::output("y", p.y, images * p.height.out * p.width.out)},
                p);
}

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

template <class T>
void launch_generic(const Upfirdn2dParams& p, void* stream) {
  const int64_t outputs = p.samples * p.channels * p.height.out * p.width.out;
  const cudaError_t error = launch_over_images<T>(generic_kernel<T>, p, ceil_div(outputs, kThreads), stream);
  check_launch(error, "upfirdn2d", p.samples, p.channels, p.height.in, p.width.in, p.height.out, p.width.out);
}

}  // namespace

void launch_upfirdn2d_cuda(const Upfirdn2dParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) { launch_generic<typename decltype(tag)::type>(p, stream); });
}

}  // namespace ganops

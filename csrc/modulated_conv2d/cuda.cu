#include "modulated_conv2d/params.h"
// Needs the parameters' headers first.
#include "bias_act/cuda.h"
#include "common/cuda.h"

namespace ganops {
namespace {

constexpr int kThreads = 256;

// A thread works on N consecutive elements: one 16-byte access where memory is aligned to that (N > 1).
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    epilogue_kernel(EpilogueParams p, ActivationConstants<accumulate_t<T>> k, int64_t elements) {
  using C = accumulate_t<T>;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (first >= elements) return;
  const int64_t left = elements - first;
  const Vector<T, N> x_in = load_first<N>(static_cast<const T*>(p.x) + first, left);

  // (n, outer, inner) is (n, channel, pixel), or (n, pixel, channel) if channels_last.
  const int64_t inner_size = p.channels_last ? p.channels : p.pixels;
  const int64_t outer_size = p.channels_last ? p.pixels : p.channels;
  int64_t inner = first % inner_size, outer = first / inner_size % outer_size, n = first / (inner_size * outer_size);
  C value[N], bias[N], unused[N];
  GANOPS_UNROLL
  for (int i = 0; i < N; i++) {
    const bool inside = i < left;
    const int64_t channel = p.channels_last ? inner : outer, pixel = p.channels_last ? outer : inner;
    value[i] = widen(x_in[i]);
    bias[i] = unused[i] = C(0);
    if (p.scale && inside) value[i] *= static_cast<const C*>(p.scale)[n * p.channels + channel];
    if (p.noise && inside) value[i] += static_cast<const C*>(p.noise)[n * p.noise_stride + pixel];
    if (p.b && inside) bias[i] = static_cast<const C*>(p.b)[channel];
    if (++inner == inner_size) {
      inner = 0;
      if (++outer == outer_size) outer = 0, n++;
    }
  }
  bias_act_array<0>(p.activation.act, value, bias, unused, k);
  store_first(static_cast<T*>(p.y) + first, value, left);
}

template <class T, int N>
void launch_epilogue(const EpilogueParams& p, void* stream) {
  using C = accumulate_t<T>;
  const int64_t elements = p.batch * p.channels * p.pixels, bytes = elements * static_cast<int64_t>(sizeof(T));
  const auto blocks = static_cast<unsigned>(ceil_div(elements, static_cast<int64_t>(N) * kThreads));
  const int64_t c_bytes = sizeof(C), noise_samples = p.noise_stride ? p.batch : 1;
  const cudaError_t error =
      launch(epilogue_kernel<T, N>, dim3(blocks), dim3(kThreads), 0, static_cast<cudaStream_t>(stream),
             {Buffer::input("x", p.x, bytes), Buffer::input("scale", p.scale, p.batch * p.channels * c_bytes),
              Buffer::input("noise", p.noise, noise_samples * p.pixels * c_bytes),
              Buffer::input("b", p.b, p.channels * c_bytes), Buffer::output("y", p.y, bytes)},
             p, ActivationConstants<C>(p.activation), elements);
  check_launch(error, "modulated_conv2d_epilogue", p.batch, p.channels, p.pixels);
}

}  // namespace

void launch_epilogue_cuda(const EpilogueParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool aligned = is_aligned(p.x, 16) && is_aligned(p.y, 16);
    aligned ? launch_epilogue<T, kVectorLength<T>>(p, stream) : launch_epilogue<T, 1>(p, stream);
  });
}

}  // namespace ganops

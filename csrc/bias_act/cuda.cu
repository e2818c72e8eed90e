#include "bias_act/params.h"
// Needs the parameters' headers first.
#include "bias_act/cuda.h"
#include "common/cuda.h"

namespace ganops {
namespace {

constexpr int kThreads = 256;

// A thread works on N consecutive elements: one 16-byte access where memory is aligned to that (N > 1).
template <class T, int order, int N>
__global__ void __launch_bounds__(kThreads)
    bias_act_kernel(BiasActParams p, ActivationConstants<accumulate_t<T>> k, int64_t elements) {
  using C = accumulate_t<T>;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (first >= elements) return;
  const int64_t left = elements - first;
  const Vector<T, N> x_in = load_first<N>(static_cast<const T*>(p.x) + first, left);
  Vector<T, N> dy_in{};
  if constexpr (order > 0) dy_in = load_first<N>(static_cast<const T*>(p.dy) + first, left);

  C value[N], bias[N], factor[N];
  int64_t channel = p.b ? first / p.inner % p.channels : 0, position = p.b ? first % p.inner : 0;
  GANOPS_UNROLL
  for (int i = 0; i < N; i++) {
    value[i] = widen(x_in[i]);
    factor[i] = order > 0 ? widen(dy_in[i]) : C(0);
    bias[i] = p.b ? widen(static_cast<const T*>(p.b)[channel]) : C(0);
    if (++position == p.inner) {
      position = 0;
      if (++channel == p.channels) channel = 0;
    }
  }
  bias_act_array<order>(p.activation.act, value, bias, factor, k);
  store_first(static_cast<T*>(p.y) + first, value, left);
}

template <class T, int order, int N>
void launch_bias_act(const BiasActParams& p, void* stream) {
  const int64_t elements = p.outer * p.channels * p.inner, bytes = elements * static_cast<int64_t>(sizeof(T));
  const auto blocks = static_cast<unsigned>(ceil_div(elements, static_cast<int64_t>(N) * kThreads));
  const cudaError_t error =
      launch(bias_act_kernel<T, order, N>, dim3(blocks), dim3(kThreads), 0, static_cast<cudaStream_t>(stream),
             {Buffer::input("x", p.x, bytes), Buffer::input("dy", p.dy, order > 0 ? bytes : 0),
              Buffer::input("b", p.b, p.channels * static_cast<int64_t>(sizeof(T))), Buffer::output("y", p.y, bytes)},
             p, ActivationConstants<accumulate_t<T>>(p.activation), elements);
  check_launch(error, "bias_act", p.outer, p.channels, p.inner);
}

template <class T, int order>
void launch_bias_act(const BiasActParams& p, void* stream) {
  const bool aligned = is_aligned(p.x, 16) && is_aligned(p.y, 16) && is_aligned(p.dy, 16);
  aligned ? launch_bias_act<T, order, kVectorLength<T>>(p, stream) : launch_bias_act<T, order, 1>(p, stream);
}

}  // namespace

void launch_bias_act_cuda(const BiasActParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (p.activation.order) {
      case 0:
        return launch_bias_act<T, 0>(p, stream);
      case 1:
        return launch_bias_act<T, 1>(p, stream);
      default:
        return launch_bias_act<T, 2>(p, stream);
    }
  });
}

}  // namespace ganops

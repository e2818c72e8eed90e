// The activation of the elements of a register array, for kernels that end in one.
#pragma once
#include "bias_act/math.h"
#include "common/device.h"

namespace ganops {

template <Activation act, int order, int N, class C>
__device__ __forceinline__ void bias_act_array(C (&x)[N], const C (&b)[N], const C (&dy)[N],
                                               const ActivationConstants<C>& k) {
  GANOPS_UNROLL
  for (int i = 0; i < N; i++) x[i] = bias_act_element<act, order>(x[i], b[i], dy[i], k);
}

// x becomes the value, or dy times the slope. The activation is chosen at run time, alike in all threads.
template <int order, int N, class C>
__device__ __forceinline__ void bias_act_array(Activation act, C (&x)[N], const C (&b)[N], const C (&dy)[N],
                                               const ActivationConstants<C>& k) {
  switch (act) {
    case Activation::linear:
      return bias_act_array<Activation::linear, order>(x, b, dy, k);
    case Activation::relu:
      return bias_act_array<Activation::relu, order>(x, b, dy, k);
    case Activation::lrelu:
      return bias_act_array<Activation::lrelu, order>(x, b, dy, k);
    case Activation::tanh:
      return bias_act_array<Activation::tanh, order>(x, b, dy, k);
    case Activation::sigmoid:
      return bias_act_array<Activation::sigmoid, order>(x, b, dy, k);
    case Activation::elu:
      return bias_act_array<Activation::elu, order>(x, b, dy, k);
    case Activation::selu:
      return bias_act_array<Activation::selu, order>(x, b, dy, k);
    case Activation::softplus:
      return bias_act_array<Activation::softplus, order>(x, b, dy, k);
    case Activation::swish:
      return bias_act_array<Activation::swish, order>(x, b, dy, k);
    case Activation::gelu:
      return bias_act_array<Activation::gelu, order>(x, b, dy, k);
  }
}

}  // namespace ganops

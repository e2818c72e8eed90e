// Every activation and its slopes, once for host and device. The formulas are those of ganops/reference/bias_act.py.
#pragma once
#include <limits>

#include "bias_act/params.h"
#include "common/math.h"

namespace ganops {

constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
constexpr double kSoftplusThreshold = 20.0;  // above it torch's softplus is the identity

template <class T>
GANOPS_HOST_DEVICE T sigmoid(T u) {
  return T(1) / (T(1) + math::exp(-u));
}

template <class T>
GANOPS_HOST_DEVICE T normal_cdf(T u) {
  return T(0.5) * (T(1) + math::erf(u * T(0.70710678118654752440)));
}

template <class T>
GANOPS_HOST_DEVICE T normal_pdf(T u) {
  return math::exp(T(-0.5) * u * u) * T(0.39894228040143267794);
}

// act(u).
template <Activation act, class T>
GANOPS_HOST_DEVICE T activate(T u, T alpha) {
  if constexpr (act == Activation::relu) return u > T(0) || u != u ? u : T(0);
  if constexpr (act == Activation::lrelu) return u > T(0) ? u : u * alpha;
  if constexpr (act == Activation::tanh) return math::tanh(u);
  if constexpr (act == Activation::sigmoid) return sigmoid(u);
  if constexpr (act == Activation::elu) return u > T(0) ? u : math::expm1(u > T(0) ? T(0) : u);
  if constexpr (act == Activation::selu)
    return T(kSeluScale) * (u > T(0) ? u : T(kSeluAlpha) * math::expm1(u > T(0) ? T(0) : u));
  if constexpr (act == Activation::softplus)
    return u > T(kSoftplusThreshold) ? u : (u > T(0) ? u : T(0)) + math::log1p(math::exp(u > T(0) ? -u : u));
  if constexpr (act == Activation::swish) return u * sigmoid(u);
  if constexpr (act == Activation::gelu) return u * normal_cdf(u);
  return u;
}

// The first slope, or the derivative of the first slope, as a function of t = act(u) (or of u: swish, gelu, and lrelu
// either way, since the signs agree).
template <Activation act, int order, class T>
GANOPS_HOST_DEVICE T activation_slope(T v, T alpha) {
  static_assert(order == 1 || order == 2);
  if constexpr (act == Activation::linear) return order == 1 ? T(1) : T(0);
  if constexpr (act == Activation::relu) return order == 1 && v > T(0) ? T(1) : T(0);
  if constexpr (act == Activation::lrelu) return order == 2 ? T(0) : v > T(0) ? T(1) : alpha;
  if constexpr (act == Activation::tanh) return order == 1 ? T(1) - v * v : T(-2) * v;
  if constexpr (act == Activation::sigmoid) return order == 1 ? v * (T(1) - v) : T(1) - T(2) * v;
  if constexpr (act == Activation::elu) return v > T(0) ? T(order == 1) : order == 1 ? v + T(1) : T(1);
  if constexpr (act == Activation::selu)
    return v > T(0) ? T(order == 1 ? kSeluScale : 0.0) : order == 1 ? v + T(kSeluScale * kSeluAlpha) : T(1);
  if constexpr (act == Activation::softplus) return order == 1 ? -math::expm1(-v) : math::exp(-v);
  if constexpr (act == Activation::swish) {
    const T s = sigmoid(v);
    return order == 1 ? s * (T(1) + v * (T(1) - s)) : s * (T(1) - s) * (T(2) + v * (T(1) - T(2) * s));
  }
  if constexpr (act == Activation::gelu)
    return order == 1 ? normal_cdf(v) + v * normal_pdf(v) : (T(2) - v * v) * normal_pdf(v);
}

// Clamps to [-c, c]; NaN stays NaN. A NaN bound clamps nothing.
template <class T>
GANOPS_HOST_DEVICE T clamp(T y, T c) {
  return y > c ? c : y < -c ? -c : y;
}

template <class T>
GANOPS_HOST_DEVICE T slope_unless_clamped(T slope, T y, T c) {
  return y >= c || y <= -c ? T(0) : slope;
}

// ActivationParams in the type that is computed in.
template <class T>
struct ActivationConstants {
  explicit ActivationConstants(const ActivationParams& p)
      : alpha(T(p.alpha)),
        gain(T(p.gain)),
        bound(p.clamp < 0 ? std::numeric_limits<T>::quiet_NaN() : T(p.clamp)),
        inverse_gain(p.gain != 0 ? T(1 / p.gain) : T(0)),
        kept_scale(p.gain == 0    ? T(0)
                   : p.order == 1 ? gain
                                  : T(1)),
        kept_result(p.kept_result) {}

  T alpha, gain;
  T bound;         // NaN: none
  T inverse_gain;  // from what was kept to act(u)
  T kept_scale;    // of a slope taken from what was kept
  bool kept_result;
};

// One element: the value for x and its bias (order 0), or dy times a slope.
template <Activation act, int order, class T>
GANOPS_HOST_DEVICE T bias_act_element(T x, T bias, T dy, const ActivationConstants<T>& k) {
  if constexpr (order == 0) {
    return clamp(activate<act>(x + bias, k.alpha) * k.gain, k.bound);
  } else if (k.kept_result) {
    const T slope = activation_slope<act, order>(x * k.inverse_gain, k.alpha) * k.kept_scale;
    return dy * slope_unless_clamped(slope, x, k.bound);
  } else {
    const T u = x + bias, slope = activation_slope<act, order>(u, k.alpha) * k.gain;
    return dy * slope_unless_clamped(slope, activate<act>(u, k.alpha) * k.gain, k.bound);
  }
}

}  // namespace ganops

// Counts floating-point operations: with -DGANOPS_SIMT_FLOPS this is what accumulate_t is for all types but double.
#pragma once

#include <cmath>
#include <type_traits>

#include "simt/runtime.h"

namespace ganops::simt {

// A float that counts one for each addition, subtraction, multiplication and division, and two for a fused
// multiply-add.
struct CountedFloat {
  float value;
  CountedFloat() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  CountedFloat(T x) : value(static_cast<float>(x)) {}
  operator float() const { return value; }

  CountedFloat& operator+=(CountedFloat other) { return *this = *this + other; }
  CountedFloat& operator-=(CountedFloat other) { return *this = *this - other; }
  CountedFloat& operator*=(CountedFloat other) { return *this = *this * other; }
  CountedFloat& operator/=(CountedFloat other) { return *this = *this / other; }
  CountedFloat operator-() const { return -value; }

#define GANOPS_COUNTED_OPERATOR(op)                                     \
  friend CountedFloat operator op(CountedFloat a, CountedFloat b) {     \
    count_flops(1);                                                     \
    return a.value op b.value;                                          \
  }                                                                     \
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> \
  friend CountedFloat operator op(CountedFloat a, T b) {                \
    return a op CountedFloat(b);                                        \
  }                                                                     \
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> \
  friend CountedFloat operator op(T a, CountedFloat b) {                \
    return CountedFloat(a) op b;                                        \
  }
  GANOPS_COUNTED_OPERATOR(+)
  GANOPS_COUNTED_OPERATOR(-)
  GANOPS_COUNTED_OPERATOR(*)
  GANOPS_COUNTED_OPERATOR(/)
#undef GANOPS_COUNTED_OPERATOR
};

inline CountedFloat fmaf(CountedFloat a, CountedFloat b, CountedFloat c) {
  count_flops(2);
  return std::fma(a.value, b.value, c.value);
}

}  // namespace ganops::simt

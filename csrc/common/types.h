// Element types, as launchers receive them.
#pragma once
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <type_traits>

namespace ganops {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

enum class DType { f16, bf16, f32, f64 };

// Everything is computed in float, but double in double.
template <class T>
using compute_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<T>{}) with the T that dtype names.
template <class F>
void dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16:
      return f(TypeTag<Half>{});
    case DType::bf16:
      return f(TypeTag<BFloat16>{});
    case DType::f32:
      return f(TypeTag<float>{});
    case DType::f64:
      return f(TypeTag<double>{});
  }
}

// a / b for positive numbers, rounded up.
inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace ganops

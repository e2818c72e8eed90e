// What the launchers of CUDA kernels share: element types and errors. Include after params.h.
#pragma once
#include <torch/headeronly/util/Exception.h>

#include "common/device.h"
#include "common/types.h"

namespace ganops {

// Calls f(TypeTag<T>{}) with the T that dtype names, as kernels know it.
template <class F>
void dispatch_device(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16:
      return f(TypeTag<half_t>{});
    case DType::bf16:
      return f(TypeTag<bfloat16_t>{});
    case DType::f32:
      return f(TypeTag<float>{});
    case DType::f64:
      return f(TypeTag<double>{});
  }
}

inline bool is_aligned(const void* p, size_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// A failed launch becomes a RuntimeError that names the op and its sizes.
template <class... Sizes>
void check_launch(cudaError_t error, const char* op, const Sizes&... sizes) {
  STD_TORCH_CHECK(error == cudaSuccess, "ganops::", op, " failed: ", cudaGetErrorString(error),
                  "; sizes:", (" " + std::to_string(sizes))...);
}

}  // namespace ganops

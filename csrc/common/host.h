// What the host functions of all ops share: memory formats, allocation, streams, registration.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "common/types.h"
#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef GANOPS_CUDA
#include <torch/csrc/stable/accelerator.h>
#endif

namespace ganops {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return DType::f16;
    case ScalarType::BFloat16:
      return DType::bf16;
    case ScalarType::Float:
      return DType::f32;
    case ScalarType::Double:
      return DType::f64;
    default:
      STD_TORCH_CHECK(false, "x must have dtype float16, bfloat16, float32 or float64");
  }
}

// The same rule as memory_format() in ganops/ops/_library.py: what could be either counts as contiguous.
inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4 || x.is_contiguous()) return false;
  int64_t stride = 1;
  for (int64_t dim : {1, 3, 2, 0}) {
    if (x.size(dim) != 1 && x.stride(dim) != stride) return false;
    stride *= x.size(dim);
  }
  return true;
}

inline MemoryFormat format_of(const Tensor& x) {
  return is_channels_last(x) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// The dimensions of a dense tensor from the slowest to the fastest in memory.
inline std::vector<int64_t> dims_in_memory(MemoryFormat format, int64_t count) {
  if (format == MemoryFormat::ChannelsLast) return {0, 2, 3, 1};
  std::vector<int64_t> dims(count);
  std::iota(dims.begin(), dims.end(), 0);
  return dims;
}

// x itself where it is contiguous or channels_last, else a contiguous copy.
inline Tensor dense(const Tensor& x) {
  return x.is_contiguous() || is_channels_last(x) ? x : torch::stable::contiguous(x);
}

// x in the given format.
inline Tensor in_format(const Tensor& x, MemoryFormat format) {
  const bool is_so = format == MemoryFormat::ChannelsLast ? is_channels_last(x) : x.is_contiguous();
  return is_so ? x : torch::stable::contiguous(x, format);
}

// A new tensor, about to be written. malloc takes large ones fresh from the system, which hands out a page at the first
// write to it: often slower than the kernel that writes. In huge pages that happens 512 times less often.
inline Tensor in_huge_pages(Tensor y) {
#ifdef __linux__
  constexpr uintptr_t kHugePage = 2 << 20;
  constexpr int64_t kFreshBytes = 16 << 20;  // less is mostly memory that was used before
  if (y.is_cpu() && y.numel() * y.element_size() >= kFreshBytes) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(y.mutable_data_ptr());
    const uintptr_t end = begin + y.numel() * y.element_size();
    const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
    madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // advice: a refusal changes nothing
  }
#endif
  return y;
}

// A tensor of x's dtype and device. It does not go through the dispatcher, which would take longer than a small kernel.
inline Tensor new_tensor(const Tensor& x, const std::vector<int64_t>& size,
                         MemoryFormat format = MemoryFormat::Contiguous) {
  const std::vector<int64_t> dims = dims_in_memory(format, size.size());
  std::vector<int64_t> strides(size.size());
  int64_t stride = 1;
  for (auto dim = dims.rbegin(); dim != dims.rend(); dim++) {
    strides[*dim] = stride;
    stride *= std::max<int64_t>(size[*dim], 1);
  }
  int32_t dtype, device;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device));
  AtenTensorHandle y;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(size.size(), size.data(), strides.data(), dtype, device, x.get_device_index(), &y));
  return in_huge_pages(Tensor(y));
}

// For an x that is contiguous or channels_last.
inline Tensor new_like(const Tensor& x) {
  return new_tensor(x, {x.sizes().begin(), x.sizes().end()}, format_of(x));
}

// A [N, C, height, width] tensor of x's dtype and device.
inline Tensor new_image(const Tensor& x, int64_t height, int64_t width, MemoryFormat format) {
  return new_tensor(x, {x.size(0), x.size(1), height, width}, format);
}

// The stream on which kernels for x's device run, null on a CPU. That device is the current one while this lives.
struct Stream {
  void* handle = nullptr;
#ifdef GANOPS_CUDA
  std::optional<torch::stable::accelerator::DeviceGuard> guard;
#endif
  operator void*() const { return handle; }
};

inline Stream stream_of([[maybe_unused]] const Tensor& x) {
  Stream stream;
#ifdef GANOPS_CUDA
  if (x.is_cpu()) return stream;
  stream.guard.emplace(x.get_device_index());
#if defined(TORCH_VERSION_2_13_0) && TORCH_FEATURE_VERSION >= TORCH_VERSION_2_13_0
  stream.handle = torch::stable::accelerator::getCurrentStream(x.get_device_index()).nativeHandle();
#else
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream.handle));
#endif
#endif
  return stream;
}

inline const void* data_or_null(const std::optional<Tensor>& t) {
  return t ? t->const_data_ptr() : nullptr;
}

// Kernels read as much as these checks let through, whoever calls the operators.
using Sizes = std::initializer_list<int64_t>;

template <class S>
bool has_sizes(const Tensor& t, const S& sizes) {
  const auto actual = t.sizes();
  return std::equal(actual.begin(), actual.end(), sizes.begin(), sizes.end());
}

inline void check_sizes(const char* name, const Tensor& t, Sizes sizes) {
  const auto listed = [&] {
    std::string list;
    for (int64_t size : sizes) list += (list.empty() ? "" : ", ") + std::to_string(size);
    return list;
  };
  STD_TORCH_CHECK(has_sizes(t, sizes), name, " must be [", listed(), "]");
}

inline void check_image(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 4 && t.size(2) > 0 && t.size(3) > 0, name,
                  " must be [N, C, H, W] with at least one row and column");
}

inline void check_padding(const std::vector<int64_t>& padding) {
  STD_TORCH_CHECK(padding.size() == 4, "padding must be [x_before, x_after, y_before, y_after], got ", padding.size(),
                  " numbers");
}

inline void check_device(const char* name, const Tensor& x, const Tensor& t) {
  STD_TORCH_CHECK(t.device() == x.device(), name, " must be on x's device");
}

// b as kernels take it: contiguous, of x's dtype, a value for each channel.
inline std::optional<Tensor> bias_for(const Tensor& x, const std::optional<Tensor>& b, int64_t channels) {
  if (!b) return std::nullopt;
  check_sizes("b", *b, {channels});
  check_device("b", x, *b);
  STD_TORCH_CHECK(b->scalar_type() == x.scalar_type(), "b must have x's dtype");
  return in_format(*b, MemoryFormat::Contiguous);
}

// t contiguous and in the dtype x is computed in.
inline std::optional<Tensor> in_compute_dtype(const Tensor& x, const std::optional<Tensor>& t) {
  if (!t) return std::nullopt;
  const ScalarType dtype = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  return in_format(t->scalar_type() == dtype ? *t : torch::stable::to(*t, dtype), MemoryFormat::Contiguous);
}

// A scale, noise or bias of these sizes as kernels take it.
inline std::optional<Tensor> operand(const char* name, const Tensor& x, const std::optional<Tensor>& t, Sizes sizes) {
  if (!t) return std::nullopt;
  check_sizes(name, *t, sizes);
  check_device(name, x, *t);
  return in_compute_dtype(x, t);
}

// Noise for images of this size, of each sample its own or one for all.
inline std::optional<Tensor> noise_for(const Tensor& x, const std::optional<Tensor>& noise, int64_t height,
                                       int64_t width) {
  const bool shared = noise && noise->dim() > 0 && noise->size(0) == 1;
  return operand("noise", x, noise, {shared ? 1 : x.size(0), 1, height, width});
}

inline std::optional<Tensor> filter_for(const char* name, const Tensor& x, const std::optional<Tensor>& f) {
  if (!f) return std::nullopt;
  STD_TORCH_CHECK((f->dim() == 1 || f->dim() == 2) && f->numel() > 0, name,
                  " must be [taps] or [height, width], and not empty");
  check_device(name, x, *f);
  return in_compute_dtype(x, f);
}

// A string argument, which is deleted here. Torch's own conversion to std::string loses a copy at each call, and malloc
// then cannot join the memory around it.
inline std::string take_string(StringHandle handle) {
  size_t length = 0;
  const char* text = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
  TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &text));
  const std::string taken(text, length);
  TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
  return taken;
}

}  // namespace ganops

// GANOPS_REGISTER registers the host function `op` (a template over its launcher) for every device this library has
// kernels for. GANOPS_REGISTER_CUDA is for an op without a CPU kernel: the reference serves CPUs; GANOPS_REGISTER_CPU
// for one that CPUs alone have. Under the emulator the CUDA launcher serves CPU tensors in a namespace of its own.
#define GANOPS_REGISTER_FOR(library, key, op, launcher)    \
  STABLE_TORCH_LIBRARY_IMPL(library, key, m) {             \
    m.impl(#op, TORCH_BOX(&ganops::op<ganops::launcher>)); \
  }
#if defined(GANOPS_SIMT)
#define GANOPS_REGISTER_CPU(op, launcher)
#define GANOPS_REGISTER_CUDA(op, launcher) GANOPS_REGISTER_FOR(GANOPS_SIMT_NAMESPACE, CPU, op, launcher##_cuda)
#else
#define GANOPS_REGISTER_CPU(op, launcher) GANOPS_REGISTER_FOR(ganops, CPU, op, launcher##_cpu)
#if defined(GANOPS_CUDA)
#define GANOPS_REGISTER_CUDA(op, launcher) GANOPS_REGISTER_FOR(ganops, CUDA, op, launcher##_cuda)
#else
#define GANOPS_REGISTER_CUDA(op, launcher)
#endif
#endif
#define GANOPS_REGISTER(op, launcher) \
  GANOPS_REGISTER_CPU(op, launcher)   \
  GANOPS_REGISTER_CUDA(op, launcher)

// nvcc's half of common/device.h: CUDA's own names, and inline PTX where CUDA C++ has none.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#define GANOPS_SHARED(type, name, dimensions) __shared__ type name dimensions
#define GANOPS_SHARED_DYNAMIC(type, name)                           \
  extern __shared__ __align__(128) unsigned char ganops_dynamic_[]; \
  type* name = reinterpret_cast<type*>(ganops_dynamic_)
#define GANOPS_UNROLL _Pragma("unroll")

namespace ganops {

using half_t = __half;
using bfloat16_t = __nv_bfloat16;
using single_t = float;

__device__ __forceinline__ float half_to_float(half_t x) {
  return __half2float(x);
}
__device__ __forceinline__ half_t float_to_half(float x) {
  return __float2half_rn(x);
}
__device__ __forceinline__ float bfloat16_to_float(bfloat16_t x) {
  return __bfloat162float(x);
}
__device__ __forceinline__ bfloat16_t float_to_bfloat16(float x) {
  return __float2bfloat16_rn(x);
}

namespace detail {

template <int Bytes>
struct RawBytes;
template <>
struct RawBytes<1> {
  using type = uint8_t;
};
template <>
struct RawBytes<2> {
  using type = uint16_t;
};
template <>
struct RawBytes<4> {
  using type = uint32_t;
};
template <>
struct RawBytes<8> {
  using type = uint2;
};
template <>
struct RawBytes<16> {
  using type = uint4;
};

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace detail

// The emulator checks a launch against the memory that it names; a GPU does not need to know.
struct Buffer {
  static constexpr Buffer input(const char*, const void*, int64_t) { return {}; }
  static constexpr Buffer output(const char*, void*, int64_t) { return {}; }
  static constexpr Buffer update(const char*, void*, int64_t) { return {}; }
  static constexpr Buffer scratch(const char*, void*, int64_t) { return {}; }
};

// Shared memory above this many bytes a block has to be asked for.
inline constexpr size_t kSharedBytesByDefault = 48 * 1024;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   std::initializer_list<Buffer>, const Arguments&... arguments) {
  if (shared_bytes > kSharedBytesByDefault) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
  return cudaGetLastError();
}

struct DeviceProperties {
  int compute_capability;          // 80 for 8.0
  int multiprocessors;             //
  int64_t shared_bytes_per_block;  // the most that a launch may ask for
};

// The properties of the current device.
inline cudaError_t device_properties(DeviceProperties* properties) {
  int device = 0, major = 0, minor = 0, shared_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  const auto get = [&](int* value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, attribute, device);
  };
  get(&major, cudaDevAttrComputeCapabilityMajor);
  get(&minor, cudaDevAttrComputeCapabilityMinor);
  get(&properties->multiprocessors, cudaDevAttrMultiProcessorCount);
  get(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  properties->compute_capability = major * 10 + minor;
  properties->shared_bytes_per_block = shared_bytes;
  return error;
}

// cp.async came with compute capability 8.0. Before it the copy is made on the spot, and commit and wait have nothing
// to do.
template <int Bytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool predicate = true) {
  static_assert(Bytes == 16 || Bytes == 8 || Bytes == 4, "cp.async copies 16, 8 or 4 bytes");
#if __CUDA_ARCH__ >= 800
  const uint32_t to = detail::shared_address(shared);
  const int source_bytes = predicate ? Bytes : 0;
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(source_bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(Bytes), "r"(source_bytes)
                 : "memory");
  }
#else
  using Raw = typename detail::RawBytes<Bytes>::type;
  *static_cast<Raw*>(shared) = predicate ? *static_cast<const Raw*>(global) : Raw{};
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int Groups>
__device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
#endif
}

template <bool Transpose = false>
__device__ __forceinline__ void ldmatrix_x1(uint32_t (&r)[1], const void* row) {
  const uint32_t from = detail::shared_address(row);
  if constexpr (Transpose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(from) : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(from) : "memory");
  }
}

template <bool Transpose = false>
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  const uint32_t from = detail::shared_address(row);
  if constexpr (Transpose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
  }
}

template <bool Transpose = false>
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const uint32_t from = detail::shared_address(row);
  if constexpr (Transpose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  }
}

namespace detail {

template <class T>
__device__ void mma_by_shuffles(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4]);

__device__ __forceinline__ void mma(half_t, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    const float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
  // Compute capability 7.5 has half the depth: the registers of columns 0 to 7, then those of columns 8 to 15.
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

__device__ __forceinline__ void mma(bfloat16_t, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    const float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
  mma_by_shuffles<bfloat16_t>(d, a, b, c);  // compute capability 7.5 has no bfloat16 product
#endif
}

}  // namespace detail

template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                             const float (&c)[4]) {
  detail::mma(T{}, d, a, b, c);
}

}  // namespace ganops

// g++'s half of common/device.h: the wrappers, as calls of the emulator.
#pragma once

#include <initializer_list>
#include <tuple>

#include "simt/cuda.h"
#ifdef GANOPS_SIMT_FLOPS
#include "simt/flops.h"
#endif

#define GANOPS_SHARED(type, name, dimensions) \
  using name##_shared_t = type dimensions;    \
  static const char name##_key = 0;           \
  name##_shared_t& name =                     \
      *static_cast<name##_shared_t*>(::ganops::simt::shared_variable(&name##_key, #name, sizeof(name##_shared_t)))
#define GANOPS_SHARED_DYNAMIC(type, name) type* name = static_cast<type*>(::ganops::simt::shared_dynamic())
#define GANOPS_UNROLL

namespace ganops {

#ifdef GANOPS_SIMT_FLOPS
using single_t = simt::CountedFloat;
#else
using single_t = float;
#endif

namespace detail {
// Types of one access each, whatever they alias.
template <int Bytes>
struct RawBytes;
template <>
struct RawBytes<1> {
  typedef uint8_t type;
};
template <>
struct RawBytes<2> {
  typedef uint16_t type __attribute__((may_alias));
};
template <>
struct RawBytes<4> {
  typedef uint32_t type __attribute__((may_alias));
};
template <>
struct RawBytes<8> {
  typedef uint64_t type __attribute__((may_alias));
};
template <>
struct RawBytes<16> {
  typedef uint32_t type __attribute__((vector_size(16), may_alias));
};
}  // namespace detail

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                   std::initializer_list<Buffer> buffers, const Arguments&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, {arguments...}};
  const auto invoke = [](const void* erased) {
    const Call& self = *static_cast<const Call*>(erased);
    std::apply(self.kernel, self.arguments);
  };
  return simt::run({reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, buffers.begin(), buffers.size(),
                    invoke, &call, sizeof call});
}

template <int Bytes>
__forceinline__ void cp_async(void* shared, const void* global, bool predicate = true) {
  static_assert(Bytes == 16 || Bytes == 8 || Bytes == 4, "cp.async copies 16, 8 or 4 bytes");
  simt::cp_async(shared, global, Bytes, predicate);
}
__forceinline__ void cp_async_commit() {
  simt::cp_async_commit();
}
template <int Groups>
__forceinline__ void cp_async_wait() {
  simt::cp_async_wait(Groups);
}

template <bool Transpose = false>
__forceinline__ void ldmatrix_x1(uint32_t (&r)[1], const void* row, simt::Site site = simt::Site::here()) {
  simt::ldmatrix(r, 1, Transpose, row, site);
}
template <bool Transpose = false>
__forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row, simt::Site site = simt::Site::here()) {
  simt::ldmatrix(r, 2, Transpose, row, site);
}
template <bool Transpose = false>
__forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row, simt::Site site = simt::Site::here()) {
  simt::ldmatrix(r, 4, Transpose, row, site);
}

template <class T>
__forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                                  simt::Site site = simt::Site::here()) {
  simt::mma(T{}, d, a, b, c, site);
}

}  // namespace ganops

// CUDA C++'s own names, for g++.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "simt/runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define threadIdx (::ganops::simt::self().thread)
#define blockIdx (::ganops::simt::self().block)
#define blockDim (::ganops::simt::self().block_size)
#define gridDim (::ganops::simt::self().grid_size)
static constexpr int warpSize = 32;

__forceinline__ void __syncthreads(ganops::simt::Site site = ganops::simt::Site::here()) {
  ganops::simt::barrier(false, site);
}
__forceinline__ int __syncthreads_count(int predicate, ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::barrier(predicate != 0, site);
}
__forceinline__ int __syncthreads_or(int predicate, ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::barrier(predicate != 0, site) != 0;
}
__forceinline__ int __syncthreads_and(int predicate, ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::barrier(predicate == 0, site) == 0;
}

__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu, ganops::simt::Site site = ganops::simt::Site::here()) {
  ganops::simt::sync_warp(mask, site);
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate,
                                       ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::ballot(mask, predicate != 0, site);
}
__forceinline__ int __any_sync(unsigned mask, int predicate, ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::ballot(mask, predicate != 0, site) != 0;
}
__forceinline__ int __all_sync(unsigned mask, int predicate, ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::ballot(mask, predicate == 0, site) == 0;
}

namespace ganops::simt {
template <class T>
__forceinline__ T shuffle_value(Shuffle mode, uint32_t mask, T value, unsigned operand, int width, Site site) {
  static_assert((sizeof(T) == 4 || sizeof(T) == 8) && std::is_trivially_copyable_v<T>, "a shuffle moves 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = shuffle(mode, mask, bits, operand, static_cast<unsigned>(width), site);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace ganops::simt

template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
                              ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::shuffle_value(ganops::simt::Shuffle::kIndex, mask, value, lane, width, site);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                                 ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::shuffle_value(ganops::simt::Shuffle::kUp, mask, value, distance, width, site);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                                   ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::shuffle_value(ganops::simt::Shuffle::kDown, mask, value, distance, width, site);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize,
                                  ganops::simt::Site site = ganops::simt::Site::here()) {
  return ganops::simt::shuffle_value(ganops::simt::Shuffle::kXor, mask, value, lanes, width, site);
}

template <class T>
__forceinline__ T atomicAdd(T* address, T value) {
  return ganops::simt::atomic_add(address, value);
}
template <class T>
__forceinline__ T atomicMax(T* address, T value) {
  return ganops::simt::atomic_max(address, value);
}
template <class T>
__forceinline__ T atomicCAS(T* address, T compare, T value) {
  return ganops::simt::atomic_cas(address, compare, value);
}

template <class T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcs(const T* address) {
  return *address;
}
template <class T>
__forceinline__ void __stcs(T* address, T value) {
  *address = value;
}

template <class T>
__forceinline__ T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
__forceinline__ T max(T a, T b) {
  return a < b ? b : a;
}
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

__forceinline__ float __expf(float x) {
  return expf(x);
}
__forceinline__ float __logf(float x) {
  return logf(x);
}
__forceinline__ float __fdividef(float a, float b) {
  return a / b;
}
__forceinline__ float __frcp_rn(float x) {
  return 1.0f / x;
}
__forceinline__ float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
__forceinline__ float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
__forceinline__ double rsqrt(double x) {
  return 1.0 / sqrt(x);
}

__forceinline__ int __popc(unsigned x) {
  return __builtin_popcount(x);
}
__forceinline__ int __ffs(int x) {
  return __builtin_ffs(x);
}
__forceinline__ int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
__forceinline__ unsigned __float_as_uint(float x) {
  return ganops::detail::bits_of(x);
}
__forceinline__ float __uint_as_float(unsigned bits) {
  return ganops::detail::float_of(bits);
}
__forceinline__ int __float_as_int(float x) {
  return static_cast<int>(ganops::detail::bits_of(x));
}
__forceinline__ float __int_as_float(int bits) {
  return ganops::detail::float_of(static_cast<uint32_t>(bits));
}

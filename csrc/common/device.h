// What every CUDA kernel of ganops includes, and the only place that knows nvcc from g++.
//
// The same kernel source has two lives. nvcc compiles it for a GPU. g++ with -DGANOPS_SIMT compiles it for the emulator
// in csrc/simt, which runs each CUDA thread as a fiber, so that tests can execute, check and count it without a GPU.
//
// A kernel is plain CUDA C++ (threadIdx, __syncthreads(), __syncwarp(), __shfl_*_sync, __ballot_sync, atomicAdd, ...),
// with these wrappers in place of what g++ cannot read:
//
//   GANOPS_SHARED(float, tile, [16][65]);
//       static shared memory: __shared__ float tile[16][65]
//   GANOPS_SHARED_DYNAMIC(half_t, tiles);
//       half_t* to the dynamic shared memory of the launch, 128-byte aligned
//   GANOPS_UNROLL for (...)
//       #pragma unroll
//   half_t, bfloat16_t; widen(h), narrow<T>(value)
//       16-bit numbers without arithmetic, and the way to accumulate_t<T> (float; double for double) and back
//   Vector<T, N>, load_vector<N>(from), store_vector(to, vector), kVectorLength<T>
//       one aligned access of up to 16 bytes
//   load_bits(from)
//       a 16-bit value in the low half of a register, which nothing has to be done to while it is on its way
//   load_first<N>(from, count), store_first(to, values, count)
//       the same where a tensor ends after `count` elements, perhaps within the vector
//   cp_async<16>(shared, global, predicate); cp_async_commit(); cp_async_wait<1>();
//       a copy in flight (16, 8 or 4 bytes; zeros where the predicate is false); the end of a group of copies; wait
//       until at most one group of this thread is in flight. Other threads need a __syncthreads() after the wait.
//   ldmatrix_x4<Transpose>(registers, row), ldmatrix_x2, ldmatrix_x1
//       8x8 matrices of 16-bit values: lane i names row i % 8 of matrix i / 8, and a lane left over any good row. It
//       reads what other lanes wrote, so it needs a __syncwarp() or __syncthreads() after the writes.
//   mma_m16n8k16<T>(d, a, b, c)
//       d = a b + c on a warp; T is half_t or bfloat16_t, sums in float; d and c may be the same array
//   pack<T>(low, high), unpack<T>(bits, low, high)
//       two 16-bit values in one 32-bit register, from and to float
//   warp_sum(value)
//       the sum over the 32 lanes, in every lane
//
// The launcher names every piece of global memory that the kernel may touch:
//
//   return launch(bias_act_kernel<T>, grid, block, shared_bytes, stream,
//                 {Buffer::input("x", params.x, bytes), Buffer::output("y", params.y, bytes)}, params);
//
//   Buffer::input    is only read
//   Buffer::output   is written in full by this launch, and not read before it is written
//   Buffer::update   holds values already; read, written or added to atomically
//   Buffer::scratch  holds nothing yet; need not be written in full
//
// A null pointer or zero bytes is skipped. For a strided tensor, bytes is span_bytes(...). nvcc compiles the list away;
// the emulator's check build reports whatever the kernel does outside it. launch() returns cudaSuccess or the error; a
// grid or block of zero size is an error, as in CUDA. Blocks may not talk to each other within a launch except by
// atomics.
//
// Not offered: wmma, wgmma, TMA, clusters, cooperative groups, __constant__ memory, textures, printf, memcpy in
// kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include "common/device_nvcc.h"
#elif defined(GANOPS_SIMT)
#include "simt/device_simt.h"
#else
#error "common/device.h is for nvcc, or for g++ with -DGANOPS_SIMT"
#endif

namespace ganops {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

namespace detail {
template <class T>
struct Accumulate {
  using type = single_t;
};
template <>
struct Accumulate<double> {
  using type = double;
};
}  // namespace detail

// What a sum of T is held in: float for the 16-bit types and float, double for double.
template <class T>
using accumulate_t = typename detail::Accumulate<T>::type;

__device__ __forceinline__ single_t widen(half_t x) {
  return half_to_float(x);
}
__device__ __forceinline__ single_t widen(bfloat16_t x) {
  return bfloat16_to_float(x);
}
__device__ __forceinline__ single_t widen(float x) {
  return x;
}
__device__ __forceinline__ double widen(double x) {
  return x;
}

namespace detail {
template <class T>
struct Narrow {
  static __device__ __forceinline__ T from(accumulate_t<T> x) { return static_cast<T>(x); }
};
template <>
struct Narrow<half_t> {
  static __device__ __forceinline__ half_t from(float x) { return float_to_half(x); }
};
template <>
struct Narrow<bfloat16_t> {
  static __device__ __forceinline__ bfloat16_t from(float x) { return float_to_bfloat16(x); }
};
}  // namespace detail

// Rounds to nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrow(accumulate_t<T> x) {
  return detail::Narrow<T>::from(x);
}

// Two 16-bit values in a 32-bit register: `low` in bits 0 to 15, as in PTX's .f16x2 and .bf16x2.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  static_assert(sizeof(T) == 2, "pack is for 16-bit types");
  const T values[2] = {narrow<T>(low), narrow<T>(high)};
  uint32_t bits;
  __builtin_memcpy(&bits, values, sizeof bits);
  return bits;
}

template <class T>
__device__ __forceinline__ void unpack(uint32_t bits, single_t& low, single_t& high) {
  static_assert(sizeof(T) == 2, "unpack is for 16-bit types");
  T values[2];
  __builtin_memcpy(values, &bits, sizeof bits);
  low = widen(values[0]);
  high = widen(values[1]);
}

// N values that move between memory and registers in one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "an access is 1, 2, 4, 8 or 16 bytes");
  T values[N];
  __device__ __forceinline__ T& operator[](int i) { return values[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return values[i]; }
};

// How many T a 16-byte access moves.
template <class T>
inline constexpr int kVectorLength = 16 / sizeof(T);

// `from` and `to` are aligned to the whole vector.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* from) {
  using Raw = typename detail::RawBytes<sizeof(T) * N>::type;
  const Raw raw = *reinterpret_cast<const Raw*>(from);
  Vector<T, N> vector;
  __builtin_memcpy(&vector, &raw, sizeof raw);
  return vector;
}

// A 16-bit value as a load leaves it: in the low half of a register, below zeros.
template <class T>
__device__ __forceinline__ uint32_t load_bits(const T* from) {
  static_assert(sizeof(T) == 2, "load_bits is for 16-bit types");
  return *reinterpret_cast<const typename detail::RawBytes<2>::type*>(from);
}

template <int N, class T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T, N>& vector) {
  using Raw = typename detail::RawBytes<sizeof(T) * N>::type;
  Raw raw;
  __builtin_memcpy(&raw, &vector, sizeof raw);
  *reinterpret_cast<Raw*>(to) = raw;
}

// The first `count` of N elements, repeated from the first one on where that is fewer.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_first(const T* from, int64_t count) {
  if (count >= N) return load_vector<N>(from);
  Vector<T, N> vector;
  GANOPS_UNROLL
  for (int i = 0; i < N; i++) vector[i] = from[i < count ? i : 0];
  return vector;
}

// Rounds the values to T and stores the first `count` of them.
template <class T, int N>
__device__ __forceinline__ void store_first(T* to, const accumulate_t<T> (&values)[N], int64_t count) {
  Vector<T, N> vector;
  GANOPS_UNROLL
  for (int i = 0; i < N; i++) vector[i] = narrow<T>(values[i]);
  if (count >= N) return store_vector(to, vector);
  GANOPS_UNROLL
  for (int i = 0; i < N; i++)
    if (i < count) to[i] = vector[i];
}

// The sum over a full warp, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  GANOPS_UNROLL
  for (unsigned distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

namespace detail {

// mma_m16n8k16 without tensor cores: slow but right. Lane 4 g + t owns rows g and g + 8 and columns 2 t and 2 t + 1 of
// d. Rows g and g + 8 of a lie in the four lanes of group g, column n of b in those of group n: registers 0 hold depths
// 0 to 7, and the last ones 8 to 15.
template <class T>
__device__ void mma_by_shuffles(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4]) {
  const unsigned lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kWarpSize;
  const unsigned first_of_group = lane / 4 * 4, first_column = lane % 4 * 2;
  single_t sum[4] = {c[0], c[1], c[2], c[3]};
  for (unsigned half = 0; half < 2; half++) {
    for (unsigned t = 0; t < 4; t++) {
      single_t left[2][2];  // rows g and g + 8, two depths each
      unpack<T>(__shfl_sync(kAllLanes, a[2 * half], first_of_group + t), left[0][0], left[0][1]);
      unpack<T>(__shfl_sync(kAllLanes, a[2 * half + 1], first_of_group + t), left[1][0], left[1][1]);
      for (unsigned column = 0; column < 2; column++) {
        single_t right[2];
        unpack<T>(__shfl_sync(kAllLanes, b[half], 4 * (first_column + column) + t), right[0], right[1]);
        for (unsigned row = 0; row < 2; row++) {
          sum[2 * row + column] += left[row][0] * right[0] + left[row][1] * right[1];
        }
      }
    }
  }
  for (unsigned i = 0; i < 4; i++) d[i] = sum[i];
}

}  // namespace detail

// The bytes from the first to the last element of a tensor with these sizes and (non-negative) strides.
inline int64_t span_bytes(int ndim, const int64_t* sizes, const int64_t* strides, int64_t element_bytes) {
  int64_t last = 0;
  for (int i = 0; i < ndim; i++) {
    if (sizes[i] == 0) return 0;
    last += (sizes[i] - 1) * strides[i];
  }
  return (last + 1) * element_bytes;
}

}  // namespace ganops

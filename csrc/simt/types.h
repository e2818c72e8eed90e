// The types that CUDA's headers declare, for g++: no CUDA toolkit is needed to build the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1) : x(x_size), y(y_size), z(z_size) {}
};

inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline double2 make_double2(double x, double y) {
  return {x, y};
}
inline int2 make_int2(int x, int y) {
  return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

using cudaStream_t = void*;

// The errors that a launch can end with, numbered as in CUDA.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorIllegalAddress = 700,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
};

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorMisalignedAddress:
      return "misaligned address";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
  }
  return "unknown error";
}

namespace ganops {

// IEEE 754 binary16 and its truncated cousin, as storage. A kernel computes in float: see widen and narrow.
struct half_t {
  uint16_t bits;
};
struct bfloat16_t {
  uint16_t bits;
};

namespace detail {
inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
}  // namespace detail

// Without branches, so that loops over it vectorise. The bits of the magnitude, read as a float, are the value times
// 2^-112.
inline float half_to_float(half_t x) {
  constexpr float kRebias = 0x1p112f;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t infinite = (x.bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  const float magnitude = detail::float_of(static_cast<uint32_t>(x.bits & 0x7fffu) << 13) * kRebias;
  return detail::float_of(detail::bits_of(magnitude) | infinite | sign);
}

// Rounds to nearest, ties to even; NaN becomes the canonical 0x7fff, as __float2half_rn gives it.
inline half_t float_to_half(float x) {
  constexpr uint32_t kInfinity = 0x7f800000u, kOverflow = 0x477ff000u /* 65520 */,
                     kSmallestNormal = 0x38800000u /* 2^-14 */;
  const uint32_t sign = detail::bits_of(x) >> 16 & 0x8000u;
  const uint32_t magnitude = detail::bits_of(x) & 0x7fffffffu;
  uint32_t half;
  if (magnitude > kInfinity) return {0x7fff};
  if (magnitude >= kOverflow) {
    half = 0x7c00u;
  } else if (magnitude < kSmallestNormal) {
    half = detail::bits_of(detail::float_of(magnitude) + 0.5f) - detail::bits_of(0.5f);  // 0.5's last bit is 2^-24
  } else {
    const uint32_t odd = magnitude >> 13 & 1u;
    half = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

inline float bfloat16_to_float(bfloat16_t x) {
  return detail::float_of(static_cast<uint32_t>(x.bits) << 16);
}

inline bfloat16_t float_to_bfloat16(float x) {
  const uint32_t bits = detail::bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

}  // namespace ganops

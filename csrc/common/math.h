// Elementary functions for host and device. On the host the float versions are free of branches and calls, so that
// loops over them vectorise; polynomials after Cephes (Moshier), within 2 ulp.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GANOPS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GANOPS_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace ganops::math {

#if defined(__CUDA_ARCH__)

__device__ __forceinline__ float exp(float x) {
  return expf(x);
}
__device__ __forceinline__ float expm1(float x) {
  return expm1f(x);
}
__device__ __forceinline__ float tanh(float x) {
  return tanhf(x);
}
__device__ __forceinline__ float log1p(float x) {
  return log1pf(x);
}
__device__ __forceinline__ float erf(float x) {
  return erff(x);
}
__device__ __forceinline__ double exp(double x) {
  return ::exp(x);
}
__device__ __forceinline__ double expm1(double x) {
  return ::expm1(x);
}
__device__ __forceinline__ double tanh(double x) {
  return ::tanh(x);
}
__device__ __forceinline__ double log1p(double x) {
  return ::log1p(x);
}
__device__ __forceinline__ double erf(double x) {
  return ::erf(x);
}

#else

GANOPS_HOST_DEVICE double exp(double x) {
  return std::exp(x);
}
GANOPS_HOST_DEVICE double expm1(double x) {
  return std::expm1(x);
}
GANOPS_HOST_DEVICE double tanh(double x) {
  return std::tanh(x);
}
GANOPS_HOST_DEVICE double log1p(double x) {
  return std::log1p(x);
}
GANOPS_HOST_DEVICE double erf(double x) {
  return std::erf(x);
}

GANOPS_HOST_DEVICE float power_of_two(int32_t n) {
  const int32_t bits = (n + 127) << 23;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// exp(x) = 2^n * (1 + tail), |tail| < 0.42.
struct ExpParts {
  float n, tail;
};

GANOPS_HOST_DEVICE ExpParts exp_parts(float x) {
  constexpr float kLog2E = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // adding and subtracting 1.5 * 2^23 rounds to an integer
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {n, p * r * r + r};
}

GANOPS_HOST_DEVICE float exp(float x) {
  const ExpParts e = exp_parts(x);
  const int32_t n = static_cast<int32_t>(e.n == e.n ? e.n : 0.0f);
  const int32_t half = n >> 1;  // in two steps: 2^128 and 2^-149 are no normal floats
  return (1.0f + e.tail) * power_of_two(half) * power_of_two(n - half);
}

// For x <= 88.
GANOPS_HOST_DEVICE float expm1(float x) {
  const ExpParts e = exp_parts(x < -30.0f ? -30.0f : x);
  const float scale = power_of_two(static_cast<int32_t>(e.n == e.n ? e.n : 0.0f));
  return scale * e.tail + (scale - 1.0f);
}

GANOPS_HOST_DEVICE float tanh(float x) {
  const float a = std::fabs(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float large = std::copysign(1.0f - 2.0f / (exp(2.0f * a) + 1.0f), x);
  return a < 0.625f ? p * z * x + x : large;
}

// For x in [0, 1].
GANOPS_HOST_DEVICE float log1p(float x) {
  constexpr float kSqrt2 = 1.41421356f, kLn2 = 0.693147181f;
  const float y = 1.0f + x;
  const float lost = (x - (y - 1.0f)) / y;  // what rounding y cost
  const float r = (y > kSqrt2 ? 0.5f * y : y) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  const float log_r = p * r * r * r - 0.5f * r * r + r;
  return (y > kSqrt2 ? log_r + kLn2 : log_r) + lost;
}

GANOPS_HOST_DEVICE float erf(float x) {
  const float a = std::fabs(x), z = x * x;
  float p = 7.853861353153693e-5f;
  p = p * z - 8.010193625184903e-4f;
  p = p * z + 5.188327685732524e-3f;
  p = p * z - 2.685381193529856e-2f;
  p = p * z + 1.128358514861418e-1f;
  p = p * z - 3.761262582423300e-1f;
  p = p * z + 1.128379165726710f;
  const float inverse = 1.0f / (a < 1.0f ? 1.0f : a), w = inverse * inverse;
  float near = 2.326819970068386e-2f;  // erfc on [1, 2]
  near = near * w - 1.387039388740657e-1f;
  near = near * w + 3.687424674597105e-1f;
  near = near * w - 5.824733027278666e-1f;
  near = near * w + 6.210004621745983e-1f;
  near = near * w - 4.944515323274145e-1f;
  near = near * w + 3.404879937665872e-1f;
  near = near * w - 2.741127028184656e-1f;
  near = near * w + 5.638259427386472e-1f;
  float far = -1.047766399936249e+1f;  // erfc above 2
  far = far * w + 1.297719955372516e+1f;
  far = far * w - 7.495518717768503f;
  far = far * w + 2.921019019210786f;
  far = far * w - 1.015265279202700f;
  far = far * w + 4.218463358204948e-1f;
  far = far * w - 2.820767439740514e-1f;
  far = far * w + 5.641895067754075e-1f;
  const float large = std::copysign(1.0f - exp(-z) * inverse * (a < 2.0f ? near : far), x);
  return a < 1.0f ? x * p : large;
}

#endif

}  // namespace ganops::math

// Kernels whose traffic can be counted by hand.
#include "common/device.h"

using namespace ganops;

namespace {

// y[i] = x[i * stride], a float each.
__global__ void copy_strided(const float* x, float* y, int stride) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  y[i] = x[i * stride];
}

__global__ void copy_vectors(const float* x, float* y) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * 4;
  store_vector(y + i, load_vector<4>(x + i));
}

// Every thread writes element thread * stride of shared memory and reads it back.
template <int Width>
__global__ void touch_shared(float* y, int stride) {
  GANOPS_SHARED_DYNAMIC(float, tile);
  const int thread = static_cast<int>(threadIdx.x);
  Vector<float, Width> value;
  for (int i = 0; i < Width; i++) value[i] = static_cast<float>(thread);
  store_vector(tile + thread * stride, value);
  __syncthreads();
  y[thread] = load_vector<Width>(tile + thread * stride)[0];
}

// Lanes leave the loop after different numbers of turns, and only even ones add in it.
__global__ void diverge(const float* x, float* y) {
  const int lane = static_cast<int>(threadIdx.x);
  float sum = 0.0f;
  for (int i = 0; i <= lane; i++) {
    if (lane % 2 == 0) sum += x[i * 32 + lane];
  }
  y[lane] = sum;
}

// A FIR filter: 2 * taps operations a sample.
__global__ void filter(const float* x, const float* f, float* y, int taps) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  accumulate_t<float> sum = 0;
  for (int k = 0; k < taps; k++) sum += widen(x[i + k]) * accumulate_t<float>(f[k]);
  y[i] = narrow<float>(sum);
}

struct Triple {
  float x, y, z;
};

// Reads x in pieces of every size, the way kernels do. A table of constants is no memory that a launch must name.
__global__ void read_every_size(const void* x, float* y) {
  const int thread = static_cast<int>(threadIdx.x);
  constexpr float kWeights[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  float sum = kWeights[thread % 4] * static_cast<float>(static_cast<const uint8_t*>(x)[thread]);
  sum += static_cast<float>(static_cast<const int16_t*>(x)[thread]);
  sum += static_cast<const float2*>(x)[thread].x + static_cast<const float2*>(x)[thread].y;
  const float4 quad = static_cast<const float4*>(x)[thread];
  sum += quad.x + quad.y + quad.z + quad.w;
  const Triple triple = static_cast<const Triple*>(x)[thread];
  y[thread] = sum + triple.x + triple.y + triple.z;
}

// turns[i] = the thread whose turn was the i-th.
__global__ void take_turns(int* next_turn, int* turns) {
  turns[atomicAdd(next_turn, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// Every block reads all of x, 32 floats between two barriers, and sums them up.
__global__ void sum_all(const float* x, float* y, int pieces) {
  float sum = 0.0f;
  for (int piece = 0; piece < pieces; piece++) {
    sum += x[piece * 32 + threadIdx.x];
    __syncthreads();
  }
  y[blockIdx.x * 32 + threadIdx.x] = sum;
}

// The first half of the blocks writes the even floats, the second half the odd ones.
__global__ void write_in_halves(float* y) {
  const int blocks = static_cast<int>(gridDim.x) / 2, half = static_cast<int>(blockIdx.x) / blocks;
  y[(static_cast<int>(blockIdx.x) % blocks * 32 + threadIdx.x) * 2 + half] = 1.0f;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int run_copy_strided(const float* x, float* y, int blocks, int stride) {
  const int64_t n = int64_t{blocks} * 64;
  const int64_t strides[] = {stride};
  return launch(copy_strided, dim3(blocks), dim3(64), 0, nullptr,
                {Buffer::input("x", x, span_bytes(1, &n, strides, 4)), Buffer::output("y", y, n * 4)}, x, y, stride);
}

EXPORT int run_copy_vectors(const float* x, float* y, int blocks) {
  const int64_t bytes = int64_t{blocks} * 64 * 16;
  return launch(copy_vectors, dim3(blocks), dim3(64), 0, nullptr,
                {Buffer::input("x", x, bytes), Buffer::output("y", y, bytes)}, x, y);
}

EXPORT int run_touch_shared(float* y, int width, int stride) {
  const auto kernel = width == 1 ? touch_shared<1> : width == 2 ? touch_shared<2> : touch_shared<4>;
  const size_t shared_bytes = static_cast<size_t>(32 * stride + width) * sizeof(float);
  return launch(kernel, dim3(1), dim3(32), shared_bytes, nullptr, {Buffer::output("y", y, 32 * 4)}, y, stride);
}

EXPORT int run_diverge(const float* x, float* y) {
  return launch(diverge, dim3(1), dim3(32), 0, nullptr,
                {Buffer::input("x", x, 32 * 32 * 4), Buffer::output("y", y, 32 * 4)}, x, y);
}

EXPORT int run_filter(const float* x, const float* f, float* y, int blocks, int taps) {
  const int64_t n = int64_t{blocks} * 64;
  return launch(
      filter, dim3(blocks), dim3(64), 0, nullptr,
      {Buffer::input("x", x, (n + taps - 1) * 4), Buffer::input("f", f, taps * 4), Buffer::output("y", y, n * 4)}, x, f,
      y, taps);
}

EXPORT int run_read_every_size(const float* x, float* y) {
  return launch(read_every_size, dim3(1), dim3(32), 0, nullptr,
                {Buffer::input("x", x, 32 * 16), Buffer::output("y", y, 32 * 4)}, static_cast<const void*>(x), y);
}

EXPORT int run_sum_all(const float* x, float* y, int blocks, int pieces) {
  return launch(sum_all, dim3(blocks), dim3(32), 0, nullptr,
                {Buffer::input("x", x, int64_t{pieces} * 128), Buffer::output("y", y, int64_t{blocks} * 128)}, x, y,
                pieces);
}

EXPORT int run_write_in_halves(float* y, int blocks) {
  return launch(write_in_halves, dim3(blocks), dim3(32), 0, nullptr, {Buffer::output("y", y, int64_t{blocks} * 128)},
                y);
}

EXPORT int run_properties(DeviceProperties* properties) {
  return device_properties(properties);
}

EXPORT int run_take_turns(int* next_turn, int* turns, int blocks) {
  return launch(take_turns, dim3(blocks), dim3(64), 0, nullptr,
                {Buffer::update("next_turn", next_turn, 4), Buffer::output("turns", turns, int64_t{blocks} * 64 * 4)},
                next_turn, turns);
}

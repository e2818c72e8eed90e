// Kernels with nothing wrong in them, and with as much going on as the emulator offers.
#include "common/device.h"

using namespace ganops;

namespace {

constexpr int kTile = 64;

// c[m, n] = a[m, k] b[k, n] in float32, with m, n multiples of 64 and k of 16. 256 threads hold 4x4 elements each.
__global__ void __launch_bounds__(256)
    gemm_float(const float* __restrict__ a, const float* __restrict__ b, float* c, int n, int k) {
  constexpr int kStep = 16, kPadding = 4;
  GANOPS_SHARED(float, a_tile, [kStep][kTile + kPadding]);
  GANOPS_SHARED(float, b_tile, [kStep][kTile + kPadding]);
  const int thread = static_cast<int>(threadIdx.x), column = thread % 16 * 4, row = thread / 16 * 4;
  const int m0 = static_cast<int>(blockIdx.y) * kTile, n0 = static_cast<int>(blockIdx.x) * kTile;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < k; k0 += kStep) {
    const int a_row = thread / 4, a_column = thread % 4 * 4;
    const Vector<float, 4> from_a = load_vector<4>(a + static_cast<int64_t>(m0 + a_row) * k + k0 + a_column);
    for (int i = 0; i < 4; i++) a_tile[a_column + i][a_row] = from_a[i];
    const int b_row = thread / 16, b_column = thread % 16 * 4;
    store_vector(&b_tile[b_row][b_column], load_vector<4>(b + static_cast<int64_t>(k0 + b_row) * n + n0 + b_column));
    __syncthreads();
    GANOPS_UNROLL
    for (int step = 0; step < kStep; step++) {
      const Vector<float, 4> left = load_vector<4>(&a_tile[step][row]), right = load_vector<4>(&b_tile[step][column]);
      GANOPS_UNROLL
      for (int i = 0; i < 4; i++) {
        GANOPS_UNROLL
        for (int j = 0; j < 4; j++) sum[i][j] += left[i] * right[j];
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; i++) {
    Vector<float, 4> out;
    for (int j = 0; j < 4; j++) out[j] = sum[i][j];
    store_vector(c + static_cast<int64_t>(m0 + row + i) * n + n0 + column, out);
  }
}

// The same in 16 bits, with k a multiple of 32: cp.async into two stages, ldmatrix, mma. Four warps hold 32x32 elements
// each.
template <class T>
__global__ void __launch_bounds__(128)
    gemm_tensor(const T* __restrict__ a, const T* __restrict__ b, float* c, int n, int k) {
  constexpr int kStep = 32, kRowA = kStep + 8, kRowB = kTile + 8, kStage = kTile * kRowA + kStep * kRowB;
  GANOPS_SHARED_DYNAMIC(T, stages);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;
  const int m0 = static_cast<int>(blockIdx.y) * kTile, n0 = static_cast<int>(blockIdx.x) * kTile;
  float sum[2][4][4] = {};
  const auto fetch = [&](int stage, int k0) {
    T* a_tile = stages + stage * kStage;
    T* b_tile = a_tile + kTile * kRowA;
    for (int i = thread; i < kTile * kStep / 8; i += 128) {
      const int a_row = i / 4, a_column = i % 4 * 8, b_row = i / 8, b_column = i % 8 * 8;
      cp_async<16>(a_tile + a_row * kRowA + a_column, a + static_cast<int64_t>(m0 + a_row) * k + k0 + a_column);
      cp_async<16>(b_tile + b_row * kRowB + b_column, b + static_cast<int64_t>(k0 + b_row) * n + n0 + b_column);
    }
    cp_async_commit();
  };
  const int steps = k / kStep;
  fetch(0, 0);
  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) {
      fetch((step + 1) % 2, (step + 1) * kStep);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    const T* a_tile = stages + step % 2 * kStage;
    const T* b_tile = a_tile + kTile * kRowA;
    for (int depth = 0; depth < kStep; depth += 16) {
      uint32_t left[2][4], right[2][4];
      for (int i = 0; i < 2; i++) {
        ldmatrix_x4(left[i], a_tile + (warp_m + i * 16 + lane % 16) * kRowA + depth + lane / 16 * 8);
        ldmatrix_x4<true>(right[i], b_tile + (depth + lane % 16) * kRowB + warp_n + i * 16 + lane / 16 * 8);
      }
      for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) {
          const uint32_t columns[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k16<T>(sum[i][j], left[i], columns, sum[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 4; j++) {
      for (int half = 0; half < 2; half++) {
        const int row = m0 + warp_m + i * 16 + lane / 4 + half * 8, column = n0 + warp_n + j * 8 + lane % 4 * 2;
        const Vector<float, 2> out{{sum[i][j][half * 2], sum[i][j][half * 2 + 1]}};
        store_vector(c + static_cast<int64_t>(row) * n + column, out);
      }
    }
  }
}

// norms[row] = the sum of squares of a row of x, total = the sum over all rows. One block a row.
template <class T>
__global__ void row_norm(const T* __restrict__ x, float* norms, float* total, int columns) {
  GANOPS_SHARED(float, partial, [32]);
  const int64_t row = blockIdx.x;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) {
    const float value = widen(x[row * columns + i]);
    sum += value * value;
  }
  sum = warp_sum(sum);
  const unsigned warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp > 0) return;
  sum = warp_sum(lane < blockDim.x / kWarpSize ? partial[lane] : 0.0f);
  if (lane == 0) {
    norms[row] = sum;
    atomicAdd(total, sum);
  }
}

// Every warp turns 32x32 elements on its own, with __syncwarp alone. y is the transpose of x, both [32 * warps, 32]
// tiles.
__global__ void transpose_by_warp(const float* x, float* y) {
  GANOPS_SHARED(float, tiles, [2][32][33]);
  const unsigned warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  for (unsigned step = 0; step < 2; step++) {
    const unsigned tile = (blockIdx.x * 2 + warp) * 2 + step;
    for (unsigned i = 0; i < 32; i++) tiles[warp][i][lane] = x[tile * 1024 + i * 32 + lane];
    __syncwarp();
    for (unsigned i = 0; i < 32; i++) y[tile * 1024 + i * 32 + lane] = tiles[warp][lane][i];
    __syncwarp();
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int run_gemm_float(const float* a, const float* b, float* c, int m, int n, int k) {
  const int64_t mn = int64_t{m} * n, mk = int64_t{m} * k, kn = int64_t{k} * n;
  return launch(gemm_float, dim3(n / kTile, m / kTile), dim3(256), 0, nullptr,
                {Buffer::input("a", a, mk * 4), Buffer::input("b", b, kn * 4), Buffer::output("c", c, mn * 4)}, a, b, c,
                n, k);
}

template <class T>
int run_gemm_tensor(const T* a, const T* b, float* c, int m, int n, int k) {
  const int64_t mn = int64_t{m} * n, mk = int64_t{m} * k, kn = int64_t{k} * n;
  constexpr size_t kSharedBytes = 2 * (64 * 40 + 32 * 72) * sizeof(T);
  return launch(gemm_tensor<T>, dim3(n / kTile, m / kTile), dim3(128), kSharedBytes, nullptr,
                {Buffer::input("a", a, mk * 2), Buffer::input("b", b, kn * 2), Buffer::output("c", c, mn * 4)}, a, b, c,
                n, k);
}
EXPORT int run_gemm_half(const half_t* a, const half_t* b, float* c, int m, int n, int k) {
  return run_gemm_tensor(a, b, c, m, n, k);
}
EXPORT int run_gemm_bfloat16(const bfloat16_t* a, const bfloat16_t* b, float* c, int m, int n, int k) {
  return run_gemm_tensor(a, b, c, m, n, k);
}

EXPORT int run_row_norm(const half_t* x, float* norms, float* total, int rows, int columns) {
  return launch(row_norm<half_t>, dim3(rows), dim3(128), 0, nullptr,
                {Buffer::input("x", x, int64_t{rows} * columns * 2), Buffer::output("norms", norms, int64_t{rows} * 4),
                 Buffer::update("total", total, 4)},
                x, norms, total, columns);
}

EXPORT int run_transpose(const float* x, float* y, int blocks) {
  const int64_t bytes = int64_t{blocks} * 4 * 1024 * 4;
  return launch(transpose_by_warp, dim3(blocks), dim3(64), 0, nullptr,
                {Buffer::input("x", x, bytes), Buffer::output("y", y, bytes)}, x, y);
}

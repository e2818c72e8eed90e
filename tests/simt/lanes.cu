// Which element of a matrix each lane of a warp holds.
#include "common/device.h"

using namespace ganops;

namespace {

// rows holds 32 rows of 8 values: lane i names row i. fragments holds four registers a lane.
template <int Matrices, bool Transpose>
__global__ void load_matrices(const uint16_t* rows, uint32_t* fragments) {
  GANOPS_SHARED(uint16_t, tile, [32 * 8]);
  const int lane = static_cast<int>(threadIdx.x);
  store_vector(tile + lane * 8, load_vector<8>(rows + lane * 8));
  __syncwarp();
  uint32_t registers[Matrices];
  if constexpr (Matrices == 1) {
    ldmatrix_x1<Transpose>(registers, tile + lane % 8 * 8);
  } else if constexpr (Matrices == 2) {
    ldmatrix_x2<Transpose>(registers, tile + lane % 16 * 8);
  } else {
    ldmatrix_x4<Transpose>(registers, tile + lane * 8);
  }
  for (int i = 0; i < Matrices; i++) fragments[lane * 4 + i] = registers[i];
}

// a, b and c hold the fragments of each lane in turn: 8, 4 and 4 elements.
template <class T, bool Shuffles>
__global__ void multiply(const T* a, const T* b, const float* c, float* d) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t left[4], right[2];
  float sum[4];
  for (int i = 0; i < 4; i++) left[i] = reinterpret_cast<const uint32_t*>(a)[lane * 4 + i];
  for (int i = 0; i < 2; i++) right[i] = reinterpret_cast<const uint32_t*>(b)[lane * 2 + i];
  for (int i = 0; i < 4; i++) sum[i] = c[lane * 4 + i];
  if constexpr (Shuffles) {
    detail::mma_by_shuffles<T>(sum, left, right, sum);
  } else {
    mma_m16n8k16<T>(sum, left, right, sum);
  }
  for (int i = 0; i < 4; i++) d[lane * 4 + i] = sum[i];
}

// Every shuffle and vote there is, 16 results a lane.
__global__ void shuffle(const int* x, int* y) {
  const int lane = static_cast<int>(threadIdx.x), value = x[lane];
  int* out = y + lane * 16;
  out[0] = __shfl_sync(kAllLanes, value, 5);
  out[1] = __shfl_sync(kAllLanes, value, lane + 3);
  out[2] = __shfl_sync(kAllLanes, value, 2, 8);
  out[3] = __shfl_up_sync(kAllLanes, value, 3);
  out[4] = __shfl_up_sync(kAllLanes, value, 3, 16);
  out[5] = __shfl_down_sync(kAllLanes, value, 3);
  out[6] = __shfl_down_sync(kAllLanes, value, 3, 16);
  out[7] = __shfl_xor_sync(kAllLanes, value, 6);
  out[8] = __shfl_xor_sync(kAllLanes, value, 6, 4);
  out[9] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0));
  out[10] = __any_sync(kAllLanes, lane == 9);
  out[11] = __all_sync(kAllLanes, lane < 31);
  out[12] = lane < 8 ? __shfl_xor_sync(0xffu, value, 1) : __shfl_xor_sync(0xffffff00u, value, 2);
  out[13] = static_cast<int>(warp_sum(static_cast<float>(value)));
  out[14] = __syncthreads_count(lane < 20);
  out[15] = __syncthreads_or(lane == 40) * 2 + __syncthreads_and(lane < 32);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int run_ldmatrix(int matrices, int transpose, const uint16_t* rows, uint32_t* fragments) {
  const auto kernel = matrices == 1   ? (transpose ? load_matrices<1, true> : load_matrices<1, false>)
                      : matrices == 2 ? (transpose ? load_matrices<2, true> : load_matrices<2, false>)
                                      : (transpose ? load_matrices<4, true> : load_matrices<4, false>);
  return launch(kernel, dim3(1), dim3(32), 0, nullptr,
                {Buffer::input("rows", rows, 32 * 16), Buffer::scratch("fragments", fragments, 32 * 16)}, rows,
                fragments);
}

template <class T>
int run_mma(bool shuffles, const T* a, const T* b, const float* c, float* d) {
  return launch(shuffles ? multiply<T, true> : multiply<T, false>, dim3(1), dim3(32), 0, nullptr,
                {Buffer::input("a", a, 256 * 2), Buffer::input("b", b, 128 * 2), Buffer::input("c", c, 128 * 4),
                 Buffer::output("d", d, 128 * 4)},
                a, b, c, d);
}
EXPORT int run_mma_half(int shuffles, const half_t* a, const half_t* b, const float* c, float* d) {
  return run_mma(shuffles != 0, a, b, c, d);
}
EXPORT int run_mma_bfloat16(int shuffles, const bfloat16_t* a, const bfloat16_t* b, const float* c, float* d) {
  return run_mma(shuffles != 0, a, b, c, d);
}

EXPORT int run_shuffle(const int* x, int* y) {
  return launch(shuffle, dim3(1), dim3(32), 0, nullptr,
                {Buffer::input("x", x, 32 * 4), Buffer::output("y", y, 32 * 16 * 4)}, x, y);
}

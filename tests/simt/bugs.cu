// One kernel for each thing that the emulator must find. The line to be named ends in "// here".
// Every kernel gets an input and an output of 64 floats, in two blocks of 32 threads unless the table below says
// otherwise.
#include <cstring>

#include "common/device.h"

using namespace ganops;

namespace {

constexpr int kLength = 64;

__device__ int thread() {
  return static_cast<int>(threadIdx.x);
}
__device__ int index() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

__global__ void reads_past_the_end(const float* x, float* y) {
  y[index()] = x[index() + 1];  // here
}

__global__ void writes_before_the_start(const float* x, float* y) {
  y[index()] = x[index()];
  if (index() == 3) y[-1] = 0.0f;  // here
}

__global__ void reads_past_the_end_with_a_vector(const float* x, float* y) {
  y[index()] = load_vector<4>(x + index() / 4 * 4 + (index() == 60 ? 4 : 0))[0];  // here
}

__global__ void reads_memory_not_named(const float* x, float* y) {
  y[index()] = *reinterpret_cast<const float*>(reinterpret_cast<uintptr_t>(x) ^ (uintptr_t{1} << 40));  // here
}

__global__ void writes_to_input(const float* x, float* y) {
  y[index()] = x[index()];
  const_cast<float*>(x)[index()] = 0.0f;  // here
}

__global__ void leaves_shared_array(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [32]);
  GANOPS_SHARED(float, other, [32]);
  other[thread()] = 0.0f;
  tile[thread() + 1] = x[index()];  // here
  __syncthreads();
  y[index()] = other[thread()] + tile[thread()];
}

__global__ void leaves_dynamic_shared_memory(const float* x, float* y) {
  GANOPS_SHARED_DYNAMIC(float, tile);
  tile[thread() + 16] = x[index()];  // here
  __syncthreads();
  y[index()] = tile[thread() + 16];
}

__global__ void loads_vector_misaligned(const float* x, float* y) {
  y[index()] = index() == 5 ? load_vector<4>(x + 5)[0] : x[index()];  // here
}

__global__ void stores_shared_vector_misaligned(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  if (thread() < 8) store_vector(tile + 2 * thread(), Vector<float, 4>{{x[0], x[1], x[2], x[3]}});  // here
  __syncthreads();
  y[index()] = x[index()];
}

__global__ void reads_shared_uninitialised(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [32]);
  if (thread() != 31) tile[thread()] = x[index()];
  __syncthreads();
  y[index()] = tile[31 - thread()];  // here
}

__global__ void reads_output_before_writing(const float* x, float* y) {
  y[index()] += x[index()];  // here
}

__global__ void leaves_output_unwritten(const float* x, float* y) {
  if (index() != 7 && index() != 40) y[index()] = x[index()];
}

__global__ void reads_without_barrier_after_write(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  tile[thread()] = x[thread()];
  y[thread()] = tile[63 - thread()];  // here
}

__global__ void writes_without_barrier_after_read(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  float sum = 0.0f;
  for (int i = 0; i < 2; i++) {
    tile[thread()] = x[thread()] + static_cast<float>(i);  // here
    __syncthreads();
    sum += tile[63 - thread()];
  }
  y[thread()] = sum;
}

__global__ void writes_one_place_twice(const float* x, float* y) {
  GANOPS_SHARED(float, last, [1]);
  last[0] = x[thread()];  // here
  __syncthreads();
  y[thread()] = last[0];
}

__global__ void reads_within_warp_without_syncwarp(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [32]);
  tile[thread()] = x[index()];
  y[index()] = tile[thread() ^ 1];  // here
}

__global__ void takes_a_shuffle_for_a_fence(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [32]);
  tile[thread()] = x[index()];
  const float sum = warp_sum(x[index()]);
  y[index()] = tile[thread() ^ 1] + sum;  // here
}

__global__ void updates_across_blocks(const float* x, float* y) {
  y[index()] = x[index()];
  if (thread() == 0) y[kLength] += x[index()];  // here
}

__global__ void reads_another_blocks_output(const float* x, float* y) {
  y[index()] = x[index()];
  __syncthreads();
  y[kLength + index()] = y[kLength - 1 - index()];  // here
}

__global__ void reads_an_atomic_sum_too_early(const float* x, float* y) {
  y[index()] = x[index()];
  atomicAdd(y + kLength, x[index()]);
  __syncthreads();
  if (thread() == 0) y[kLength + 1 + static_cast<int>(blockIdx.x)] = y[kLength];  // here
}

__global__ void reads_copy_without_wait(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  cp_async<4>(tile + thread(), x + thread());
  cp_async_commit();
  __syncthreads();
  y[thread()] = tile[63 - thread()];  // here
}

__global__ void waits_for_the_wrong_group(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  cp_async<4>(tile + thread(), x + thread());
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  y[thread()] = tile[63 - thread()];  // here
}

__global__ void waits_for_a_copy_without_barrier(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  cp_async<4>(tile + thread(), x + thread());
  cp_async_commit();
  cp_async_wait<0>();
  y[thread()] = tile[63 - thread()];  // here
}

__global__ void copies_into_a_tile_in_use(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [64]);
  float sum = 0.0f;
  for (int i = 0; i < 2; i++) {
    cp_async<4>(tile + thread(), x + thread());  // here
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    sum += tile[63 - thread()];
  }
  y[thread()] = sum;
}

__global__ void meets_at_two_barriers(const float* x, float* y) {
  if (thread() < 32) {
    __syncthreads();
  } else {
    __syncthreads();  // here
  }
  y[thread()] = x[thread()];
}

__global__ void exits_before_the_barrier(const float* x, float* y) {
  y[thread()] = x[thread()];
  if (thread() >= 40) return;
  __syncthreads();  // here
  y[thread()] = x[thread()];
}

__global__ void exits_before_the_shuffle(const float* x, float* y) {
  y[index()] = x[index()];
  if (thread() == 5) return;
  y[index()] = __shfl_xor_sync(kAllLanes, x[index()], 1);  // here
}

__global__ void shuffles_in_a_branch(const float* x, float* y) {
  float value = x[index()];
  if (thread() < 16) value += __shfl_xor_sync(kAllLanes, value, 1);
  y[index()] = __shfl_xor_sync(kAllLanes, value, 2);  // here
}

__global__ void shuffles_from_a_lane_left_out(const float* x, float* y) {
  float value = x[index()];
  if (thread() < 16) value = __shfl_down_sync(0xffffu, value, 8);  // here
  y[index()] = value;
}

__global__ void leaves_itself_out_of_the_mask(const float* x, float* y) {
  y[index()] = __shfl_sync(0xffffu, x[index()], 0);  // here
}

__global__ void waits_for_each_other(const float* x, float* y) {
  y[thread()] = x[thread()];
  if (thread() == 0) {
    __syncwarp();  // here
  } else {
    __syncthreads();
  }
}

__global__ void loads_matrix_without_sync(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [32 * 4]);
  for (int i = 0; i < 4; i++) tile[thread() * 4 + i] = x[index()];
  uint32_t fragment[4];
  ldmatrix_x4(fragment, tile + (31 - thread()) * 4);  // here
  y[index()] = __uint_as_float(fragment[0]);
}

__global__ void loads_matrix_misaligned(const float* x, float* y) {
  GANOPS_SHARED(float, tile, [33 * 4]);
  for (int i = 0; i < 4; i++) tile[thread() * 4 + i] = x[index()];
  __syncwarp();
  uint32_t fragment[4];
  ldmatrix_x4(fragment, tile + thread() * 4 + (thread() == 9 ? 1 : 0));  // here
  y[index()] = __uint_as_float(fragment[0]);
}

__global__ void loads_matrix_from_global_memory(const float* x, float* y) {
  uint32_t fragment[1];
  ldmatrix_x1(fragment, x + thread() % 8 * 4);  // here
  y[index()] = __uint_as_float(fragment[0]);
}

__global__ void works(const float* x, float* y) {
  y[index()] = x[index()];
}

struct Case {
  const char* name;
  void (*kernel)(const float*, float*);
  unsigned blocks = 2;
  unsigned threads = 32;
  size_t shared_bytes = 0;
  int extra = 0;  // floats after the output that hold zeros and are updated
};

#define CASE(kernel) #kernel, kernel
const Case kCases[] = {
    {CASE(reads_past_the_end)},
    {CASE(writes_before_the_start)},
    {CASE(reads_past_the_end_with_a_vector)},
    {CASE(reads_memory_not_named)},
    {CASE(writes_to_input)},
    {CASE(leaves_shared_array)},
    {CASE(leaves_dynamic_shared_memory), 2, 32, 32 * sizeof(float)},
    {CASE(loads_vector_misaligned)},
    {CASE(stores_shared_vector_misaligned)},
    {CASE(reads_shared_uninitialised)},
    {CASE(reads_output_before_writing)},
    {CASE(leaves_output_unwritten)},
    {CASE(reads_without_barrier_after_write), 1, 64},
    {CASE(writes_without_barrier_after_read), 1, 64},
    {CASE(writes_one_place_twice), 1, 64},
    {CASE(reads_within_warp_without_syncwarp)},
    {CASE(takes_a_shuffle_for_a_fence)},
    {CASE(updates_across_blocks), 2, 32, 0, 1},
    {CASE(reads_another_blocks_output), 2, 32, 0, 64},
    {CASE(reads_an_atomic_sum_too_early), 2, 32, 0, 3},
    {CASE(reads_copy_without_wait), 1, 64},
    {CASE(waits_for_the_wrong_group), 1, 64},
    {CASE(waits_for_a_copy_without_barrier), 1, 64},
    {CASE(copies_into_a_tile_in_use), 1, 64},
    {CASE(meets_at_two_barriers), 1, 64},
    {CASE(exits_before_the_barrier), 1, 64},
    {CASE(exits_before_the_shuffle)},
    {CASE(shuffles_in_a_branch)},
    {CASE(shuffles_from_a_lane_left_out)},
    {CASE(leaves_itself_out_of_the_mask)},
    {CASE(waits_for_each_other), 1, 64},
    {CASE(loads_matrix_without_sync)},
    {CASE(loads_matrix_misaligned)},
    {CASE(loads_matrix_from_global_memory)},
    {"has_too_many_threads", works, 1, 1056},
    {"wants_too_much_shared_memory", works, 2, 32, 164 * 1024},
    {"has_no_blocks", works, 0},
};

}  // namespace

// y has 128 floats. Returns the launch's error, or -1 where the name is unknown.
extern "C" __attribute__((visibility("default"))) int run_bug(const char* name, const float* x, float* y) {
  for (const Case& bug : kCases) {
    if (std::strcmp(bug.name, name) != 0) continue;
    return launch(bug.kernel, dim3(bug.blocks), dim3(bug.threads), bug.shared_bytes, nullptr,
                  {Buffer::input("x", x, kLength * 4), Buffer::output("y", y, kLength * 4),
                   Buffer::update("extra", y + kLength, bug.extra * 4)},
                  x, y);
  }
  return -1;
}

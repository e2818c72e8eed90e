// What a kernel needs from the emulator. The definitions live in the runtime, which is never instrumented: what they
// touch is not taken for an access of the kernel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/types.h"

namespace ganops {

// A piece of global memory that a launch may touch, and how. See common/device.h.
struct Buffer {
  enum class Use { kInput, kOutput, kUpdate, kScratch };
  const char* name;
  const void* data;
  int64_t bytes;
  Use use;

  static Buffer input(const char* name, const void* data, int64_t bytes) { return {name, data, bytes, Use::kInput}; }
  static Buffer output(const char* name, void* data, int64_t bytes) { return {name, data, bytes, Use::kOutput}; }
  static Buffer update(const char* name, void* data, int64_t bytes) { return {name, data, bytes, Use::kUpdate}; }
  static Buffer scratch(const char* name, void* data, int64_t bytes) { return {name, data, bytes, Use::kScratch}; }
};

struct DeviceProperties {
  int compute_capability;          // 80 for 8.0
  int multiprocessors;             //
  int64_t shared_bytes_per_block;  // the most that a launch may ask for
};

cudaError_t device_properties(DeviceProperties* properties);

namespace simt {

class Worker;

// Where in the source a thread waits. Lanes that wait for one another must wait at the same place.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// What a CUDA thread knows of itself.
struct ThreadContext {
  uint3 thread;
  uint3 block;
  dim3 block_size;
  dim3 grid_size;
};

// Every fiber's stack is one aligned piece of memory with the context of its thread near the top, so the context is
// found from the address of any local variable: faster than thread-local storage, and plainly the thread's own memory
// to the checker. Stacks are coloured: the context, and the stack just below it, start at different cache sets in
// neighbouring stacks.
inline constexpr uintptr_t kStackBytes = uintptr_t{1} << 17;
inline constexpr uintptr_t kPageBytes = 4096;
inline constexpr uintptr_t kColours = 32;
inline constexpr uintptr_t kColourBytes = kPageBytes / kColours;

[[gnu::always_inline]] inline ThreadContext& context_of_stack(uintptr_t stack) {
  const uintptr_t colour = stack / kStackBytes % kColours * kColourBytes;
  return *reinterpret_cast<ThreadContext*>(stack + kStackBytes - 2 * kPageBytes + colour);
}

[[gnu::always_inline]] inline uintptr_t stack_of(const void* address) {
  return reinterpret_cast<uintptr_t>(address) & ~(kStackBytes - 1);
}

[[gnu::always_inline]] inline ThreadContext& self() {
  return context_of_stack(stack_of(__builtin_frame_address(0)));
}

// Block-wide. Returns how many threads of the block passed a true predicate.
int barrier(bool predicate, Site site);

enum class Shuffle { kIndex, kUp, kDown, kXor };

void sync_warp(uint32_t mask, Site site);
uint64_t shuffle(Shuffle mode, uint32_t mask, uint64_t bits, unsigned operand, unsigned width, Site site);
uint32_t ballot(uint32_t mask, bool predicate, Site site);
void ldmatrix(uint32_t* registers, int matrices, bool transpose, const void* row, Site site);
void mma(half_t, float* d, const uint32_t* a, const uint32_t* b, const float* c, Site site);
void mma(bfloat16_t, float* d, const uint32_t* a, const uint32_t* b, const float* c, Site site);

void cp_async(void* shared, const void* global, size_t bytes, bool predicate);
void cp_async_commit();
void cp_async_wait(size_t groups);

// Each returns the value before.
float atomic_add(float* address, float value);
double atomic_add(double* address, double value);
int atomic_add(int* address, int value);
unsigned atomic_add(unsigned* address, unsigned value);
unsigned long long atomic_add(unsigned long long* address, unsigned long long value);
int atomic_max(int* address, int value);
unsigned atomic_max(unsigned* address, unsigned value);
int atomic_cas(int* address, int compare, int value);
unsigned atomic_cas(unsigned* address, unsigned compare, unsigned value);
unsigned long long atomic_cas(unsigned long long* address, unsigned long long compare, unsigned long long value);

// The same storage for every thread of a block; a different one for every key.
void* shared_variable(const void* key, const char* name, size_t bytes);
void* shared_dynamic();

void count_flops(unsigned count);

struct LaunchRequest {
  const void* kernel;
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
  const Buffer* buffers;
  size_t buffer_count;
  void (*invoke)(const void* call);  // runs the kernel as one thread
  const void* call;                  // the kernel and its arguments
  size_t call_bytes;
};

cudaError_t run(const LaunchRequest& request);

}  // namespace simt
}  // namespace ganops

// The 16-bit numbers, for comparison with torch's.
#include "common/device.h"

using namespace ganops;

namespace {

template <class T>
__global__ void convert(const T* narrow_in, float* wide_out, const float* wide_in, T* narrow_out, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  wide_out[i] = widen(narrow_in[i]);
  float low, high;
  unpack<T>(pack<T>(wide_in[i], -wide_in[i]), low, high);
  narrow_out[i] = low == -high || low != low ? narrow<T>(wide_in[i]) : narrow<T>(0.0f);
}

template <class T>
int run(const T* narrow_in, float* wide_out, const float* wide_in, T* narrow_out, int count) {
  return launch(convert<T>, dim3((count + 255) / 256), dim3(256), 0, nullptr,
                {Buffer::input("narrow_in", narrow_in, count * 2), Buffer::output("wide_out", wide_out, count * 4),
                 Buffer::input("wide_in", wide_in, count * 4), Buffer::output("narrow_out", narrow_out, count * 2)},
                narrow_in, wide_out, wide_in, narrow_out, count);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int run_half(const half_t* narrow_in, float* wide_out, const float* wide_in, half_t* narrow_out, int count) {
  return run(narrow_in, wide_out, wide_in, narrow_out, count);
}
EXPORT int run_bfloat16(const bfloat16_t* narrow_in, float* wide_out, const float* wide_in, bfloat16_t* narrow_out,
                        int count) {
  return run(narrow_in, wide_out, wide_in, narrow_out, count);
}

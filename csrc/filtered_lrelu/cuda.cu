#include "filtered_lrelu/params.h"
// Needs the parameters' headers first.
#include "common/cuda.h"
#include "filtered_lrelu/direct.h"

namespace ganops {
namespace {

int64_t planes(const FilteredLreluParams& p) {
  return p.batch * p.channels;
}

template <class Kernel, class... Arguments>
void launch_filtered_lrelu(Kernel* kernel, int64_t element_bytes, int64_t blocks, int threads, void* stream,
                           const FilteredLreluParams& p, const Arguments&... arguments) {
  const int64_t compute_bytes = p.dtype == DType::f64 ? sizeof(double) : sizeof(float);
  const int64_t codes_bytes = planes(p) * p.codes_height * ceil_div(p.codes_width, kCodesPerByte);
  const auto taps = [](const FirFilter& f) { return f.separable ? f.width : f.height * f.width; };
  cudaError_t error = cudaErrorInvalidConfiguration;
  if (blocks <= std::numeric_limits<int32_t>::max()) {
    error = launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, static_cast<cudaStream_t>(stream),
                   {Buffer::input("x", p.x, planes(p) * p.height * p.width * element_bytes),
                    Buffer::input("b", p.b, p.channels * element_bytes),
                    Buffer::input("fu", p.fu.data, taps(p.fu) * compute_bytes),
                    Buffer::input("fd", p.fd.data, taps(p.fd) * compute_bytes),
                    Buffer::input("read_codes", p.read_codes, codes_bytes),
                    Buffer::output("write_codes", p.write_codes, codes_bytes),
                    Buffer::output("y", p.y, planes(p) * p.out_height * p.out_width * element_bytes)},
                   p, arguments...);
  }
  check_launch(error, "filtered_lrelu", p.batch, p.channels, p.height, p.width, p.out_height, p.out_width);
}

template <class T>
void launch_direct(const FilteredLreluParams& p, void* stream) {
  const int64_t tiles_x = ceil_div(p.out_width, kDirectTile), tiles_y = ceil_div(p.out_height, kDirectTile);
  launch_filtered_lrelu(filtered_lrelu_direct_kernel<T>, sizeof(T), tiles_x * tiles_y * planes(p), kDirectThreads,
                        stream, p, LeakyRelu<accumulate_t<T>>(p), tiles_x, tiles_y);
}

}  // namespace

void launch_filtered_lrelu_cuda(const FilteredLreluParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) { launch_direct<typename decltype(tag)::type>(p, stream); });
}

}  // namespace ganops

#include <algorithm>
#include <iterator>
#include <limits>
#include <type_traits>
#include <utility>

#include "filtered_lrelu/params.h"
// Needs the parameters' headers first.
#include "common/cuda.h"
#include "filtered_lrelu/direct.h"
#include "filtered_lrelu/march.h"

namespace ganops {
namespace {

int64_t planes(const FilteredLreluParams& p) {
  return p.batch * p.channels;
}

int64_t code_row_bytes(const FilteredLreluParams& p) {
  return ceil_div(p.codes_width, kCodesPerByte);
}

int64_t code_bytes(const FilteredLreluParams& p) {
  return planes(p) * p.codes_height * code_row_bytes(p);
}

void check_filtered_lrelu(cudaError_t error, const FilteredLreluParams& p) {
  check_launch(error, "filtered_lrelu", p.batch, p.channels, p.height, p.width, p.out_height, p.out_width);
}

template <class Kernel, class... Arguments>
void launch_filtered_lrelu(Kernel* kernel, int64_t element_bytes, int64_t blocks, int threads, void* stream,
                           const FilteredLreluParams& p, const Arguments&... arguments) {
  const int64_t compute_bytes = p.dtype == DType::f64 ? sizeof(double) : sizeof(float);
  const auto taps = [](const FirFilter& f) { return f.separable ? f.width : f.height * f.width; };
  cudaError_t error = cudaErrorInvalidConfiguration;
  if (blocks <= std::numeric_limits<int32_t>::max()) {
    error = launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, static_cast<cudaStream_t>(stream),
                   {Buffer::input("x", p.x, planes(p) * p.height * p.width * element_bytes),
                    Buffer::input("b", p.b, p.channels * element_bytes),
                    Buffer::input("fu", p.fu.data, taps(p.fu) * compute_bytes),
                    Buffer::input("fd", p.fd.data, taps(p.fd) * compute_bytes),
                    Buffer::input("read_codes", p.read_codes, code_bytes(p)),
                    Buffer::output("write_codes", p.write_codes, code_bytes(p)),
                    Buffer::output("y", p.y, planes(p) * p.out_height * p.out_width * element_bytes)},
                   p, arguments...);
  }
  check_filtered_lrelu(error, p);
}

template <class T>
void launch_direct(const FilteredLreluParams& p, void* stream) {
  const int64_t tiles_x = ceil_div(p.out_width, kDirectTile), tiles_y = ceil_div(p.out_height, kDirectTile);
  launch_filtered_lrelu(filtered_lrelu_direct_kernel<T>, sizeof(T), tiles_x * tiles_y * planes(p), kDirectThreads,
                        stream, p, LeakyRelu<accumulate_t<T>>(p), tiles_x, tiles_y);
}

// Enough blocks to fill a GPU a few times, but no segment so short that filling its windows costs more than it brings.
constexpr int64_t kBlocksPerMultiprocessor = 8, kLeastSegmentRows = 32, kMostSegmentRows = 1 << 16;

// The first sample that an output needs is this far from the start of its group.
int lead(int64_t pad, int64_t up) {
  return static_cast<int>(((-pad - 1) % up + up) % up);
}

MarchGrid march_grid(const FilteredLreluParams& p, int64_t out_columns, int64_t element_bytes) {
  DeviceProperties device{};
  check_filtered_lrelu(device_properties(&device), p);
  MarchGrid grid{};
  grid.strips = ceil_div(p.out_width, out_columns);
  const int64_t wanted = ceil_div(kBlocksPerMultiprocessor * device.multiprocessors, grid.strips * planes(p));
  const int64_t segments =
      std::clamp(wanted, ceil_div(p.out_height, kMostSegmentRows), ceil_div(p.out_height, kLeastSegmentRows));
  grid.segment_rows = round_up_to(kMarchRowUnit, static_cast<int>(ceil_div(p.out_height, segments)));
  grid.segments = ceil_div(p.out_height, grid.segment_rows);
  const auto rows_aligned_to = [&](int length) {
    return !p.channels_last && p.out_width % length == 0 && is_aligned(p.y, length * element_bytes);
  };
  grid.store_length = rows_aligned_to(kStoreLength) ? kStoreLength : rows_aligned_to(2) ? 2 : 1;
  grid.elements = planes(p) * p.height * p.width;
  grid.code_row_bytes = code_row_bytes(p);
  grid.code_bytes = code_bytes(p);
  grid.lead_x = lead(p.pad_x, p.up);
  grid.lead_y = lead(p.pad_y, p.up);
  return grid;
}

template <class T, int index, bool reads_codes>
void launch_march(const FilteredLreluParams& p, void* stream) {
  using C = accumulate_t<T>;
  using M = March<index>;
  const MarchGrid grid = march_grid(p, M::kOutColumns, sizeof(T));
  const C gain = static_cast<C>(p.gain * static_cast<double>(p.up * p.up));
  launch_filtered_lrelu(filtered_lrelu_march_kernel<T, index, reads_codes>, sizeof(T),
                        grid.strips * grid.segments * planes(p), M::kColumns, stream, p, LeakyRelu<C>(p), gain, grid);
}

bool is_for(const MarchSpec& spec, const FilteredLreluParams& p) {
  const auto has = [](const FirFilter& f, int taps, bool full) {
    return f.data && f.separable == !full && f.width == taps && f.height == taps;
  };
  // Without a gain all samples are zero, and only the direct kernel keeps their signs.
  return p.up == spec.up && p.down == spec.down && has(p.fu, spec.up_taps, spec.up_full) &&
         has(p.fd, spec.down_taps, spec.down_full) && p.gain != 0;
}

// Launches the instance that is for these parameters, if there is one.
template <class T, int... indices>
bool launch_march(const FilteredLreluParams& p, void* stream, std::integer_sequence<int, indices...>) {
  const auto try_one = [&](auto index) {
    if (!is_for(kMarchSpecs[index()], p)) return false;
    p.read_codes ? launch_march<T, index(), true>(p, stream) : launch_march<T, index(), false>(p, stream);
    return true;
  };
  return (try_one(std::integral_constant<int, indices>{}) || ...);
}

}  // namespace

void launch_filtered_lrelu_cuda(const FilteredLreluParams& p, void* stream) {
  dispatch_device(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      if (launch_march<T>(p, stream, std::make_integer_sequence<int, std::size(kMarchSpecs)>{})) return;
    }
    launch_direct<T>(p, stream);
  });
}

}  // namespace ganops

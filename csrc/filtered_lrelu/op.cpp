#include <tuple>
#include <vector>

#include "common/host.h"
#include "filtered_lrelu/params.h"

namespace ganops {

using LaunchFilteredLrelu = void (*)(const FilteredLreluParams&, void* stream);

inline FirFilter fir_filter(const std::optional<Tensor>& f) {
  if (!f) return {nullptr, 1, 1, true};
  const bool separable = f->dim() == 1;
  return {f->const_data_ptr(), f->size(-1), separable ? f->size(-1) : f->size(0), separable};
}

inline int64_t bytes_for(int64_t codes) {
  return (codes + kCodesPerByte - 1) / kCodesPerByte;
}

// What both ops share: sizes, filters, the result. `p` brings the codes to read, `save_codes` asks for new ones.
inline std::tuple<Tensor, Tensor> run_filtered_lrelu(LaunchFilteredLrelu launch, FilteredLreluParams p,
                                                     const Tensor& x_any, const std::optional<Tensor>& fu_any,
                                                     const std::optional<Tensor>& fd_any,
                                                     const std::optional<Tensor>& b_any,
                                                     const std::vector<int64_t>& padding, bool save_codes) {
  check_image("x", x_any);
  check_padding(padding);
  STD_TORCH_CHECK(p.up >= 1 && p.down >= 1, "up and down must be at least 1");
  const Tensor x = dense(x_any);
  const std::optional<Tensor> fu = filter_for("fu", x, fu_any), fd = filter_for("fd", x, fd_any),
                              b = bias_for(x, b_any, x.size(1));
  p.fu = fir_filter(fu);
  p.fd = fir_filter(fd);
  p.dtype = dtype_of(x);
  p.channels_last = is_channels_last(x);
  p.batch = x.size(0);
  p.channels = x.size(1);
  p.height = x.size(2);
  p.width = x.size(3);
  p.up_height = p.height * p.up + padding[2] + padding[3] - (p.fu.height - 1);
  p.up_width = p.width * p.up + padding[0] + padding[1] - (p.fu.width - 1);
  p.out_height = (p.up_height - p.fd.height + p.down) / p.down;
  p.out_width = (p.up_width - p.fd.width + p.down) / p.down;
  STD_TORCH_CHECK(p.up_height >= p.fd.height && p.up_width >= p.fd.width, "x and padding leave no output");
  p.pad_x = padding[0];
  p.pad_y = padding[2];
  Tensor y = new_image(x, p.out_height, p.out_width, format_of(x));

  std::vector<int64_t> codes_size = {0};
  if (save_codes) {
    p.codes_height = p.up_height;
    p.codes_width = p.up_width;
    codes_size = {p.batch, p.channels, p.codes_height, bytes_for(p.codes_width)};
  }
  Tensor codes = torch::stable::empty(codes_size, ScalarType::Byte, std::nullopt, x.device());

  p.x = x.const_data_ptr();
  p.b = data_or_null(b);
  p.y = y.mutable_data_ptr();
  p.write_codes = save_codes ? static_cast<uint8_t*>(codes.mutable_data_ptr()) : nullptr;
  if (y.numel() > 0) launch(p, stream_of(x));
  return {y, codes};
}

template <LaunchFilteredLrelu launch>
std::tuple<Tensor, Tensor> filtered_lrelu(const Tensor& x, const std::optional<Tensor>& fu,
                                          const std::optional<Tensor>& fd, const std::optional<Tensor>& b, int64_t up,
                                          int64_t down, const std::vector<int64_t>& padding, double gain, double slope,
                                          double clamp, bool flip_filter, bool save_codes) {
  FilteredLreluParams p{};
  p.up = up;
  p.down = down;
  p.gain = gain;
  p.slope = slope;
  p.clamp = clamp;
  p.flip_filter = flip_filter;
  return run_filtered_lrelu(launch, p, x, fu, fd, b, padding, save_codes);
}

template <LaunchFilteredLrelu launch>
Tensor filtered_lrelu_grad(const Tensor& x, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd,
                           const Tensor& codes_any, int64_t codes_width, const std::vector<int64_t>& offset, int64_t up,
                           int64_t down, const std::vector<int64_t>& padding, double gain, double slope,
                           bool flip_filter) {
  check_image("x", x);
  STD_TORCH_CHECK(codes_any.dim() == 4 && codes_any.size(0) == x.size(0) && codes_any.size(1) == x.size(1) &&
                      codes_width >= 0 && codes_any.size(3) == bytes_for(codes_width) &&
                      codes_any.scalar_type() == ScalarType::Byte,
                  "codes must be those of a forward pass with x's batch and channels");
  check_device("codes", x, codes_any);
  STD_TORCH_CHECK(offset.size() == 2, "offset must be [x, y], got ", offset.size(), " numbers");
  const Tensor codes = torch::stable::contiguous(codes_any);
  FilteredLreluParams p{};
  p.up = up;
  p.down = down;
  p.gain = gain;
  p.slope = slope;
  p.clamp = -1;
  p.flip_filter = flip_filter;
  p.read_codes = static_cast<const uint8_t*>(codes.const_data_ptr());
  p.codes_height = codes.size(2);
  p.codes_width = codes_width;
  p.codes_x = offset[0];
  p.codes_y = offset[1];
  return std::get<0>(run_filtered_lrelu(launch, p, x, fu, fd, std::nullopt, padding, false));
}

}  // namespace ganops

GANOPS_REGISTER(filtered_lrelu, launch_filtered_lrelu)
GANOPS_REGISTER(filtered_lrelu_grad, launch_filtered_lrelu)

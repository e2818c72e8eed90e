#include "common/host.h"
#include "upfirdn2d/params.h"

namespace ganops {

// up and down are (x, y), padding is (x_before, x_after, y_before, y_after); axis 0 is x.
inline Upfirdn2dAxis make_axis(int axis, int64_t in, int64_t taps, const std::vector<int64_t>& up,
                               const std::vector<int64_t>& down, const std::vector<int64_t>& padding) {
  const int64_t before = padding[2 * axis], after = padding[2 * axis + 1];
  const int64_t out = (in * up[axis] + before + after - taps + down[axis]) / down[axis];
  return {in, out, up[axis], down[axis], before, taps};
}

using LaunchUpfirdn2d = void (*)(const Upfirdn2dParams&, void* stream);

template <LaunchUpfirdn2d launch>
Tensor upfirdn2d(const Tensor& x_any, const std::optional<Tensor>& f_any, const std::vector<int64_t>& up,
                 const std::vector<int64_t>& down, const std::vector<int64_t>& padding, bool flip_filter, double gain) {
  check_image("x", x_any);
  STD_TORCH_CHECK(up.size() == 2 && down.size() == 2, "up and down must be [x, y], got ", up.size(), " and ",
                  down.size(), " numbers");
  check_padding(padding);
  STD_TORCH_CHECK(std::min({up[0], up[1], down[0], down[1]}) >= 1, "up and down must be at least 1");
  const Tensor x = dense(x_any);
  const std::optional<Tensor> f = filter_for("f", x, f_any);
  const int64_t taps_x = f ? f->size(f->dim() - 1) : 1, taps_y = f ? f->size(0) : 1;

  Upfirdn2dParams p{};
  p.samples = x.size(0);
  p.channels = x.size(1);
  p.width = make_axis(0, x.size(3), taps_x, up, down, padding);
  p.height = make_axis(1, x.size(2), taps_y, up, down, padding);
  STD_TORCH_CHECK(p.width.out >= 1 && p.height.out >= 1, "an output of ", p.height.out, "x", p.width.out,
                  " must be at least 1x1");
  const MemoryFormat format = format_of(x);
  Tensor y = new_image(x, p.height.out, p.width.out, format);
  p.x = x.const_data_ptr();
  p.f = data_or_null(f);
  p.y = y.mutable_data_ptr();
  p.dtype = dtype_of(x);
  p.channels_last = format == MemoryFormat::ChannelsLast;
  p.separable = f && f->dim() == 1;
  p.flip_filter = flip_filter;
  p.gain = gain;
  if (y.numel() > 0) launch(p, stream_of(x));
  return y;
}

}  // namespace ganops

GANOPS_REGISTER(upfirdn2d, launch_upfirdn2d)

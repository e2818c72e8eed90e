// What follows an upsampling convolution on a CPU: FIR filter, scale, noise, bias and activation in one pass over its
// four phases. Rows are interleaved, filtered and finished in L1.
#include "bias_act/activation.h"
#include "bias_act/math.h"
#include "common/cpu.h"
#include "modulated_conv2d/params.h"
#define GANOPS_KERNEL_FILE "modulated_conv2d/phases.cpp"
#include "common/isa.h"
// Once per instruction set, too.
#include "bias_act/cpu.h"

#ifndef GANOPS_PHASES_PARAMS
#define GANOPS_PHASES_PARAMS
namespace ganops {

// Spaces: a phase; the upsampled image, whose pixel (2i + y, 2j + x) is phase (y, x)'s (i, j); the output. An output
// pixel is the filter's sum over the upsampled image from its own place less `before` on.
struct PhasesParams {
  const void* phase[2][2];  // [N, C, ceil((height - y) / 2), ceil((width - x) / 2)]
  int64_t height, width;    // of the upsampled image
  const void* f;            // [f_height, f_width] in the compute type, to correlate with
  int64_t f_height, f_width;
  int64_t before_y, before_x;  // may be negative
  int64_t out_height, out_width;
  EpilogueParams epilogue;  // its x is not used; pixels are the output's
};

}  // namespace ganops
#endif

namespace ganops::GANOPS_ISA {

constexpr int64_t kBlock = 4;  // vectors of a row that are accumulated at a time

// out[x] = sum of f[j][i] * rows[j][x + i], for x up to the next multiple of a block.
template <class C>
void filter_row(C* out, const C* const* rows, const C* f, int64_t f_height, int64_t f_width, int64_t width) {
  for (int64_t x = 0; x < width; x += kBlock * kLanes<C>) {
    Vec<C> sum[kBlock] = {};
    for (int64_t j = 0; j < f_height; j++)
      for (int64_t i = 0; i < f_width; i++)
        for (int64_t v = 0; v < kBlock; v++) sum[v] += f[j * f_width + i] * load(rows[j] + x + i + v * kLanes<C>);
    for (int64_t v = 0; v < kBlock; v++) store(out + x + v * kLanes<C>, sum[v]);
  }
}

template <class T>
void finish_plane(const PhasesParams& p, const BiasActBlock<compute_t<T>>& activate, int64_t plane) {
  using C = compute_t<T>;
  const EpilogueParams& e = p.epilogue;
  const int64_t n = plane / e.channels, channel = plane % e.channels;
  const C* f = static_cast<const C*>(p.f);
  const C scale = e.scale ? static_cast<const C*>(e.scale)[plane] : C(1);
  const C bias = e.b ? static_cast<const C*>(e.b)[channel] : C(0);
  const C* noise = e.noise ? static_cast<const C*>(e.noise) + n * e.noise_stride : nullptr;
  T* y = static_cast<T*>(e.y) + plane * e.pixels;

  // A ring of upsampled rows. The image begins `before_x` after the window, or before it; around it are zeros.
  const int64_t margin = std::max<int64_t>(-p.before_x, 0), window = p.out_width + p.f_width + kBlock * kLanes<C>;
  const int64_t stride = margin + std::max(window, p.before_x + p.width + 1), half = (p.width + 1) / 2;
  std::vector<C> ring(p.f_height * stride), parts(2 * half), out(p.out_width + kBlock * kLanes<C>);
  std::vector<const C*> rows(p.f_height);
  for (int64_t row = 0; row < p.out_height + p.f_height - 1; row++) {
    C* to = ring.data() + row % p.f_height * stride;
    const int64_t from = row - p.before_y;
    if (from < 0 || from >= p.height) {
      std::fill_n(to, stride, C(0));
    } else {
      for (int64_t x = 0; x < 2; x++) {
        const int64_t height = (p.height + 1 - from % 2) / 2, width = (p.width + 1 - x) / 2;
        const T* phase = static_cast<const T*>(p.phase[from % 2][x]) + (plane * height + from / 2) * width;
        load_row(parts.data() + x * half, phase, width);
      }
      C* image = to + margin + p.before_x;
      for (int64_t i = 0; i < p.width / 2; i++) {
        image[2 * i] = parts[i];
        image[2 * i + 1] = parts[half + i];
      }
      if (p.width % 2) image[p.width - 1] = parts[half - 1];
    }
    const int64_t out_row = row - p.f_height + 1;
    if (out_row < 0) continue;
    for (int64_t j = 0; j < p.f_height; j++) rows[j] = ring.data() + (out_row + j) % p.f_height * stride + margin;
    filter_row(out.data(), rows.data(), f, p.f_height, p.f_width, p.out_width);
    const C* noise_row = noise ? noise + out_row * p.out_width : nullptr;
    for (int64_t x = 0; x < p.out_width; x++) out[x] = out[x] * scale + (noise_row ? noise_row[x] : C(0));
    activate(out.data(), nullptr, nullptr, bias, out.data(), p.out_width);
    store_row(y + out_row * p.out_width, out.data(), p.out_width);
  }
}

void finish_phases(const PhasesParams& p) {
  dispatch(p.epilogue.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int64_t kGrain = 1 << 14;  // pixels that are worth a thread
    const BiasActBlock<compute_t<T>> activate(p.epilogue.activation);
    parallel_for(p.epilogue.batch * p.epilogue.channels, kGrain / p.epilogue.pixels + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t plane = begin; plane < end; plane++) finish_plane<T>(p, activate, plane);
                 });
  });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {

// Phases are [N, C, ceil((height - y) / 2), ceil((width - x) / 2)]; f is [height, width], to correlate with.
Tensor modulated_conv2d_phases(const Tensor& even_even, const Tensor& even_odd, const Tensor& odd_even,
                               const Tensor& odd_odd, const Tensor& f, const std::optional<Tensor>& scale,
                               const std::optional<Tensor>& noise, const std::optional<Tensor>& b,
                               const std::vector<int64_t>& padding, StringHandle act, double alpha, double gain,
                               double clamp) {
  const ActivationParams activation = parse_activation(act, alpha, gain, clamp);
  check_image("even_even", even_even);
  STD_TORCH_CHECK(odd_odd.dim() == 4, "odd_odd must be [N, C, H, W]");
  const int64_t n = even_even.size(0), channels = even_even.size(1);
  PhasesParams p{};
  p.height = even_even.size(2) + odd_odd.size(2);
  p.width = even_even.size(3) + odd_odd.size(3);
  const auto check_phase = [&](const char* name, const Tensor& phase, int64_t y, int64_t x) {
    check_sizes(name, phase, {n, channels, ceil_div(p.height - y, 2), ceil_div(p.width - x, 2)});
    STD_TORCH_CHECK(phase.scalar_type() == even_even.scalar_type(), "phases must have one dtype");
  };
  check_phase("even_even", even_even, 0, 0);
  check_phase("even_odd", even_odd, 0, 1);
  check_phase("odd_even", odd_even, 1, 0);
  check_phase("odd_odd", odd_odd, 1, 1);
  check_padding(padding);
  STD_TORCH_CHECK(f.dim() == 2 && f.numel() > 0, "f must be [height, width], and not empty");
  p.f_height = f.size(0);
  p.f_width = f.size(1);
  p.before_x = padding[0];
  p.before_y = padding[2];
  p.out_height = p.height + padding[2] + padding[3] - p.f_height + 1;
  p.out_width = p.width + padding[0] + padding[1] - p.f_width + 1;
  STD_TORCH_CHECK(p.out_height >= 1 && p.out_width >= 1, "an output of ", p.out_height, "x", p.out_width,
                  " must be at least 1x1");
  const Tensor phases[2][2] = {{torch::stable::contiguous(even_even), torch::stable::contiguous(even_odd)},
                               {torch::stable::contiguous(odd_even), torch::stable::contiguous(odd_odd)}};
  const Tensor& x = phases[0][0];
  const auto f_c = in_compute_dtype(x, f), scale_c = operand("scale", x, scale, {n, channels}),
             noise_c = noise_for(x, noise, p.out_height, p.out_width), b_c = operand("b", x, b, {channels});
  for (int i = 0; i < 4; i++) p.phase[i / 2][i % 2] = phases[i / 2][i % 2].const_data_ptr();
  p.f = data_or_null(f_c);
  Tensor y = new_image(x, p.out_height, p.out_width, MemoryFormat::Contiguous);

  EpilogueParams& e = p.epilogue;
  e.scale = data_or_null(scale_c);
  e.noise = data_or_null(noise_c);
  e.b = data_or_null(b_c);
  e.y = y.mutable_data_ptr();
  e.batch = n;
  e.channels = channels;
  e.pixels = p.out_height * p.out_width;
  e.noise_stride = noise && noise->size(0) > 1 ? e.pixels : 0;
  e.dtype = dtype_of(x);
  e.activation = activation;
  if (y.numel() > 0) GANOPS_BEST_ISA(finish_phases)(p);
  return y;
}

}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("modulated_conv2d_phases", TORCH_BOX(&ganops::modulated_conv2d_phases));
}
#endif

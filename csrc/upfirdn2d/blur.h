// Filters of 4x4 taps that keep the sampling rate, on planes of float: StyleGAN2's blur. Included once per instruction
// set: see common/isa.h.
//
// Some output rows are made at once, a vector of columns at a time: the columns of the input rows are summed along y in
// registers; then this sum and the one to its right, shifted against each other, are summed along x. Nothing else is
// kept, so that narrow planes and borders cost little.
namespace ganops::GANOPS_ISA {

constexpr int kBlurTaps = 4;
constexpr int kBlurRows = kRegisters / 8;  // made at once: sums, inputs and taps fit into registers

// `rows` output rows of n pixels from rows + 3 input rows of `width` pixels, whose pixel -padding is the first that an
// output meets. Outside a row there are zeros. Calls write(at, vector, count) with `count` elements, or more than a
// vector has, that belong `at` elements from the first.
template <int rows, class F>
GANOPS_INLINE void blur_rows(const float* const* x, int64_t width, int64_t padding, int64_t n,
                             const Taps<float>& filter, const F& write) {
  constexpr int64_t kStep = kLanes<float>;
  constexpr int kInputs = rows + kBlurTaps - 1;
  Vec<float> tap_x[kBlurTaps], tap_y[kBlurTaps], left[rows], right[rows] = {};
  for (int t = 0; t < kBlurTaps; t++) {
    tap_x[t] = broadcast(filter.x[t]);
    tap_y[t] = broadcast(filter.y[t]);
  }
  const auto sum_columns = [&](int64_t first, Vec<float>(&sum)[rows]) __attribute__((always_inline)) {
    // The rows that come next are too many streams for the processor to run ahead by itself.
    for (int i = kBlurTaps - 1; i < kInputs; i++) __builtin_prefetch(x[i] + rows * width + first);
    Vec<float> in[kInputs];
    if (first >= 0 && first + kStep <= width) {
      for (int i = 0; i < kInputs; i++) in[i] = load_once(x[i] + first);
    } else {
      const Lanes inside(-first, width - first);
      for (int i = 0; i < kInputs; i++) in[i] = load_lanes(x[i] + first, inside);
    }
    unrolled<rows>([&](auto row) __attribute__((always_inline)) {
      sum[row] = tap_y[0] * in[row];
      for (int t = 1; t < kBlurTaps; t++) sum[row] += tap_y[t] * in[row + t];
    });
  };
  sum_columns(-padding, left);
  for (int64_t i = 0; i < n; i += kStep) {
    if (n - i > kStep - (kBlurTaps - 1)) sum_columns(i + kStep - padding, right);
    unrolled<rows>([&](auto row) __attribute__((always_inline)) {
      Vec<float> sum = tap_x[0] * left[row];
      sum += tap_x[1] * shifted<1>(left[row], right[row]);
      sum += tap_x[2] * shifted<2>(left[row], right[row]);
      sum += tap_x[3] * shifted<3>(left[row], right[row]);
      write(row * n + i, sum, n - i);
      left[row] = right[row];
    });
  }
}

inline bool is_blur(const Upfirdn2dParams& p, const Taps<float>& filter) {
  const auto keeps_rate = [](const Upfirdn2dAxis& axis) {
    return axis.up == 1 && axis.down == 1 && axis.taps == kBlurTaps;
  };
  return !p.channels_last && !filter.y.empty() && keeps_rate(p.width) && keeps_rate(p.height);
}

inline void blur(const Upfirdn2dParams& p, const Taps<float>& filter) {
  const Upfirdn2dAxis &w = p.width, &h = p.height;
  const float* x = static_cast<const float*>(p.x);
  float* y = static_cast<float*>(p.y);
  const int64_t planes = p.samples * p.channels, blocks = ceil_div(h.out, kBlurRows);
  const bool streamed = is_streamed(planes * h.out * w.out * sizeof(float));
  const bool in_place = w.out % kLanes<float> == 0 && starts_vector(y);
  parallel_for(planes * blocks, kGrain / (kBlurRows * w.out) + 1, [&](int64_t begin, int64_t end) {
    const std::vector<float> zeros(w.in);
    std::vector<float> made(streamed && !in_place ? kBlurRows * w.out : 0);
    for (int64_t item = begin; item < end; item++) {
      const int64_t plane = item / blocks, first = item % blocks * kBlurRows;
      const float* rows[kBlurRows + kBlurTaps - 1];
      for (int i = 0; i < kBlurRows + kBlurTaps - 1; i++) {
        const int64_t row = first - h.padding + i;
        rows[i] = row >= 0 && row < h.in ? x + (plane * h.in + row) * w.in : zeros.data();
      }
      float* to = y + (plane * h.out + first) * w.out;
      const auto make = [&](auto count, const float* const* from, const auto& write)
                            __attribute__((always_inline)) {
        blur_rows<decltype(count)::value>(from, w.in, w.padding, w.out, filter, write);
      };
      constexpr std::integral_constant<int, kBlurRows> kAll{};
      if (first + kBlurRows > h.out) {
        for (int64_t i = 0; i < h.out - first; i++)
          make(std::integral_constant<int, 1>{}, rows + i, [&](int64_t at, Vec<float> sum, int64_t count) {
            store_first(to + i * w.out + at, sum, count);
          });
      } else if (!streamed) {
        make(kAll, rows, [&](int64_t at, Vec<float> sum, int64_t count) { store_first(to + at, sum, count); });
      } else if (in_place) {
        make(kAll, rows, [&](int64_t at, Vec<float> sum, int64_t) { stream(to + at, sum); });
      } else {
        make(kAll, rows, [&](int64_t at, Vec<float> sum, int64_t n) { store_first(made.data() + at, sum, n); });
        stream_row(to, made.data(), kBlurRows * w.out);
      }
    }
    if (streamed) finish_streams();
  });
}

}  // namespace ganops::GANOPS_ISA

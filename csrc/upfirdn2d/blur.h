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
// output meets. Outside a row there are zeros. Calls write(row, i, vector) for pixels i, i + 1, ... of a row, of which
// some at the ends may lie outside; the first i is `first`.
template <int rows, class F>
GANOPS_INLINE void blur_rows(const float* const* x, int64_t width, int64_t padding, int64_t first, int64_t n,
                             const Taps<float>& filter, const F& write) {
  constexpr int64_t kStep = kLanes<float>;
  constexpr int kInputs = rows + kBlurTaps - 1;
  Vec<float> tap_x[kBlurTaps], tap_y[kBlurTaps], left[rows], right[rows] = {};
  for (int t = 0; t < kBlurTaps; t++) {
    tap_x[t] = broadcast(filter.x[t]);
    tap_y[t] = broadcast(filter.y[t]);
  }
  const auto sum_columns = [&](int64_t at, Vec<float>(&sum)[rows]) __attribute__((always_inline)) {
    // The rows that come next are too many streams for the processor to run ahead by itself.
    for (int i = kBlurTaps - 1; i < kInputs; i++) __builtin_prefetch(x[i] + kBlurRows * width + at);
    Vec<float> in[kInputs];
    if (at >= 0 && at + kStep <= width) {
      for (int i = 0; i < kInputs; i++) in[i] = load_once(x[i] + at);
    } else {
      const Lanes inside(-at, width - at);
      for (int i = 0; i < kInputs; i++) in[i] = load_lanes(x[i] + at, inside);
    }
    unrolled<rows>([&](auto row) __attribute__((always_inline)) {
      sum[row] = tap_y[0] * in[row];
      for (int t = 1; t < kBlurTaps; t++) sum[row] += tap_y[t] * in[row + t];
    });
  };
  sum_columns(first - padding, left);
  for (int64_t i = first; i < n; i += kStep) {
    if (n - i > kStep - (kBlurTaps - 1)) sum_columns(i + kStep - padding, right);
    unrolled<rows>([&](auto row) __attribute__((always_inline)) {
      Vec<float> sum = tap_x[0] * left[row];
      sum += tap_x[1] * shifted<1>(left[row], right[row]);
      sum += tap_x[2] * shifted<2>(left[row], right[row]);
      sum += tap_x[3] * shifted<3>(left[row], right[row]);
      write(row, i, sum);
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
  const int64_t planes = p.samples * p.channels;
  const bool streamed = is_streamed(planes * h.out * w.out * sizeof(float));
  // Rows are streamed from where a vector starts, which may be another pixel in each.
  const bool alone = streamed && !(elements_into_vector(y) == 0 && w.out % kLanes<float> == 0);
  const int64_t blocks = ceil_div(h.out, kBlurRows);
  parallel_for(planes * blocks, kGrain / (kBlurRows * w.out) + 1, [&](int64_t begin, int64_t end) {
    const std::vector<float> zeros(w.in);
    for (int64_t item = begin; item < end; item++) {
      const int64_t plane = item / blocks, first = item % blocks * kBlurRows;
      const float* rows[kBlurRows + kBlurTaps - 1];
      for (int i = 0; i < kBlurRows + kBlurTaps - 1; i++) {
        const int64_t row = first - h.padding + i;
        rows[i] = row >= 0 && row < h.in ? x + (plane * h.in + row) * w.in : zeros.data();
      }
      float* to = y + (plane * h.out + first) * w.out;
      if (alone || first + kBlurRows > h.out) {
        for (int64_t i = 0; i < std::min<int64_t>(kBlurRows, h.out - first); i++, to += w.out) {
          __builtin_prefetch(to + kBlurRows * w.out, 1);  // a line that will not be streamed
          const int64_t start = streamed ? -elements_into_vector(to) : 0;
          blur_rows<1>(rows + i, w.in, w.padding, start, w.out, filter, [&](auto, int64_t at, Vec<float> sum) {
            if (streamed && at >= 0 && at + kLanes<float> <= w.out)
              stream(to + at, sum);
            else
              store_lanes(to + at, sum, Lanes(-at, w.out - at));
          });
        }
      } else if (streamed) {
        blur_rows<kBlurRows>(rows, w.in, w.padding, 0, w.out, filter,
                             [&](auto row, int64_t at, Vec<float> sum) { stream(to + row * w.out + at, sum); });
      } else {
        blur_rows<kBlurRows>(rows, w.in, w.padding, 0, w.out, filter, [&](auto row, int64_t at, Vec<float> sum) {
          store_first(to + row * w.out + at, sum, w.out - at);
        });
      }
    }
    if (streamed) finish_streams();
  });
}

}  // namespace ganops::GANOPS_ISA

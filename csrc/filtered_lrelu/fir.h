// Downsampling FIR filters of known sizes, on vectors in registers. Included once per instruction set: see
// common/isa.h.
namespace ganops::GANOPS_ISA {

constexpr int floor_div(int a, int b) {
  return a / b - (a % b < 0);
}

template <bool first, class C>
GANOPS_INLINE void multiply_add(Vec<float>& sum, C coef, Vec<float> x) {
  if constexpr (first)
    sum = coef * x;
  else
    sum += coef * x;
}

// Along y: rows come one by one, and every `down`-th one completes an output row. With a symmetric filter, an output
// row waits for all of its rows, so that rows with the same coefficient are added first; else rows are added to all
// output rows under way.
template <int down, int taps, bool symmetric>
class Downsampling {
 public:
  explicit Downsampling(const float* coef) : coef(coef) {
    unrolled<kRows>([&](auto i) __attribute__((always_inline)) { rows[i] = Vec<float>{}; });
  }

  // Row `row`, counted from the first one of output row 0. Calls write(v) for the output row that it completes.
  template <int row, class F>
  GANOPS_INLINE void take(Vec<float> v, const F& write) {
    if constexpr (symmetric) {
      rows[at(row)] = v;
      if constexpr (floor_div(row + 1, down) * down == row + 1) {
        Vec<float> sum;
        unrolled<taps / 2>([&](auto from_middle) __attribute__((always_inline)) {
          constexpr int k = taps / 2 - 1 - from_middle;  // the newest row last: it has just been made
          multiply_add<from_middle == 0>(sum, coef[k], rows[at(row + 1 + k)] + rows[at(row - k)]);
        });
        write(sum);
      }
    } else {
      unrolled<taps>([&](auto k) __attribute__((always_inline)) {
        constexpr int first = row - k;  // of the output row that takes v with tap k
        if constexpr (floor_div(first, down) * down == first) {
          Vec<float>& sum = rows[at(floor_div(first, down))];
          multiply_add<k == 0>(sum, coef[k], v);
          if constexpr (k == taps - 1) write(sum);
        }
      });
    }
  }

 private:
  static_assert(taps % down == 0 && taps % 2 == 0);
  static constexpr int kRows = symmetric ? taps : taps / down;
  static constexpr int64_t at(int i) { return floor_mod(i, kRows); }

  const float* coef;  // [taps], left in memory, so that rows have the registers
  Vec<float> rows[kRows];
};

// Where a full filter follows. If it is symmetric, it takes of each two rows their sum and their difference: add_rows.
template <int down, bool symmetric>
class Downsampling<down, 0, symmetric> {
 public:
  explicit Downsampling(const float*) {}
  template <int row, class F>
  GANOPS_INLINE void take(Vec<float> v, const F& write) {
    if constexpr (!symmetric) {
      write(v);
    } else if constexpr (floor_mod(row, 2) == 0) {
      upper = v;
    } else {
      write(upper + v);
      write(upper - v);
    }
  }

 private:
  Vec<float> upper = {};
};

// Of each two rows of a full filter half their sum and half their difference.
template <int taps>
void fold(float* coef) {
  for (int i = 0; i < taps; i += 2)
    for (int j = 0; j < taps; j++) {
      float &upper = coef[i * taps + j], &lower = coef[(i + 1) * taps + j];
      const float sum = (upper + lower) / 2;
      lower = (upper - lower) / 2;
      upper = sum;
    }
}

// With a full filter: adds what two rows of samples, kept in `phases` phases, give to all output rows under way, of
// which the first has most of its rows. The first column that an output needs is in phase `first`. coef: [taps][taps].
//
// If the filter is symmetric, samples with the same coefficient are added first along x. Along y, an output row meets
// the rows' coefficients in opposite order to the one as far from the other end of those under way. Of these two, half
// the sum takes only sums of rows, half the difference only differences: half of the products. Both are folded then.
template <int phases, int first, int taps, bool symmetric, int vectors>
GANOPS_INLINE void add_rows(Vec<float> (&sum)[taps / 2][vectors], const float* in, int64_t in_stride,
                            int64_t phase_stride, const float* coef) {
  constexpr int kLive = taps / 2, kTurns = taps / phases;  // taps of a phase
  constexpr int kShifts = (phases + taps - 2) / phases + 1;
  static_assert(taps % phases == 0);
  asm("" : "+r"(coef));  // so that no coefficient occupies a register, or vectors of the stack, for the whole walk
  const auto tap = [&](int live, int i, int j)
                       __attribute__((always_inline)) { return coef + ((kLive - 1 - live) * 2 + i) * taps + j; };
  const auto column_of = [](int j) { return (first + j) / phases; };
  if constexpr (symmetric) {
    static_assert(kLive % 2 == 0 && vectors == 1);
    Vec<float> half[2][kLive / 2];
    unrolled<phases>([&](auto q) __attribute__((always_inline)) {
      // Samples of phase q meet the taps that those of phase `mirror` meet in opposite order.
      constexpr int mirror = (taps - 1 + 2 * first - q + phases) % phases;
      if constexpr (q > mirror) return;
      unrolled<2>([&](auto i) __attribute__((always_inline)) {
        Vec<float> a[kShifts], b[kShifts];
        load_shifted(a, in + i * in_stride + q * phase_stride);
        load_shifted(b, in + i * in_stride + mirror * phase_stride);
        unrolled<kTurns>([&](auto turn) __attribute__((always_inline)) {
          constexpr int j = (q - first + phases) % phases + turn * phases;
          const Vec<float> v = a[column_of(j)] + b[column_of(taps - 1 - j)];
          unrolled<kLive / 2>([&](auto live) __attribute__((always_inline)) {
            multiply_add<q + turn == 0>(half[i][live], *tap(live, i, j), v);
          });
        });
      });
    });
    unrolled<kLive / 2>([&](auto live) __attribute__((always_inline)) {
      sum[live][0] += half[0][live] + half[1][live];
      sum[kLive - 1 - live][0] += half[0][live] - half[1][live];
    });
  } else {
    unrolled<2>([&](auto i) __attribute__((always_inline)) {
      unrolled<taps>([&](auto j) __attribute__((always_inline)) {
        const float* from = in + i * in_stride + (first + j) % phases * phase_stride + column_of(j);
        Vec<float> v[vectors];
        unrolled<vectors>([&](auto n) __attribute__((always_inline)) { v[n] = load_once(from + n * kLanes<float>); });
        unrolled<kLive>([&](auto live) __attribute__((always_inline)) {
          const Vec<float> coefficient = broadcast_once(tap(live, i, j));
          unrolled<vectors>(
              [&](auto n) __attribute__((always_inline)) { multiply_add<false>(sum[live][n], coefficient, v[n]); });
        });
      });
    });
  }
}

}  // namespace ganops::GANOPS_ISA

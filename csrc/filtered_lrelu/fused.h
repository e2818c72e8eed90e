// The passes for filters of known sizes, in registers: float alone. Included once per instruction set: see
// common/isa.h.
namespace ganops::GANOPS_ISA {

// Leaky ReLU and clamp of a vector of samples, gain already applied. The slope is 1 at most, and not 0.
template <bool obey>
struct Activation {
  explicit Activation(const FilteredLreluParams& p)
      : slope(broadcast(float(p.slope))),
        bound(broadcast(p.clamp < 0 ? std::numeric_limits<float>::quiet_NaN() : float(p.clamp))) {}

  // codes: of these samples; null if none are kept.
  GANOPS_INLINE Vec<float> operator()(Vec<float> u, uint8_t* codes) const {
    constexpr char kNegative = static_cast<char>(Code::negative), kClamped = static_cast<char>(Code::clamped);
    if constexpr (obey) return obey_bytes(u, slope, codes, kNegative, kClamped);
    const Vec<float> v = greater(u * slope, u);
    if (codes) store_bytes(codes, u, magnitude(v), bound, kNegative, kClamped);
    return greater(-bound, lesser(bound, v));  // NaN stays NaN
  }
  Vec<float> slope, bound;
};

// What a walk down one vector column reads and writes. A group is `up` rows of the upsampled image.
struct Column {
  const float* in;        // the first group's first input row
  int64_t in_stride;      // from row to row
  const int64_t* offset;  // of the taps along x, where the upsampling filter is full
  uint8_t* codes;         // or null
  float* out;             // lowered, or upsampled if the walk does not downsample
  int64_t stride;         // of the rows of codes and out
  int64_t groups;
  const float *up_coef, *down_coef;  // up_coef: [taps_y][taps_x][up]
};

// Upsamples along y (with taps_x > 1 along x, too), activates, and downsamples along y, all in registers. `lead` is
// the number of rows before the first one that is needed. down_taps = 0: does not downsample.
template <int up, int down, int taps_y, int taps_x, int down_taps, int lead, bool obey, bool symmetric>
void walk(Column c, Activation<obey> activation) {
  float up_coef[taps_y * taps_x * up];  // a copy, which no store can change
  std::copy_n(c.up_coef, taps_y * taps_x * up, up_coef);
  Downsampling<down, down_taps, symmetric> downsampling(c.down_coef);
  const float* in = c.in;
  uint8_t* codes = c.codes;
  const int64_t codes_stride = codes ? c.stride : 0;
  // The first rows to be completed lie before the image; they fall into the margin.
  float* out = c.out + (down_taps ? floor_div(-lead - down_taps + down, down) * c.stride : 0);
  const auto write = [&](Vec<float> v) __attribute__((always_inline)) {
    store(out, v);
    out += c.stride;
  };
  constexpr int kCycle = down_taps ? down_taps : 1;  // rows after which downsampling holds its rows where it did
  constexpr int kPeriod = kCycle / std::gcd(up, kCycle);
  for (int64_t group = 0; group < c.groups;) {
    unrolled<kPeriod>([&](auto turn) __attribute__((always_inline)) {
      if (group++ >= c.groups) return;
      Vec<float> u[up];
      unrolled<taps_y>([&](auto i) __attribute__((always_inline)) {
        unrolled<taps_x>([&](auto j) __attribute__((always_inline)) {
          const Vec<float> x = load_once(in + i * c.in_stride + (taps_x > 1 ? c.offset[j] : 0));
          unrolled<up>([&](auto q) __attribute__((always_inline)) {
            multiply_add<i + j == 0>(u[q], up_coef[(i * taps_x + j) * up + q], x);
          });
        });
      });
      in += c.in_stride;
      unrolled<up>([&](auto q) __attribute__((always_inline)) {
        const Vec<float> v = activation(u[q], codes);
        codes += codes_stride;
        downsampling.template take<turn * up + q - lead>(v, write);
      });
    });
  }
}

// The walk for each lead; a greater lead than down is so many rows less of the output.
template <int up, int down, int taps_y, int taps_x, int down_taps, bool obey, bool symmetric, int... lead>
constexpr auto walks(std::integer_sequence<int, lead...>) {
  using Walk = void (*)(Column, Activation<obey>);
  return std::array<Walk, sizeof...(lead)>{walk<up, down, taps_y, taps_x, down_taps, lead, obey, symmetric>...};
}

template <int up, int down, int taps_y, int taps_x, int down_taps, bool obey, bool symmetric>
void columns_fused(const Plan<float>& plan, const Tile<float>& t) {
  constexpr int kLeads = down_taps || symmetric ? down : 1;
  constexpr auto kWalks =
      walks<up, down, taps_y, taps_x, down_taps, obey, symmetric>(std::make_integer_sequence<int, kLeads>{});
  const Activation<obey> activation(plan.params);
  const bool has_codes = plan.params.read_codes || plan.params.write_codes;
  const Rows& rows = plan.rows;
  float* const out = down_taps ? t.lowered - t.y.lead / down * rows.stride : t.upsampled;
  const TapTable<float>& table = taps_x > 1 ? plan.up_full : plan.up_y;
  for (int64_t q = 0; q < rows.phases; q++) {
    float up_coef[taps_y * taps_x * up];
    const int64_t* offset = nullptr;
    for (int i = 0; i < up; i++) {
      const int64_t begin = table.begin[taps_x > 1 ? i * rows.phases + q : i];
      for (int k = 0; k < taps_y * taps_x; k++) up_coef[k * up + i] = table.coef[begin + k];
      offset = table.offset.data() + begin;
    }
    for (int64_t i = 0; i < t.columns; i += kLanes<float>) {
      const int64_t at = q * rows.phase_stride + i;
      const float* in = taps_x > 1 ? t.input + i : t.widened + at;
      kWalks[t.y.lead % kLeads](
          {in, taps_x > 1 ? plan.in_rows.stride : rows.stride, offset, has_codes ? t.codes + at : nullptr, out + at,
           rows.stride, t.y.groups, up_coef, plan.down_coef.data()},
          activation);
    }
  }
}

// Upsamples a row; phases that take the same inputs share their loads.
template <int up, int down, int taps>
void widen_fused(const Plan<float>& plan, const Tile<float>& t, const float* in, int64_t row) {
  constexpr bool kAdjacent = up % down == 0;  // the input is in plain order
  const Rows& rows = plan.rows;
  for (int64_t first = 0; first < rows.phases; first += up) {
    float coef[taps * up];
    int64_t offset[taps];
    for (int k = 0; k < taps; k++) {
      for (int q = 0; q < up; q++) coef[k * up + q] = plan.up_x.coef[plan.up_x.begin[first + q] + k];
      offset[k] = plan.up_x.offset[plan.up_x.begin[first] + k];
    }
    float* out = t.widened + row * rows.stride + first * rows.phase_stride;
    for (int64_t i = 0; i < t.columns; i += kLanes<float>) {
      Vec<float> x[taps], u[up];
      if constexpr (kAdjacent)
        load_shifted(x, in + i);
      else
        unrolled<taps>([&](auto k) __attribute__((always_inline)) { x[k] = load_once(in + offset[k] + i); });
      unrolled<taps>([&](auto k) __attribute__((always_inline)) {
        unrolled<up>([&](auto q)
                         __attribute__((always_inline)) { multiply_add<k == 0>(u[q], coef[k * up + q], x[k]); });
      });
      unrolled<up>([&](auto q) __attribute__((always_inline)) { store(out + q * rows.phase_stride + i, u[q]); });
    }
  }
}

// Downsamples rows with a separable filter. All outputs of a group (one for each out phase) share their loads.
template <int up, int down, int taps, int lead, bool symmetric>
void narrow_rows(const Plan<float>& plan, const Tile<float>& t) {
  constexpr int kGroup = std::lcm(up, down), kOutPhases = kGroup / down;
  constexpr int kShifts = (lead + (kOutPhases - 1) * down + taps - 1) / kGroup + 1;
  const int64_t n = ceil_div(t.x.out_count, kOutPhases);
  float coef[taps];
  std::copy_n(plan.down_coef.data(), taps, coef);
  for (int64_t row = 0; row < t.y.out_count; row++) {
    const float* in = t.lowered + row * plan.rows.stride;
    float* out = t.output + row * t.output_stride;
    for (int64_t i = 0; i < n; i += kLanes<float>) {
      Vec<float> sum[kOutPhases] = {}, v[kGroup][kShifts];
      // Samples of phase q meet the taps that those of phase `mirror` meet in opposite order: both are loaded at once.
      unrolled<kGroup>([&](auto q) __attribute__((always_inline)) {
        constexpr int kMirror = floor_mod(taps - 1 + 2 * lead - q, kGroup);
        if constexpr (q > kMirror) return;
        load_shifted(v[q], in + q * plan.rows.phase_stride + i);
        load_shifted(v[kMirror], in + kMirror * plan.rows.phase_stride + i);
        unrolled<kShifts>([&](auto j) __attribute__((always_inline)) {
          unrolled<kOutPhases>([&](auto s) __attribute__((always_inline)) {
            constexpr int first = lead + s * down, k = j * kGroup + q - first;
            if constexpr (k >= 0 && k < taps) {
              constexpr int other = first + taps - 1 - k;
              const Vec<float> a = v[q][j], b = v[kMirror][other / kGroup];
              if constexpr (symmetric) {
                sum[s] += coef[k] * (a + b);
              } else {
                sum[s] += coef[k] * a;
                sum[s] += coef[taps - 1 - k] * b;
              }
            }
          });
        });
      });
      const int64_t left = t.x.out_count - i * kOutPhases;
      prefetch(out + kRowsAhead * t.output_stride + i * kOutPhases, kOutPhases * kLanes<float>);
      if constexpr (kOutPhases == 2) interleave(sum[0], sum[1]);
      unrolled<kOutPhases>([&](auto s) __attribute__((always_inline)) {
        store_first(out + i * kOutPhases + s * kLanes<float>, sum[s], left - s * kLanes<float>);
      });
    }
  }
}

// By the lead along x, which is less than up.
template <int up, int down, int taps, bool symmetric>
void narrow_fused(const Plan<float>& plan, const Tile<float>& t) {
  static_assert(up == 2 || up == 4);
  if constexpr (up == 4) {
    if (t.x.lead == 3) return narrow_rows<up, down, taps, 3, symmetric>(plan, t);
    if (t.x.lead == 2) return narrow_rows<up, down, taps, 2, symmetric>(plan, t);
  }
  (t.x.lead == 1 ? narrow_rows<up, down, taps, 1, symmetric> : narrow_rows<up, down, taps, 0, symmetric>)(plan, t);
}

// A full filter that downsamples by 2, walking down `vectors` vector columns with all output rows under way in
// registers.
template <int phases, int first, int taps, bool symmetric, int vectors>
GANOPS_INLINE void walk_full(const float* in, int64_t in_stride, int64_t phase_stride, const float* coef, float* out,
                             int64_t out_stride, int64_t out_count) {
  constexpr int kLive = taps / 2;
  Vec<float> sum[kLive][vectors] = {};  // of output rows row, row + 1, ...
  for (int64_t row = 1 - kLive; row < out_count; row++) {
    add_rows<phases, first, taps, symmetric>(sum, in, in_stride, phase_stride, coef);
    in += 2 * in_stride;
    if (row >= 0) {
      unrolled<vectors>([&](auto n) __attribute__((always_inline)) { store(out + n * kLanes<float>, sum[0][n]); });
      out += out_stride;
    }
    unrolled<kLive>([&](auto live) __attribute__((always_inline)) {
      unrolled<vectors>([&](auto n) __attribute__((always_inline)) {
        if constexpr (live + 1 < kLive)
          sum[live][n] = sum[live + 1][n];
        else
          sum[live][n] = Vec<float>{};
      });
    });
  }
}

// All columns of one out phase, n outputs a row.
template <int phases, int first, int taps, bool symmetric>
void columns_full(const Plan<float>& plan, const Tile<float>& t, const float* in, const float* coef, float* out,
                  int64_t out_stride, int64_t n) {
  constexpr int kVectors = symmetric ? 1 : 2;
  const Rows& rows = plan.rows;
  for (int64_t i = 0; i < n; i += kVectors * kLanes<float>) {
    if (n - i > kLanes<float>)
      walk_full<phases, first, taps, symmetric, kVectors>(in + i, rows.stride, rows.phase_stride, coef, out + i,
                                                          out_stride, t.y.out_count);
    else
      walk_full<phases, first, taps, symmetric, 1>(in + i, rows.stride, rows.phase_stride, coef, out + i, out_stride,
                                                   t.y.out_count);
  }
}

template <int taps, bool symmetric, int... first>
constexpr auto columns_by_phase(std::integer_sequence<int, first...>) {
  return std::array{columns_full<sizeof...(first), first, taps, symmetric>...};
}

template <int up, int down, int taps, bool symmetric>
void narrow_full(const Plan<float>& plan, const Tile<float>& t) {
  constexpr int kPhases = std::lcm(up, down), kOutPhases = kPhases / down;
  constexpr auto kColumns = columns_by_phase<taps, symmetric>(std::make_integer_sequence<int, kPhases>{});
  const int64_t n = ceil_div(t.x.out_count, kOutPhases), out_stride = kOutPhases * plan.out_phase_stride;
  float coef[taps * taps];
  std::copy_n(plan.down_coef.data(), taps * taps, coef);
  if constexpr (symmetric) fold<taps>(coef);
  const int64_t rows_before = symmetric ? round_up(t.y.lead, 2) : t.y.lead;  // pairs are whole
  for (int64_t s = 0; s < kOutPhases; s++) {
    const int64_t first = t.x.lead + s * down;
    const float* in = t.upsampled + rows_before * plan.rows.stride + first / kPhases;
    kColumns[first % kPhases](plan, t, in, coef, t.lowered + s * plan.out_phase_stride, out_stride, n);
  }
  for (int64_t row = 0; row < t.y.out_count; row++) {
    prefetch(t.output + (row + kRowsAhead) * t.output_stride, t.x.out_count);
    join_phases(t.output + row * t.output_stride, t.lowered + row * out_stride, plan.out_phase_stride, kOutPhases,
                t.x.out_count);
  }
}

// Of the StyleGAN3 networks' filters: per phase upsampling, and output rows under way downsampling.
constexpr int kPhaseTaps = 6;

template <int up, int down, bool full_up, bool full_down, bool obey, bool symmetric>
constexpr Passes<float> fused_passes() {
  constexpr int kDownTaps = kPhaseTaps * down, kTapsX = full_up ? kPhaseTaps : 1, kWalkTaps = full_down ? 0 : kDownTaps;
  Passes<float> passes{};
  passes.widen = widen_fused<up, down, kPhaseTaps>;
  passes.columns = columns_fused<up, down, kPhaseTaps, kTapsX, kWalkTaps, obey, symmetric>;
  if constexpr (full_down)
    passes.narrow = narrow_full<up, down, kDownTaps, symmetric>;
  else
    passes.narrow = narrow_fused<up, down, kDownTaps, symmetric>;
  passes.fused = true;
  return passes;
}

template <int up, int down, bool full_up, bool full_down, bool obey>
bool choose_fused(const FilteredLreluParams& p, Passes<float>& passes) {
  const bool match = p.up == up && p.down == down && obey == (p.read_codes != nullptr) && p.gain > 0 && p.slope <= 1 &&
                     p.slope != 0 && p.fu.separable != full_up && p.fu.width == kPhaseTaps * up &&
                     p.fu.height == kPhaseTaps * up && p.fd.separable != full_down && p.fd.width == kPhaseTaps * down &&
                     p.fd.height == kPhaseTaps * down;
  if (!match) return false;
  // A full filter's differences would turn infinite samples into NaN.
  const bool symmetric = is_symmetric<float>(p.fd) && (!full_down || p.clamp >= 0);
  passes = symmetric ? fused_passes<up, down, full_up, full_down, obey, true>()
                     : fused_passes<up, down, full_up, full_down, obey, false>();
  return true;
}

template <>
Passes<float> choose_passes(const FilteredLreluParams& p) {
  constexpr bool kFull = true, kObey = true;
  Passes<float> passes = {widen_any<float>, columns_any<float>, narrow<0, float>, false};
  choose_fused<2, 2, !kFull, !kFull, !kObey>(p, passes) || choose_fused<4, 2, !kFull, !kFull, !kObey>(p, passes) ||
      choose_fused<2, 2, !kFull, kFull, !kObey>(p, passes) || choose_fused<4, 2, !kFull, kFull, !kObey>(p, passes) ||
      choose_fused<2, 2, !kFull, !kFull, kObey>(p, passes) || choose_fused<2, 4, !kFull, !kFull, kObey>(p, passes) ||
      choose_fused<2, 2, kFull, !kFull, kObey>(p, passes) || choose_fused<2, 4, kFull, !kFull, kObey>(p, passes);
  return passes;
}

}  // namespace ganops::GANOPS_ISA

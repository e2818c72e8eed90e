// The passes for filters of known sizes, in registers: float alone. Included once per instruction set: see
// common/isa.h.
namespace ganops::GANOPS_ISA {

typedef int32_t VecInt __attribute__((vector_size(GANOPS_VECTOR_BYTES)));
typedef uint8_t VecByte __attribute__((vector_size(GANOPS_VECTOR_BYTES / sizeof(float))));

// Leaky ReLU and clamp of a vector of samples, gain already applied.
template <bool obey>
struct Activation {
  explicit Activation(const FilteredLreluParams& p)
      : slope(broadcast(float(p.slope))),
        bound(broadcast(p.clamp < 0 ? std::numeric_limits<float>::quiet_NaN() : float(p.clamp))) {}

  // codes: of these samples; null if none are kept.
  GANOPS_INLINE Vec<float> operator()(Vec<float> u, uint8_t* codes) const {
    VecByte bytes;
    if constexpr (obey) {
      std::memcpy(&bytes, codes, sizeof(bytes));
      const VecInt code = __builtin_convertvector(bytes, VecInt);
      const Vec<float> v = code == static_cast<int>(Code::negative) ? u * slope : u;
      return code == static_cast<int>(Code::clamped) ? Vec<float>{} : v;
    } else {
      const VecInt negative = reinterpret_cast<VecInt>(u) < 0;  // the sign bit: -1 where it is set
      const Vec<float> v = negative ? u * slope : u;
      const VecInt above = v >= bound, below = v <= -bound;
      if (codes) {
        bytes =
            __builtin_convertvector((above | below) ? VecInt{} + static_cast<int>(Code::clamped) : -negative, VecByte);
        std::memcpy(codes, &bytes, sizeof(bytes));
      }
      return above ? bound : below ? -bound : v;  // NaN stays NaN
    }
  }
  Vec<float> slope, bound;
};

constexpr int floor_div(int a, int b) {
  return a / b - (a % b < 0);
}

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
template <int up, int down, int taps_y, int taps_x, int down_taps, int lead, bool obey>
void walk(const Column& c, const Activation<obey>& activation) {
  constexpr int kLive = down_taps ? down_taps / down : 1;  // output rows under way at a time
  constexpr int kPeriod = down * kLive / std::gcd(up, down * kLive);
  static_assert(down_taps % down == 0);
  float up_coef[taps_y * taps_x * up], down_coef[down_taps + 1];  // copies, which no store can change
  std::copy_n(c.up_coef, taps_y * taps_x * up, up_coef);
  std::copy_n(c.down_coef, down_taps, down_coef);

  Vec<float> sum[kLive] = {};
  const float* in = c.in;
  uint8_t* codes = c.codes;
  const int64_t codes_stride = codes ? c.stride : 0;
  // The first rows to be completed lie before the image; they fall into the margin.
  float* out = c.out + (down_taps ? floor_div(-lead - down_taps + down, down) * c.stride : 0);
  for (int64_t group = 0; group < c.groups;) {
    unrolled<kPeriod>([&](auto turn) __attribute__((always_inline)) {
      if (group++ >= c.groups) return;
      Vec<float> u[up];
      unrolled<taps_y>([&](auto i) __attribute__((always_inline)) {
        unrolled<taps_x>([&](auto j) __attribute__((always_inline)) {
          const Vec<float> x = load_once(in + i * c.in_stride + (taps_x > 1 ? c.offset[j] : 0));
          unrolled<up>([&](auto q) __attribute__((always_inline)) {
            const float coef = up_coef[(i * taps_x + j) * up + q];
            if constexpr (i + j == 0)
              u[q] = coef * x;
            else
              u[q] += coef * x;
          });
        });
      });
      in += c.in_stride;
      unrolled<up>([&](auto q) __attribute__((always_inline)) {
        const Vec<float> v = activation(u[q], codes);
        codes += codes_stride;
        if constexpr (down_taps == 0) {
          store(out, v);
          out += c.stride;
        }
        unrolled<down_taps>([&](auto k) __attribute__((always_inline)) {
          constexpr int row = turn * up + q - lead - k;  // where the output row begins that takes v with tap k
          if constexpr (floor_div(row, down) * down == row) {
            constexpr int slot = (floor_div(row, down) % kLive + kLive) % kLive;
            if constexpr (k == 0)
              sum[slot] = down_coef[0] * v;
            else
              sum[slot] += down_coef[k] * v;
            if constexpr (k == down_taps - 1) {
              store(out, sum[slot]);
              out += c.stride;
            }
          }
        });
      });
    });
  }
}

// The walk for each lead; a greater lead than down is so many rows less of the output.
template <int up, int down, int taps_y, int taps_x, int down_taps, bool obey, int... lead>
constexpr auto walks(std::integer_sequence<int, lead...>) {
  using Walk = void (*)(const Column&, const Activation<obey>&);
  return std::array<Walk, sizeof...(lead)>{walk<up, down, taps_y, taps_x, down_taps, lead, obey>...};
}

template <int up, int down, int taps_y, int taps_x, int down_taps, bool obey>
void columns_fused(const Plan<float>& plan, const Tile<float>& t) {
  constexpr int kLeads = down_taps ? down : 1;
  constexpr auto kWalks = walks<up, down, taps_y, taps_x, down_taps, obey>(std::make_integer_sequence<int, kLeads>{});
  const Activation<obey> activation(plan.params);
  const bool has_codes = plan.params.read_codes || plan.params.write_codes;
  const Rows& rows = plan.rows;
  float* const out = down_taps ? t.lowered - t.y.lead / kLeads * rows.stride : t.upsampled;
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
template <int up, int taps>
void widen_fused(const Plan<float>& plan, const Tile<float>& t, const float* in, int64_t row) {
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
      Vec<float> u[up];
      unrolled<taps>([&](auto k) __attribute__((always_inline)) {
        const Vec<float> x = load_once(in + offset[k] + i);
        unrolled<up>([&](auto q) __attribute__((always_inline)) {
          if constexpr (k == 0)
            u[q] = coef[q] * x;
          else
            u[q] += coef[k * up + q] * x;
        });
      });
      unrolled<up>([&](auto q) __attribute__((always_inline)) { store(out + q * rows.phase_stride + i, u[q]); });
    }
  }
}

// Downsamples rows with a separable filter. All outputs of a group (one for each out phase) share their loads.
template <int up, int down, int taps, int lead>
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
      Vec<float> sum[kOutPhases] = {};
      unrolled<kGroup>([&](auto q) __attribute__((always_inline)) {
        Vec<float> v[kShifts];
        load_shifted(v, in + q * plan.rows.phase_stride + i);
        unrolled<kShifts>([&](auto j) __attribute__((always_inline)) {
          unrolled<kOutPhases>([&](auto s) __attribute__((always_inline)) {
            constexpr int k = j * kGroup + q - lead - s * down;
            if constexpr (k >= 0 && k < taps) sum[s] += coef[k] * v[j];
          });
        });
      });
      const int64_t left = t.x.out_count - i * kOutPhases;
      if constexpr (kOutPhases == 2) interleave(sum[0], sum[1]);
      if (left >= kOutPhases * kLanes<float>) {
        std::memcpy(out + i * kOutPhases, sum, sizeof(sum));
      } else {
        float last[kOutPhases * kLanes<float>];
        std::memcpy(last, sum, sizeof(sum));
        std::copy_n(last, left, out + i * kOutPhases);
      }
    }
  }
}

// By the lead along x, which is less than up.
template <int up, int down, int taps>
void narrow_fused(const Plan<float>& plan, const Tile<float>& t) {
  static_assert(up == 2 || up == 4);
  if constexpr (up == 4) {
    if (t.x.lead == 3) return narrow_rows<up, down, taps, 3>(plan, t);
    if (t.x.lead == 2) return narrow_rows<up, down, taps, 2>(plan, t);
  }
  (t.x.lead == 1 ? narrow_rows<up, down, taps, 1> : narrow_rows<up, down, taps, 0>)(plan, t);
}

// A full downsampling filter, walking down `vectors` vector columns with all output rows under way in registers. Where
// the filter's rows are symmetric, samples with the same coefficient are added first.
template <int down, int taps, bool symmetric, int vectors>
GANOPS_INLINE void walk_full(const float* in, int64_t in_stride, const int64_t* offset, const float* coef, float* out,
                             int64_t out_stride, int64_t out_count) {
  constexpr int kLive = taps / down;
  static_assert(taps % down == 0 && taps % 2 == 0);
  Vec<float> sum[kLive][vectors] = {};  // of output rows row, row + 1, ...
  for (int64_t row = 1 - kLive; row < out_count; row++) {
    unrolled<down>([&](auto i) __attribute__((always_inline)) {
      unrolled<symmetric ? taps / 2 : taps>([&](auto j) __attribute__((always_inline)) {
        Vec<float> v[vectors];
        unrolled<vectors>([&](auto n) __attribute__((always_inline)) {
          v[n] = load_once(in + offset[j] + n * kLanes<float>);
          if constexpr (symmetric) v[n] += load(in + offset[taps - 1 - j] + n * kLanes<float>);
        });
        unrolled<kLive>([&](auto live) __attribute__((always_inline)) {
          const float c = coef[((kLive - 1 - live) * down + i) * taps + j];
          unrolled<vectors>([&](auto n) __attribute__((always_inline)) { sum[live][n] += c * v[n]; });
        });
      });
      in += in_stride;
    });
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

template <int down, int taps, bool symmetric>
void narrow_full(const Plan<float>& plan, const Tile<float>& t) {
  constexpr int kVectors = 2;
  const int64_t phases = plan.x.out_phases(), n = ceil_div(t.x.out_count, phases);
  const int64_t out_stride = phases * plan.out_phase_stride;
  float coef[taps * taps];
  std::copy_n(plan.down_coef.data(), taps * taps, coef);
  for (int64_t s = 0; s < phases; s++) {
    const int64_t* offset = plan.down_full.offset.data() + plan.down_full.begin[s];
    for (int64_t i = 0; i < n; i += kVectors * kLanes<float>) {
      const float* in = t.upsampled + t.y.lead * plan.rows.stride + i;
      float* out = t.lowered + s * plan.out_phase_stride + i;
      if (n - i > kLanes<float>)
        walk_full<down, taps, symmetric, kVectors>(in, plan.rows.stride, offset, coef, out, out_stride, t.y.out_count);
      else
        walk_full<down, taps, symmetric, 1>(in, plan.rows.stride, offset, coef, out, out_stride, t.y.out_count);
    }
  }
  for (int64_t row = 0; row < t.y.out_count; row++)
    join_phases(t.output + row * t.output_stride, t.lowered + row * out_stride, plan.out_phase_stride, phases,
                t.x.out_count);
}

template <int down, int taps>
void narrow_full(const Plan<float>& plan, const Tile<float>& t) {
  (plan.symmetric ? narrow_full<down, taps, true> : narrow_full<down, taps, false>)(plan, t);
}

// The filters of the StyleGAN3 networks: 6 taps per phase upsampling, as many output rows under way downsampling.
template <int up, int down, bool full_up, bool full_down, bool obey>
bool choose_fused(const FilteredLreluParams& p, Passes<float>& passes) {
  constexpr int kTaps = 6;
  const bool match = p.up == up && p.down == down && obey == (p.read_codes != nullptr) && p.gain > 0 &&
                     p.fu.separable != full_up && p.fu.width == kTaps * up && p.fu.height == kTaps * up &&
                     p.fd.separable != full_down && p.fd.width == kTaps * down && p.fd.height == kTaps * down;
  if (!match) return false;
  passes.widen = widen_fused<up, kTaps>;
  passes.columns = columns_fused < up, down, kTaps, full_up ? kTaps : 1, full_down ? 0 : kTaps * down, obey > ;
  if constexpr (full_down)
    passes.narrow = narrow_full<down, kTaps * down>;
  else
    passes.narrow = narrow_fused<up, down, kTaps * down>;
  passes.fused = true;
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

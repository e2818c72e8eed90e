// The passes over one tile of one channel: any filters, any factors. Included once per instruction set: see
// common/isa.h.
namespace ganops::GANOPS_ISA {

constexpr int64_t kRowsAhead = 3;  // rows that are asked for before they are needed

template <class C>
struct Tile {
  Tile(const Plan<C>& plan, C* scratch, int64_t tile_x, int64_t tile_y)
      : x(span_of(plan.x, tile_x * plan.tile_width, plan.tile_width)),
        y(span_of(plan.y, tile_y * plan.tile_height, plan.tile_height)),
        columns(round_up(x.groups, kLanes<C>)),
        input(scratch + plan.input),
        widened(scratch + plan.widened),
        upsampled(scratch + plan.upsampled),
        lowered(scratch + plan.lowered + (plan.params.fd.separable ? plan.margin * plan.rows.stride : 0)),
        line(scratch + plan.line),
        output(scratch + plan.output),
        output_stride(plan.tile_width),
        codes(reinterpret_cast<uint8_t*>(scratch + plan.codes)) {}

  Span x, y;
  int64_t columns;  // of each phase, to the next whole vector
  C* input;         // rows of the input, zeros around the image; one row if plan.reads_rows
  C* widened;       // the same, upsampled along x
  C* upsampled;     // upsampled along y too, after the leaky ReLU
  C* lowered;       // downsampled along y
  C* line;          // a row of the input, or of the output phase by phase
  C* output;        // of one channel
  int64_t output_stride;
  uint8_t* codes;  // of the upsampled samples, laid out like them
};

// A row of input -> a row of widened; widened, or input where fu is full -> lowered, or upsampled where fd is full;
// that
// -> output.
template <class C>
struct Passes {
  void (*widen)(const Plan<C>&, const Tile<C>&, const C* in, int64_t row);
  using Pass = void (*)(const Plan<C>&, const Tile<C>&);
  Pass columns, narrow;
  bool fused;  // see KernelTraits
};

// Sums of n values each: to[i] = sum of coef[t] * from[offset[t] + i]. taps > 0 is known when compiled.
template <int taps, int vectors, class C>
GANOPS_INLINE void correlate_vectors(C* to, const C* from, const int64_t* offset, const C* coef, int64_t count) {
  Vec<C> sum[vectors];
  for (int v = 0; v < vectors; v++) sum[v] = coef[0] * load(from + offset[0] + v * kLanes<C>);
  for (int64_t t = 1; t < (taps ? taps : count); t++)
    for (int v = 0; v < vectors; v++) sum[v] += coef[t] * load(from + offset[t] + v * kLanes<C>);
  for (int v = 0; v < vectors; v++) store(to + v * kLanes<C>, sum[v]);
}

// to[i], i < n, of one phase of a table. Writes whole vectors.
template <int taps = 0, class C>
void correlate(C* to, int64_t n, const C* from, const TapTable<C>& table, int64_t phase) {
  constexpr int kVectors = 4;
  const int64_t first = table.begin[phase], count = table.begin[phase + 1] - first;
  const int64_t* offset = table.offset.data() + first;
  const C* coef = table.coef.data() + first;
  if (count == 0) {
    std::fill_n(to, n, C(0));
    return;
  }
  int64_t i = 0;
  for (; i + kVectors * kLanes<C> <= n; i += kVectors * kLanes<C>)
    correlate_vectors<taps, kVectors>(to + i, from + i, offset, coef, count);
  for (; i < n; i += kLanes<C>) correlate_vectors<taps, 1>(to + i, from + i, offset, coef, count);
}

template <class C>
void widen_any(const Plan<C>& plan, const Tile<C>& t, const C* in, int64_t row) {
  for (int64_t q = 0; q < plan.rows.phases; q++)
    correlate(t.widened + row * plan.rows.stride + q * plan.rows.phase_stride, t.columns, in, plan.up_x, q);
}

// The leaky ReLU and the clamp, of n samples; codes are read or written where there are any.
template <class C>
void activate(const FilteredLreluParams& p, C* u, uint8_t* codes, int64_t n) {
  const C gain = C(p.gain * (p.up * p.up)), slope = C(p.slope);
  const C bound = p.clamp < 0 ? std::numeric_limits<C>::quiet_NaN() : C(p.clamp);
  if (p.read_codes) {
    for (int64_t i = 0; i < n; i++) {
      const C v = (codes[i] == static_cast<uint8_t>(Code::negative) ? u[i] * slope : u[i]) * gain;
      u[i] = codes[i] == static_cast<uint8_t>(Code::clamped) ? C(0) : v;
    }
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    const C scaled = u[i] * gain;
    const bool negative = std::signbit(scaled);
    const C v = negative ? scaled * slope : scaled;
    if (p.write_codes) codes[i] = std::fabs(v) >= bound ? static_cast<uint8_t>(Code::clamped) : negative;
    u[i] = v > bound ? bound : v < -bound ? -bound : v;
  }
}

template <class C>
void columns_any(const Plan<C>& plan, const Tile<C>& t) {
  const FilteredLreluParams& p = plan.params;
  const int64_t phases = plan.rows.phases, stride = plan.rows.stride;
  for (int64_t row = 0; row < t.y.groups * p.up; row++)
    for (int64_t q = 0; q < phases; q++) {
      const int64_t group = row / p.up, phase = row % p.up, at = q * plan.rows.phase_stride;
      C* to = t.upsampled + row * stride + at;
      if (p.fu.separable)
        correlate(to, t.columns, t.widened + group * stride + at, plan.up_y, phase);
      else
        correlate(to, t.columns, t.input + group * plan.in_rows.stride, plan.up_full, phase * phases + q);
      activate(p, to, t.codes + row * stride + at, t.columns);
    }
  if (!p.fd.separable) return;
  for (int64_t row = 0; row < t.y.out_count; row++)
    for (int64_t q = 0; q < phases; q++) {
      const int64_t at = q * plan.rows.phase_stride;
      correlate(t.lowered + row * stride + at, t.columns, t.upsampled + (t.y.lead + row * p.down) * stride + at,
                plan.down_y, 0);
    }
}

template <int taps, class C>
void narrow(const Plan<C>& plan, const Tile<C>& t) {
  const FilteredLreluParams& p = plan.params;
  const int64_t phases = plan.x.out_phases(), n = round_up(ceil_div(t.x.out_count, phases), kLanes<C>);
  for (int64_t row = 0; row < t.y.out_count; row++) {
    for (int64_t s = 0; s < phases; s++) {
      C* to = t.line + s * plan.out_phase_stride;
      if (p.fd.separable)
        correlate<taps>(to, n, t.lowered + row * plan.rows.stride, plan.down_x, s);
      else
        correlate<taps>(to, n, t.upsampled + (t.y.lead + row * p.down) * plan.rows.stride, plan.down_full, s);
    }
    prefetch(t.output + (row + kRowsAhead) * t.output_stride, t.x.out_count);
    join_phases(t.output + row * t.output_stride, t.line, plan.out_phase_stride, phases, t.x.out_count);
  }
}

template <class C>
Passes<C> choose_passes(const FilteredLreluParams&) {
  return {widen_any<C>, columns_any<C>, narrow<0, C>, false};
}

}  // namespace ganops::GANOPS_ISA

// Rows kept phase by phase to plain order and back, and codes four to a byte. Included once per instruction set: see
// common/isa.h.
namespace ganops::GANOPS_ISA {

// fixed > 0: the number of phases is known when compiled.
template <int fixed, class E>
void split_fixed(E* __restrict to, int64_t stride, const E* __restrict from, int64_t phases, int64_t n) {
  const int64_t count = fixed ? fixed : phases;
  for (int64_t i = 0; i < n / count; i++)
    for (int64_t q = 0; q < count; q++) to[q * stride + i] = from[i * count + q];
  for (int64_t q = 0; q < n % count; q++) to[q * stride + n / count] = from[n / count * count + q];
}

template <int fixed, class E>
void join_fixed(E* __restrict to, const E* __restrict from, int64_t stride, int64_t phases, int64_t n) {
  const int64_t count = fixed ? fixed : phases;
  for (int64_t i = 0; i < n / count; i++)
    for (int64_t q = 0; q < count; q++) to[i * count + q] = from[q * stride + i];
  for (int64_t q = 0; q < n % count; q++) to[n / count * count + q] = from[q * stride + n / count];
}

// n elements of a row: to[q * stride + i] = from[i * phases + q].
template <class E>
void split_phases(E* to, int64_t stride, const E* from, int64_t phases, int64_t n) {
  if (phases == 1) return static_cast<void>(std::copy_n(from, n, to));
  (phases == 2 ? split_fixed<2, E> : phases == 4 ? split_fixed<4, E> : split_fixed<0, E>)(to, stride, from, phases, n);
}

// And back: to[i * phases + q] = from[q * stride + i].
template <class E>
void join_phases(E* to, const E* from, int64_t stride, int64_t phases, int64_t n) {
  if (phases == 1) return static_cast<void>(std::copy_n(from, n, to));
  (phases == 2 ? join_fixed<2, E> : phases == 4 ? join_fixed<4, E> : join_fixed<0, E>)(to, from, stride, phases, n);
}

constexpr int kCodeMask = (1 << kCodeBits) - 1;

// `count` codes of a row, from sample `lead` of rows kept phase by phase to bytes of four; zeros fill the last
// one. Whole bytes are made of codes equally far apart in their phases.
template <int phases>
void pack_fixed(uint8_t* __restrict to, const uint8_t* __restrict from, int64_t stride, int64_t lead, int64_t count) {
  constexpr int64_t kStep = kCodesPerByte / phases;  // codes of a phase in a byte
  const auto of_byte = [&](int64_t k) { return from + (lead + k) % phases * stride + (lead + k) / phases; };
  const uint8_t *c0 = of_byte(0), *c1 = of_byte(1), *c2 = of_byte(2), *c3 = of_byte(3);
  const int64_t bytes = ceil_div(count, kCodesPerByte), last = count % kCodesPerByte;
  for (int64_t i = 0; i < bytes; i++)
    to[i] =
        c0[i * kStep] | c1[i * kStep] << kCodeBits | c2[i * kStep] << 2 * kCodeBits | c3[i * kStep] << 3 * kCodeBits;
  if (last) to[bytes - 1] &= (1 << last * kCodeBits) - 1;
}

inline void pack_codes(uint8_t* to, const uint8_t* from, int64_t stride, int64_t phases, int64_t lead, int64_t count) {
  if (phases == 4) return pack_fixed<4>(to, from, stride, lead, count);
  if (phases == 2) return pack_fixed<2>(to, from, stride, lead, count);
  std::fill_n(to, ceil_div(count, kCodesPerByte), 0);
  for (int64_t i = 0; i < count; i++)
    to[i / kCodesPerByte] |= from[(lead + i) % phases * stride + (lead + i) / phases] << i % kCodesPerByte * kCodeBits;
}

// And back: n codes of one phase, of every `phases`-th column of `width` from `column` on; beyond them all is clamped.
// Equal places in bytes make runs of equally distant codes.
template <int fixed>
void unpack_fixed(uint8_t* __restrict to, int64_t n, const uint8_t* __restrict from, int64_t column, int64_t phases,
                  int64_t width) {
  const int64_t begin = std::clamp<int64_t>(ceil_div(-column, phases), 0, n);
  const int64_t end = std::clamp<int64_t>(ceil_div(width - column, phases), begin, n);
  const auto byte = [&](int64_t i) { return (column + i * phases) / kCodesPerByte; };
  const auto shift = [&](int64_t i) { return (column + i * phases) % kCodesPerByte * kCodeBits; };
  int64_t i = begin;
  if constexpr (fixed == 2 || fixed == 4) {
    constexpr int64_t kStep = kCodesPerByte / fixed;  // codes of the phase in a byte
    const uint8_t *first = from + byte(begin), *second = from + byte(begin + 1);
    const int64_t first_shift = shift(begin), second_shift = shift(begin + 1);
    for (int64_t k = 0; k < (end - begin) / kStep; k++, i += kStep) {
      to[begin + k * kStep] = first[k] >> first_shift & kCodeMask;
      if (kStep == 2) to[begin + k * kStep + 1] = second[k] >> second_shift & kCodeMask;
    }
  }
  for (; i < end; i++) to[i] = from[byte(i)] >> shift(i) & kCodeMask;
  const auto clamped = static_cast<uint8_t>(Code::clamped);
  std::fill_n(to, begin, clamped);
  std::fill(to + end, to + n, clamped);
}

inline void unpack_codes(uint8_t* to, int64_t stride, int64_t phases, int64_t n, const uint8_t* from, int64_t column,
                         int64_t width) {
  const auto unpack = phases == 2 ? unpack_fixed<2> : phases == 4 ? unpack_fixed<4> : unpack_fixed<0>;
  for (int64_t q = 0; q < phases; q++) unpack(to + q * stride, n, from, column + q, phases, width);
}

}  // namespace ganops::GANOPS_ISA

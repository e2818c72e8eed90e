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

inline void pack_codes(uint8_t* __restrict to, const uint8_t* __restrict from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i++) {
    const uint8_t* four = from + i * kCodesPerByte;
    to[i] = four[0] | four[1] << kCodeBits | four[2] << 2 * kCodeBits | four[3] << 3 * kCodeBits;
  }
}

inline void unpack_codes(uint8_t* to, const uint8_t* from, int64_t bytes) {
  constexpr int64_t kChunk = 64;
  uint8_t codes[kCodesPerByte][kChunk];  // of the first sample of each byte, of the second, ...
  for (int64_t i = 0; i < bytes; i += kChunk) {
    const int64_t n = std::min(kChunk, bytes - i);
    for (int k = 0; k < kCodesPerByte; k++)
      for (int64_t j = 0; j < n; j++) codes[k][j] = from[i + j] >> k * kCodeBits & ((1 << kCodeBits) - 1);
    join_phases(to + i * kCodesPerByte, codes[0], kChunk, kCodesPerByte, n * kCodesPerByte);
  }
}

}  // namespace ganops::GANOPS_ISA

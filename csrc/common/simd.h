// Vectors of GANOPS_VECTOR_BYTES bytes, and rows of any element type. Included once per instruction set: see isa.h.
namespace ganops::GANOPS_ISA {

#define GANOPS_INLINE inline __attribute__((always_inline))

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(GANOPS_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr int64_t kLanes = GANOPS_VECTOR_BYTES / sizeof(T);

template <class T>
GANOPS_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}

template <class T>
GANOPS_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}

template <class T>
GANOPS_INLINE Vec<T> broadcast(T value) {
  return Vec<T>{} + value;
}

// Keeps one load in a register that several multiply-adds share; GCC would fold the load into each of them.
template <class T>
GANOPS_INLINE Vec<T> load_once(const T* p) {
  Vec<T> v = load(p);
#if defined(GANOPS_X86_64) && defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(GANOPS_X86_64)
  asm("" : "+x"(v));
#endif
  return v;
}

// Element conversions. Half and BFloat16 rows become float rows and back, round to nearest even.
GANOPS_INLINE void load_row(float* to, const float* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(float));
}
GANOPS_INLINE void load_row(double* to, const double* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(double));
}
GANOPS_INLINE void store_row(float* to, const float* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(float));
}
GANOPS_INLINE void store_row(double* to, const double* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(double));
}

inline void load_row(float* to, const BFloat16* from, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = static_cast<uint32_t>(from[i].x) << 16;
    std::memcpy(to + i, &bits, sizeof(bits));
  }
}

inline void store_row(BFloat16* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    to[i].x = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
  }
}

inline void load_row(float* to, const Half* from, int64_t n) {
  int64_t i = 0;
#if defined(GANOPS_X86_64) && defined(__F16C__)
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
  for (; i < n; i++) to[i] = static_cast<float>(from[i]);
}

inline void store_row(Half* to, const float* from, int64_t n) {
  int64_t i = 0;
#if defined(GANOPS_X86_64) && defined(__F16C__)
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
  for (; i < n; i++) to[i] = static_cast<Half>(from[i]);
}

}  // namespace ganops::GANOPS_ISA

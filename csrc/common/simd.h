// Vectors of GANOPS_VECTOR_BYTES bytes, and rows of any element type. Included once per instruction set: see isa.h.
// The bytes of a vector say which instructions there are: 64 AVX-512, 32 AVX2, FMA and F16C. GANOPS_VECTOR_BFLOAT16
// adds AVX512-BF16. (g++ does not define __AVX512F__ and the like by `#pragma GCC target`.)
namespace ganops::GANOPS_ISA {

#define GANOPS_INLINE inline __attribute__((always_inline))

#if defined(GANOPS_X86_64) && GANOPS_VECTOR_BYTES < 64
constexpr int kRegisters = 16;  // of vectors
#else
constexpr int kRegisters = 32;
#endif

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

// Lanes [first, last) of a vector, as far as they exist.
struct Lanes {
  Lanes(int64_t first, int64_t last)
      : first(std::clamp(first, int64_t{0}, kLanes<float>)), last(std::clamp(last, this->first, kLanes<float>)) {}
  int64_t first, last;
};

// These of the vector at from, and zeros. The memory of the others is not touched.
GANOPS_INLINE Vec<float> load_lanes(const float* from, Lanes lanes) {
#if GANOPS_VECTOR_BYTES == 64
  const auto mask = static_cast<__mmask16>((1u << lanes.last) - (1u << lanes.first));
  return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(mask, from));
#else
  float all[kLanes<float>] = {};
  std::memcpy(all + lanes.first, from + lanes.first, (lanes.last - lanes.first) * sizeof(float));
  return load(all);
#endif
}

GANOPS_INLINE void store_lanes(float* to, Vec<float> v, Lanes lanes) {
#if GANOPS_VECTOR_BYTES == 64
  const auto mask = static_cast<__mmask16>((1u << lanes.last) - (1u << lanes.first));
  _mm512_mask_storeu_ps(to, mask, reinterpret_cast<__m512>(v));
#else
  float all[kLanes<float>];
  store(all, v);
  std::memcpy(to + lanes.first, all + lanes.first, (lanes.last - lanes.first) * sizeof(float));
#endif
}

// The first count lanes, often all.
GANOPS_INLINE Vec<float> load_first(const float* from, int64_t count) {
  return count >= kLanes<float> ? load(from) : load_lanes(from, Lanes(0, count));
}
GANOPS_INLINE void store_first(float* to, Vec<float> v, int64_t count) {
  if (count >= kLanes<float>)
    store(to, v);
  else
    store_lanes(to, v, Lanes(0, count));
}

typedef int32_t VecInt __attribute__((vector_size(GANOPS_VECTOR_BYTES)));
typedef uint8_t VecByte __attribute__((vector_size(GANOPS_VECTOR_BYTES / sizeof(float))));

// Of each lane the greater, the lesser, that of b where either is NaN.
#if GANOPS_VECTOR_BYTES == 64
constexpr __mmask16 kAllLanes = 0xffff;  // g++ 12 warns of the forms without a mask
#endif
GANOPS_INLINE Vec<float> greater(Vec<float> a, Vec<float> b) {
#if GANOPS_VECTOR_BYTES == 64
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_max_ps(kAllLanes, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif GANOPS_VECTOR_BYTES == 32
  return reinterpret_cast<Vec<float>>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
GANOPS_INLINE Vec<float> lesser(Vec<float> a, Vec<float> b) {
#if GANOPS_VECTOR_BYTES == 64
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_min_ps(kAllLanes, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif GANOPS_VECTOR_BYTES == 32
  return reinterpret_cast<Vec<float>>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a < b ? a : b;
#endif
}

GANOPS_INLINE Vec<float> magnitude(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(reinterpret_cast<VecInt>(v) & 0x7fffffff);
}

template <class T>
GANOPS_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};  // the compiler knows that this is value, even if it is -0
}

// Keeps a vector in a register. GCC would repeat the load that made it in each instruction that takes it.
template <class T>
GANOPS_INLINE Vec<T> keep(Vec<T> v) {
#if GANOPS_VECTOR_BYTES == 64
  asm("" : "+v"(v));
#elif defined(GANOPS_X86_64)
  asm("" : "+x"(v));
#endif
  return v;
}
template <class T>
GANOPS_INLINE Vec<T> load_once(const T* p) {
  return keep<T>(load(p));
}
template <class T>
GANOPS_INLINE Vec<T> broadcast_once(const T* p) {
  return keep<T>(broadcast(*p));
}

// A byte for each lane tells what becomes of v: factor times as much where it is `scaled`, zero where it is `dropped`.
GANOPS_INLINE Vec<float> obey_bytes(Vec<float> v, Vec<float> factor, const uint8_t* bytes, char scaled, char dropped) {
#if GANOPS_VECTOR_BYTES == 64
  const __m128i byte = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  const __mmask16 is_scaled = _mm_cmpeq_epi8_mask(byte, _mm_set1_epi8(scaled));
  const __mmask16 is_kept = _mm_cmpneq_epi8_mask(byte, _mm_set1_epi8(dropped));
  const auto x = reinterpret_cast<__m512>(v);
  const __m512 product = _mm512_mask_mul_ps(x, is_scaled, x, reinterpret_cast<__m512>(factor));
  return reinterpret_cast<Vec<float>>(_mm512_maskz_mov_ps(is_kept, product));
#else
  VecByte narrow;
  std::memcpy(&narrow, bytes, sizeof(narrow));
  const VecInt byte = __builtin_convertvector(narrow, VecInt);
  const Vec<float> product = byte == scaled ? v * factor : v;
  return byte == dropped ? Vec<float>{} : product;
#endif
}

// And such bytes: `beyond` where size reaches bound, else `negative` where v's sign is set, else zero.
GANOPS_INLINE void store_bytes(uint8_t* bytes, Vec<float> v, Vec<float> size, Vec<float> bound, char negative,
                               char beyond) {
#if GANOPS_VECTOR_BYTES == 64
  const __mmask16 is_negative = _mm512_movepi32_mask(reinterpret_cast<__m512i>(v));
  const __mmask16 is_beyond =
      _mm512_cmp_ps_mask(reinterpret_cast<__m512>(size), reinterpret_cast<__m512>(bound), _CMP_GE_OQ);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes),
                   _mm_mask_set1_epi8(_mm_maskz_set1_epi8(is_negative, negative), is_beyond, beyond));
#else
  const VecInt is_negative = reinterpret_cast<VecInt>(v) < 0, is_beyond = size >= bound;  // -1 where it is so
  const VecByte narrow = __builtin_convertvector(is_beyond ? VecInt{} + beyond : is_negative & negative, VecByte);
  std::memcpy(bytes, &narrow, sizeof(narrow));
#endif
}

// Calls f(std::integral_constant<int, i>) for each i < n: a loop whose index is a constant in every turn.
template <class F, int... i>
GANOPS_INLINE void for_each_constant(std::integer_sequence<int, i...>, const F& f) {
  (f(std::integral_constant<int, i>{}), ...);
}
template <int n, class F>
GANOPS_INLINE void unrolled(const F& f) {
  for_each_constant(std::make_integer_sequence<int, n>{}, f);
}

// Lane i is lane i + shift of the two vectors in a row. GCC finds the instructions, but for AVX-512.
template <int shift, int... i>
GANOPS_INLINE Vec<float> shifted(Vec<float> low, Vec<float> high, std::integer_sequence<int, i...>) {
#if GANOPS_VECTOR_BYTES == 64
  Vec<float> result;
  asm("valignd %3, %2, %1, %0" : "=v"(result) : "v"(high), "v"(low), "i"(shift));
  return result;
#else
  constexpr int n = kLanes<float>;
  return Vec<float>{(i + shift < n ? low[(i + shift) % n] : high[(i + shift) % n])...};
#endif
}
template <int shift>
GANOPS_INLINE Vec<float> shifted(Vec<float> low, Vec<float> high) {
  return shifted<shift>(low, high, std::make_integer_sequence<int, kLanes<float>>{});
}

// The vectors at from, from + 1, ... A load across a cache line costs two, so AVX-512 moves lanes instead.
template <int count>
GANOPS_INLINE void load_shifted(Vec<float> (&to)[count], const float* from) {
#if GANOPS_VECTOR_BYTES == 64
  static_assert(count <= kLanes<float>);
  const Vec<float> low = load(from), high = load(from + kLanes<float>);
  to[0] = low;
  unrolled<count - 1>([&](auto i) __attribute__((always_inline)) { to[i + 1] = shifted<i + 1>(low, high); });
#else
  for (int i = 0; i < count; i++) to[i] = load_once(from + i);
#endif
}

// a[0] b[0] a[1] b[1] ...: the first half in a, the second in b. GCC finds the instructions.
GANOPS_INLINE void interleave(Vec<float>& a, Vec<float>& b) {
  constexpr int64_t n = kLanes<float>;
  float joined[2 * n];
  for (int64_t i = 0; i < n; i++) {
    joined[2 * i] = a[i];
    joined[2 * i + 1] = b[i];
  }
  a = load(joined);
  b = load(joined + n);
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
  int64_t i = 0;
#ifdef GANOPS_VECTOR_BFLOAT16
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i))));
#endif
  for (; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    to[i].x = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
  }
}

inline void load_row(float* to, const Half* from, int64_t n) {
  int64_t i = 0;
#if GANOPS_VECTOR_BYTES >= 32
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
  for (; i < n; i++) to[i] = static_cast<float>(from[i]);
}

inline void store_row(Half* to, const float* from, int64_t n) {
  int64_t i = 0;
#if GANOPS_VECTOR_BYTES >= 32
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
  for (; i < n; i++) to[i] = static_cast<Half>(from[i]);
}

// bfloat16 in pairs: a lane of 32 bits holds two, the first in its low half. (AVX512-BF16 takes denormals for zeros.)
GANOPS_INLINE Vec<float> as_floats(Vec<uint32_t> bits) {
  return reinterpret_cast<Vec<float>>(bits);
}
GANOPS_INLINE Vec<float> first_of(Vec<uint32_t> pairs) {
  return as_floats(pairs << 16);
}
GANOPS_INLINE Vec<float> second_of(Vec<uint32_t> pairs) {
  return as_floats(pairs & 0xffff0000u);
}

// To nearest even, in the high half; the low half is what is left of it.
GANOPS_INLINE Vec<uint32_t> rounded_to_bfloat16(Vec<float> v) {
  const auto bits = reinterpret_cast<Vec<uint32_t>>(v);
  const Vec<uint32_t> rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return v == v ? rounded : bits | 0x400000u;
}

// As many bfloat16 as a vector has floats; each in the low half of a lane.
typedef uint16_t HalfVec __attribute__((vector_size(GANOPS_VECTOR_BYTES / 2), aligned(2), may_alias));
GANOPS_INLINE Vec<uint32_t> widened(HalfVec v) {
  return __builtin_convertvector(v, Vec<uint32_t>);
}

GANOPS_INLINE Vec<uint32_t> to_pairs(Vec<float> first, Vec<float> second) {
#ifdef GANOPS_VECTOR_BFLOAT16
  const auto low = reinterpret_cast<HalfVec>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(first)));
  const auto high = reinterpret_cast<HalfVec>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(second)));
  return widened(low) | widened(high) << 16;
#else
  return rounded_to_bfloat16(first) >> 16 | (rounded_to_bfloat16(second) & 0xffff0000u);
#endif
}

// sum + first * first + second * second.
GANOPS_INLINE Vec<float> add_products(Vec<float> sum, Vec<uint32_t> a, Vec<uint32_t> b) {
#ifdef GANOPS_VECTOR_BFLOAT16
  return reinterpret_cast<Vec<float>>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
#else
  return sum + first_of(a) * first_of(b) + second_of(a) * second_of(b);
#endif
}

// The first count elements, as floats, and zeros.
GANOPS_INLINE Vec<float> load_floats(const float* from, int64_t count) {
  return load_first(from, count);
}
GANOPS_INLINE Vec<float> load_floats(const BFloat16* from, int64_t count) {
  BFloat16 some[kLanes<float>] = {};
  if (count < kLanes<float>) std::memcpy(some, from, count * sizeof(BFloat16));
  return first_of(widened(*reinterpret_cast<const HalfVec*>(count < kLanes<float> ? some : from)));
}

GANOPS_INLINE void store_first(uint32_t* to, Vec<uint32_t> v, int64_t count) {
  if (count >= kLanes<float>)
    store(to, v);
  else
    std::memcpy(to, &v, count * sizeof(uint32_t));
}

constexpr int64_t kLineBytes = 64;  // a cache line
template <class T>
constexpr int64_t kLine = kLineBytes / sizeof(T);

// Starts to fetch a row, which may lie outside the tensor. Rows are too short for the processor to run ahead by itself.
template <class T>
GANOPS_INLINE void prefetch(const T* row, int64_t n) {
  for (int64_t i = 0; i < n; i += kLine<T>) __builtin_prefetch(row + i);
}

// Memory that will not be read before it has left the caches is written past them: a store would fetch its line first.
// What is streamed is in order for other threads after finish_streams.
constexpr int64_t kStreamedBytes = 8 << 20;

inline bool is_streamed(int64_t bytes) {
  return bytes >= kStreamedBytes;
}

// How many elements lie between p and the place before it, or p itself, where a vector starts.
inline int64_t elements_into_vector(const float* p) {
  return reinterpret_cast<uintptr_t>(p) / sizeof(float) % kLanes<float>;
}

// For p that starts a vector.
GANOPS_INLINE void stream(float* p, Vec<float> v) {
#if GANOPS_VECTOR_BYTES == 64
  _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif GANOPS_VECTOR_BYTES == 32
  _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#elif defined(GANOPS_X86_64)
  _mm_stream_ps(p, reinterpret_cast<__m128>(v));
#else
  store(p, v);
#endif
}

// A row that may start and end anywhere: what is no whole vector of y is stored.
inline void stream_row(float* to, const float* from, int64_t n) {
  int64_t i = std::min(-elements_into_vector(to) & (kLanes<float> - 1), n);
  store_row(to, from, i);
  for (; i + kLanes<float> <= n; i += kLanes<float>) stream(to + i, load(from + i));
  store_row(to + i, from + i, n - i);
}

inline void finish_streams() {
#ifdef GANOPS_X86_64
  _mm_sfence();
#endif
}

}  // namespace ganops::GANOPS_ISA

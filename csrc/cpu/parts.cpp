// Images of parts on the CPU. A part is visited in its ellipse alone: row by row, the interval that ellipse.hpp gives, 64
// bytes of pixels at a time. With w scaled so that exp(-|w|^2 / 2) = 2^-(s^2 + s_y^2), a pixel takes s = s_0 + step x, a
// square and a power of two. A part is one thread's, and what is added up is added in the same order with any vectors, so
// the result is the same bit for bit with any number of threads and any instruction set. Nothing is allocated.
#include "parts.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../ellipse.hpp"
#include "instruction_sets.hpp"
#include "simd.hpp"

#if SL_HAS_X86
#include <emmintrin.h>
#endif

namespace structloss {
namespace {

// What the memory of images holds before, and how zeros get there.
enum class Zeros {
  held,      // it holds them
  written,   // into the caches
  streamed,  // past the caches, which are too small for them: nothing is read first, and all is back before it is used
};
// Images from this size on are streamed.
constexpr int64_t kStreamedBytes = int64_t(32) << 20;

// sqrt(log2(e) / 2): what w is multiplied by.
constexpr double kToPowers = 0.8493218002880191;

// How a power of two is taken: 2^f for |f| <= 1/2 is a polynomial, the whole number goes into the exponent's bits.
template <typename T>
struct Powers;
template <>
struct Powers<float> {
  using Int = int32_t;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: added and taken away, it leaves a whole number
  static constexpr float kLeast = -100.0f;      // beyond reach already (-20), and a normal number
  static constexpr float kMost = 1e30f;         // a step to beyond any reach
  static constexpr int kMantissa = 23, kBias = 127, kDegree = 7;
};
template <>
struct Powers<double> {
  using Int = int64_t;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLeast = -1000.0;
  static constexpr double kMost = 1e150;
  static constexpr int kMantissa = 52, kBias = 1023, kDegree = 13;
};
// log(2)^n / n!; the first that is left out is below 6e-9 for float, 5e-18 for double.
constexpr double kPowerSeries[] = {1.0,
                                   0.6931471805599453,
                                   0.2402265069591007,
                                   0.05550410866482158,
                                   0.009618129107628477,
                                   0.0013333558146428443,
                                   0.0001540353039338161,
                                   1.525273380405984e-05,
                                   1.321548679014431e-06,
                                   1.01780860092397e-07,
                                   7.054911620801122e-09,
                                   4.4455382718708115e-10,
                                   2.5678435993488202e-11,
                                   1.3691488853904128e-12};

// kStrip pixels side by side, in as many vectors of kBytes as it takes.
template <typename T, int kBytes>
struct Strip {
  using Int = typename Powers<T>::Int;
  static constexpr int kLanes = kBytes / int(sizeof(T)), kVectors = 64 / kBytes, kPixels = kLanes * kVectors;
  typedef T Vec __attribute__((vector_size(kBytes)));
  typedef Int Mask __attribute__((vector_size(kBytes)));
  static SL_INLINE Vec read(const T* x) {
    Vec v;
    std::memcpy(&v, x, sizeof v);
    return v;
  }
  static SL_INLINE void write(T* x, Vec v) { std::memcpy(x, &v, sizeof v); }
  // 0, 1, 2, ... of the strip's vector.
  static SL_INLINE Mask places(int vector) {
    Mask places{};
    for (int l = 0; l < kLanes; ++l) places[l] = Int(vector * kLanes + l);
    return places;
  }
  // 2^x for x <= 1; anything for NaN.
  static SL_INLINE Vec power(Vec x) {
    using P = Powers<T>;
    x = x > P::kLeast ? x : Vec{} + P::kLeast;
    const Vec shifted = x + P::kRound, f = x - (shifted - P::kRound);
    Vec sum = Vec{} + T(kPowerSeries[P::kDegree]);
    SL_UNROLL
    for (int n = P::kDegree - 1; n >= 0; --n) sum = sum * f + T(kPowerSeries[n]);
    Mask bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << P::kMantissa) + (Int(P::kBias) << P::kMantissa);
    Vec two;
    std::memcpy(&two, &bits, sizeof two);
    return sum * two;
  }
};

// What a row of pixels has of a part.
template <typename T>
struct Interval {
  int64_t begin, count;  // pixels; none: count 0
  T first, step;         // s of the first pixel, and what each further one adds
  T row;                 // -s_y^2
  double w_y;
};

// The rows and intervals of a part.
template <typename T>
struct Covered {
  Ellipse e;
  double last, reach;  // last: the last pixel of a row or column
  int64_t begin = 0, end = 0;  // rows

  SL_INLINE Covered(const Ellipse& ellipse, int64_t size) : e(ellipse), last(double(size - 1)), reach(Reach<T>::kScales) {
    const double low = std::ceil(std::max(0.0, e.mean_y - reach / e.yy));
    const double high = std::floor(std::min(last, e.mean_y + reach / e.yy));
    if (low <= high) begin = int64_t(low), end = int64_t(high) + 1;
  }
  SL_INLINE Interval<T> row(int64_t y) const {
    const double dy = double(y) - e.mean_y, w_y = e.yy * dy, rest = reach * reach - w_y * w_y;
    const double half = std::sqrt(std::max(0.0, rest)) / e.xx, zero = e.mean_x - e.slope * dy;
    const double low = zero - half, high = zero + half;
    Interval<T> of{};
    if (!(rest >= 0 && high >= 0 && low <= last)) return of;  // nor where they are not numbers
    const double begin = std::ceil(std::max(0.0, low)), end = std::floor(std::min(last, high));
    if (begin > end) return of;
    of.begin = int64_t(begin);
    of.count = int64_t(end) - of.begin + 1;
    of.first = T(kToPowers * e.xx * (begin - zero));
    of.step = T(std::min(kToPowers * e.xx, double(Powers<T>::kMost)));
    of.row = T(-(kToPowers * w_y) * (kToPowers * w_y));
    of.w_y = w_y;
    return of;
  }
};

template <typename T>
SL_INLINE void fill(T* x, int64_t count, T value) {
  for (int64_t i = 0; i < count; ++i) x[i] = value;
}

constexpr int64_t kLine = 64;  // bytes of a cache's line

SL_INLINE void zero(char* at, int64_t bytes, Zeros zeros) {
#if SL_HAS_X86
  // Whole lines alone: one that is streamed in pieces takes the memory longer than one that is written.
  const int64_t first = std::min(bytes, int64_t(-reinterpret_cast<uintptr_t>(at) % kLine));
  const int64_t lines = zeros == Zeros::streamed ? (bytes - first) / kLine : 0;
  if (lines > 0) {
    std::memset(at, 0, size_t(first));
    at += first;
    for (int64_t i = 0; i < lines * kLine; i += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(at + i), _mm_setzero_si128());
    at += lines * kLine;
    bytes -= first + lines * kLine;
  }
#endif
  if (zeros != Zeros::held) std::memset(at, 0, size_t(bytes));
}
// Before another thread may read what was streamed.
SL_INLINE void finish(Zeros zeros) {
#if SL_HAS_X86
  if (zeros == Zeros::streamed) _mm_sfence();
#endif
  (void)zeros;
}

template <typename T>
SL_INLINE void zero(T* from, T* to, Zeros zeros) {
  zero(reinterpret_cast<char*>(from), (to - from) * int64_t(sizeof(T)), zeros);
}

template <typename T, int kBytes>
SL_INLINE void render_row(const Interval<T>& of, T peak, T* row, int64_t size) {
  using S = Strip<T, kBytes>;
  for (int64_t i = 0; i < of.count; i += S::kPixels) {
    T* at = row + of.begin + i;
    const int64_t left = of.count - i, room = size - of.begin - i;
    typename S::Vec v[S::kVectors];
    SL_UNROLL
    for (int k = 0; k < S::kVectors; ++k) {
      const typename S::Mask place = S::places(k) + typename S::Int(i);
      const typename S::Vec s = of.first + of.step * __builtin_convertvector(place, typename S::Vec);
      v[k] = peak * S::power(of.row - s * s);
      v[k] = place < typename S::Int(of.count) ? v[k] : typename S::Vec{};
    }
    if (room >= S::kPixels) {  // zeros may be written where zeros are, or will be
      SL_UNROLL
      for (int k = 0; k < S::kVectors; ++k) S::write(at + k * S::kLanes, v[k]);
    } else {
      std::memcpy(at, v, size_t(std::min<int64_t>(left, S::kPixels)) * sizeof(T));
    }
  }
}

template <typename T, int kBytes>
SL_INLINE void render_part(const T* matrix, const T* part, int64_t size, T* image, Zeros zeros) {
  Ellipse e;
  const Seen seen = ellipse_of(matrix, part, e);
  if (seen == Seen::invalid) return fill(image, size * size, std::numeric_limits<T>::quiet_NaN());
  T* done = image;  // up to here
  if (seen == Seen::part) {
    const Covered<T> covered(e, size);
    for (int64_t y = covered.begin; y < covered.end; ++y) {
      const Interval<T> of = covered.row(y);
      if (of.count == 0) continue;
      T* row = image + y * size;
      zero(done, row + of.begin, zeros);
      render_row<T, kBytes>(of, part[5], row, size);
      done = row + of.begin + of.count;
    }
  }
  zero(done, image + size * size, zeros);
  finish(zeros);
}

// Rows that the incoming gradient is asked for ahead.
constexpr int64_t kAhead = 4;

// Incoming gradients of up to a strip of pixels; those beyond `left` are 0 or of pixels that exist.
template <typename T, int kBytes>
SL_INLINE void read_strip(const T* from, int64_t stride, int64_t left, int64_t room, typename Strip<T, kBytes>::Vec* g) {
  using S = Strip<T, kBytes>;
  if (stride == 1 && room >= S::kPixels) {
    SL_UNROLL
    for (int k = 0; k < S::kVectors; ++k) g[k] = S::read(from + k * S::kLanes);
    return;
  }
  T some[S::kPixels] = {};
  const int64_t count = std::min<int64_t>(left, S::kPixels);
  for (int64_t i = 0; i < count; ++i) some[i] = from[i * stride];
  std::memcpy(g, some, sizeof some);
}

template <typename T, int kBytes>
SL_INLINE void gradient_of_part(const T* matrix, const T* part, int64_t size, const T* incoming, int64_t y_stride,
                                int64_t x_stride, T* gradient) {
  using S = Strip<T, kBytes>;
  Ellipse e;
  const Seen seen = ellipse_of(matrix, part, e);
  if (seen != Seen::part) return fill(gradient, 6, seen == Seen::nothing ? T(0) : std::numeric_limits<T>::quiet_NaN());
  const Covered<T> covered(e, size);
  // By place in a strip, in double: of h s, h s_y, h s^2, h s s_y, h s_y^2.
  double sums[5][S::kPixels] = {};
  for (int64_t y = covered.begin; y < covered.end; ++y) {
    const Interval<T> of = covered.row(y);
    if (of.count == 0) continue;
    const T* from = incoming + y * y_stride + of.begin * x_stride;
    typename S::Vec zeroth[S::kVectors] = {}, first[S::kVectors] = {}, second[S::kVectors] = {};
    for (int64_t i = 0; i < of.count; i += S::kPixels) {
      typename S::Vec g[S::kVectors];
      // Intervals of different rows are far apart: the memory must be told of them. No address is wrong to ask for.
      const uintptr_t ahead = uintptr_t(kAhead * y_stride + i * x_stride) * sizeof(T);
      __builtin_prefetch(reinterpret_cast<const void*>(uintptr_t(from) + ahead));
      read_strip<T, kBytes>(from + i * x_stride, x_stride, of.count - i, size - of.begin - i, g);
      SL_UNROLL
      for (int k = 0; k < S::kVectors; ++k) {
        const typename S::Mask place = S::places(k) + typename S::Int(i);
        const typename S::Vec s = of.first + of.step * __builtin_convertvector(place, typename S::Vec);
        typename S::Vec h = g[k] * S::power(of.row - s * s);
        h = place < typename S::Int(of.count) ? h : typename S::Vec{};  // g may be NaN there
        const typename S::Vec hs = h * s;
        zeroth[k] += h;
        first[k] += hs;
        second[k] += hs * s;
      }
    }
    T row[3][S::kPixels];
    std::memcpy(row[0], zeroth, sizeof zeroth);
    std::memcpy(row[1], first, sizeof first);
    std::memcpy(row[2], second, sizeof second);
    for (int l = 0; l < S::kPixels; ++l) {
      const double h = double(row[0][l]), hx = double(row[1][l]), by_y = h * of.w_y;
      sums[0][l] += hx;
      sums[1][l] += by_y;
      sums[2][l] += double(row[2][l]);
      sums[3][l] += hx * of.w_y;
      sums[4][l] += by_y * of.w_y;
    }
  }
  double total[5] = {};
  for (int k = 0; k < 5; ++k)
    for (int l = 0; l < S::kPixels; ++l) total[k] += sums[k][l];
  const double peak = double(part[5]), once = peak / kToPowers, twice = once / kToPowers;
  const Moments m{once * total[0], peak * total[1], twice * total[2], once * total[3], peak * total[4]};
  double found[6];
  matrix_gradient(matrix, part, e, m, found);
  for (int k = 0; k < 6; ++k) gradient[k] = T(found[k]);
}

// One part's work in one instruction set.
template <typename T>
struct PartTasks {
  void (*render)(const T* matrix, const T* part, int64_t size, T* image, Zeros zeros);
  void (*gradient)(const T* matrix, const T* part, int64_t size, const T* incoming, int64_t y_stride, int64_t x_stride,
                   T* gradient);
};
template <typename Set, typename T>
struct Compiled;
#define SL_DEFINE_PARTS(SET, BYTES, TYPE, TARGET)                                                                    \
  template <>                                                                                                        \
  struct Compiled<SET, TYPE> {                                                                                       \
    TARGET static void render(const TYPE* matrix, const TYPE* part, int64_t size, TYPE* image, Zeros zeros) {        \
      render_part<TYPE, BYTES>(matrix, part, size, image, zeros);                                                    \
    }                                                                                                                \
    TARGET static void gradient(const TYPE* matrix, const TYPE* part, int64_t size, const TYPE* incoming,            \
                                int64_t y_stride, int64_t x_stride, TYPE* gradient) {                                \
      gradient_of_part<TYPE, BYTES>(matrix, part, size, incoming, y_stride, x_stride, gradient);                     \
    }                                                                                                                \
  };
SL_DEFINE_PARTS(Plain, 16, float, )
SL_DEFINE_PARTS(Plain, 16, double, )
#if SL_HAS_X86
SL_DEFINE_PARTS(Avx2, 32, float, SL_TARGET_AVX2)
SL_DEFINE_PARTS(Avx2, 32, double, SL_TARGET_AVX2)
SL_DEFINE_PARTS(Avx512, 64, float, SL_TARGET_AVX512)
SL_DEFINE_PARTS(Avx512, 64, double, SL_TARGET_AVX512)
#endif
#undef SL_DEFINE_PARTS

template <typename T>
PartTasks<T> part_tasks() {
  switch (instruction_set()) {
#if SL_HAS_X86
    case InstructionSet::avx512: return {Compiled<Avx512, T>::render, Compiled<Avx512, T>::gradient};
    case InstructionSet::avx2: return {Compiled<Avx2, T>::render, Compiled<Avx2, T>::gradient};
#endif
    default: return {Compiled<Plain, T>::render, Compiled<Plain, T>::gradient};
  }
}

// Pixels that are worth another thread: to wake one takes as long.
constexpr int64_t kPixelsPerThread = 1 << 18;

template <typename F>
void over_parts(const PartsParams& q, const Threads& threads, F& body) {
  const int64_t parts = q.N * q.P, pixels = std::max<int64_t>(1, q.size * q.size);
  const int64_t least = (kPixelsPerThread + pixels - 1) / pixels, count = std::max<int64_t>(1, threads.count);
  const int64_t grain = std::max(least, (parts + count - 1) / count);
  if (threads.parallel_for != nullptr && grain < parts &&
      threads.parallel_for(
          0, parts, grain, [](int64_t begin, int64_t end, void* f) { (*static_cast<F*>(f))(begin, end); }, &body) == 0)
    return;
  body(int64_t(0), parts);  // also where the pool failed: what is written twice is the same
}

template <typename T>
void render_typed(const PartsParams& q, T* image, bool holds_zeros, const Threads& threads) {
  const PartTasks<T> tasks = part_tasks<T>();
  const bool large = q.N * q.P * q.size * q.size * int64_t(sizeof(T)) >= kStreamedBytes;
  const Zeros zeros = holds_zeros ? Zeros::held : large ? Zeros::streamed : Zeros::written;
  const T *matrices = static_cast<const T*>(q.matrices), *parts = static_cast<const T*>(q.parts);
  auto body = [=, &q](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      tasks.render(matrices + 6 * i, parts + 6 * (i % q.P), q.size, image + i * q.size * q.size, zeros);
  };
  over_parts(q, threads, body);
}

template <typename T>
void backward_typed(const PartsParams& q, const T* incoming, const int64_t* strides, T* gradient, const Threads& threads) {
  const PartTasks<T> tasks = part_tasks<T>();
  const T *matrices = static_cast<const T*>(q.matrices), *parts = static_cast<const T*>(q.parts);
  auto body = [=, &q](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / q.P, p = i % q.P;
      tasks.gradient(matrices + 6 * i, parts + 6 * p, q.size, incoming + n * strides[0] + p * strides[1], strides[2],
                     strides[3], gradient + 6 * i);
    }
  };
  over_parts(q, threads, body);
}

}  // namespace

void render_parts(const PartsParams& q, void* image, bool holds_zeros, const Threads& threads) {
  if (q.dtype == DType::f32)
    render_typed(q, static_cast<float*>(image), holds_zeros, threads);
  else
    render_typed(q, static_cast<double*>(image), holds_zeros, threads);
}

void render_parts_backward(const PartsParams& q, const void* image_gradient, const int64_t* strides, void* gradient,
                           const Threads& threads) {
  if (q.dtype == DType::f32)
    backward_typed(q, static_cast<const float*>(image_gradient), strides, static_cast<float*>(gradient), threads);
  else
    backward_typed(q, static_cast<const double*>(image_gradient), strides, static_cast<double*>(gradient), threads);
}

}  // namespace structloss

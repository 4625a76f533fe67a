// Vectors of numbers, one per frame, and their mathematics: what terms.hpp computes with on the CPU. Include it before.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace structloss {

// Four frames in double, whatever the poses' dtype: for angles, and sums and scales of whole frames, which lose digits.
constexpr int kPack = 4;
typedef RankTraits<double>::Vec Pack;
typedef RankTraits<double>::CountVec PackMask;
static_assert(sizeof(Pack) == kPack * sizeof(double));
// Eight frames in float, for what is made of differences of coordinates, exact however far the origin is: errors, steps,
// bones.
typedef RankTraits<float>::Vec FloatPack;

template <typename V>
struct PackTraits;
template <>
struct PackTraits<Pack> {
  using Element = double;
  static constexpr int kLanes = kPack;
};
template <>
struct PackTraits<FloatPack> {
  using Element = float;
  static constexpr int kLanes = 8;
};

template <typename V>
SL_INLINE V constant(double x) {
  return V{} + typename PackTraits<V>::Element(x);
}
template <typename V, typename T>
SL_INLINE V load_as(const T* x) {
  typedef T From __attribute__((vector_size(sizeof(T) * PackTraits<V>::kLanes)));
  From v;
  std::memcpy(&v, x, sizeof v);
  return __builtin_convertvector(v, V);
}
template <typename V, typename T>
SL_INLINE void store_as(T* x, V v) {
  typedef T To __attribute__((vector_size(sizeof(T) * PackTraits<V>::kLanes)));
  const To converted = __builtin_convertvector(v, To);
  std::memcpy(x, &converted, sizeof converted);
}
template <typename V>
SL_INLINE double lane_total(V v) {
  double sum = 0;
  for (int i = 0; i < PackTraits<V>::kLanes; ++i) sum += double(v[i]);
  return sum;
}
SL_INLINE FloatPack root(FloatPack x) {
  for (int i = 0; i < PackTraits<FloatPack>::kLanes; ++i) x[i] = std::sqrt(x[i]);
  return x;
}
SL_INLINE Pack root(Pack x) {
  for (int i = 0; i < kPack; ++i) x[i] = std::sqrt(x[i]);
  return x;
}
// exp(x) for 0 <= x < 700, within 2 units in the last place; NaN stays NaN.
SL_INLINE Pack exponential(Pack x) {
  constexpr double kLog2 = 1.4426950408889634, kHigh = 6.93147180369123816490e-01, kLow = 1.90821492927058770002e-10;
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: added and taken away, it leaves an integer
  const Pack shifted = x * kLog2 + kRound, k = shifted - kRound;
  const Pack r = (x - k * kHigh) - k * kLow;
  Pack sum = Pack{} + 1.0;
  for (int n = 13; n > 0; --n) sum = 1.0 + sum * r * (1.0 / n);  // Taylor, |r| <= log(2) / 2
  // 2^k: the integer's low bits moved to where a double has its exponent.
  PackMask bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 52) + (int64_t(1023) << 52);
  Pack power;
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}
// The same in float, for x < 80.
SL_INLINE FloatPack exponential(FloatPack x) {
  typedef RankTraits<float>::CountVec Mask;
  constexpr float kLog2 = 1.44269504f, kHigh = 0.693359375f, kLow = -2.12194440e-4f;  // k kHigh is exact
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  const FloatPack shifted = x * kLog2 + kRound, k = shifted - kRound;
  const FloatPack r = (x - k * kHigh) - k * kLow;
  FloatPack sum = FloatPack{} + 1.0f;
  for (int n = 7; n > 0; --n) sum = 1.0f + sum * r * (1.0f / float(n));  // the next term is below 6e-9
  Mask bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127 << 23);
  FloatPack power;
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}
// arccos(x) for -1 <= x <= 1, within a few units in the last place; NaN stays NaN.
SL_INLINE Pack arc_cosine(Pack x) {
  // asin(y) = y + y^3 q(y^2) for |y| <= 1/2; q interpolates at Chebyshev nodes, to 4e-18.
  constexpr double q[] = {0.16666666666666667827, 0.074999999999984329332, 0.044642857146355429783,
                          0.030381944138531247287, 0.022372172942149887875, 0.017352392720869972942,
                          0.013971212973552933304, 0.011479177415184905896, 0.010322814350185779287,
                          0.0054575067186403583004, 0.017400879442694022443, -0.014851887071247203224,
                          0.028757851367421564708};
  constexpr double kPi = 3.14159265358979323846, kPiTail = 1.2246467991473532e-16;
  const Pack size = x < 0.0 ? -x : x;
  // Near +-1 the half angle: arccos(x) = 2 asin(sqrt((1 - x) / 2)).
  const PackMask outer = size > 0.5;
  const Pack z = outer ? (1.0 - size) * 0.5 : size * size;
  const Pack y = outer ? root(z) : size;
  Pack p = Pack{} + q[12];
  for (int n = 11; n >= 0; --n) p = p * z + q[n];
  const Pack asin = y + y * z * p;
  const Pack near_one = 2.0 * asin, near_zero = x < 0.0 ? 0.5 * kPi + (asin + 0.5 * kPiTail) : 0.5 * kPi - (asin - 0.5 * kPiTail);
  return outer ? (x < 0.0 ? kPi - (near_one - kPiTail) : near_one) : near_zero;
}

}  // namespace structloss

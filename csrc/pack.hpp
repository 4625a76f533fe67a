// Vectors of numbers, one a frame, and their mathematics: what terms.hpp computes with on the CPU. Include it before.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace structloss {

// Frames per vector. The local terms are computed in double, whatever the poses' dtype: differences of coordinates far
// from the origin, and angles near 0, keep their digits.
constexpr int kPack = 4;
typedef double Pack __attribute__((vector_size(8 * kPack)));
typedef int64_t PackMask __attribute__((vector_size(8 * kPack)));
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
SL_INLINE Pack load_pack(const double* x) {
  Pack v;
  std::memcpy(&v, x, sizeof v);
  return v;
}
SL_INLINE Pack load_pack(const float* x) {
  typedef float Narrow __attribute__((vector_size(4 * kPack)));
  Narrow v;
  std::memcpy(&v, x, sizeof v);
  return __builtin_convertvector(v, Pack);
}
SL_INLINE void store_pack(double* x, Pack v) { std::memcpy(x, &v, sizeof v); }
SL_INLINE double lane_total(Pack v) {
  double sum = 0;
  for (int i = 0; i < kPack; ++i) sum += v[i];
  return sum;
}

}  // namespace structloss

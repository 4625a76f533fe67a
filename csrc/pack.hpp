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
SL_INLINE Pack exponential(Pack x) {
  for (int i = 0; i < kPack; ++i) x[i] = std::exp(x[i]);
  return x;
}
SL_INLINE Pack arc_cosine(Pack x) {
  for (int i = 0; i < kPack; ++i) x[i] = std::acos(x[i]);
  return x;
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

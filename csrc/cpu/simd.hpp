// Vectors of the compiler's own: they compile for any instruction set, comparisons give masks of 0 and -1.
#pragma once

#include <cstdint>
#include <cstring>

#define SL_INLINE inline __attribute__((always_inline))
// For lambdas: one that is not inlined would be compiled for the oldest instruction set.
#define SL_INLINED __attribute__((always_inline))

#if defined(__clang__)
#define SL_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SL_UNROLL _Pragma("GCC unroll 32")
#else
#define SL_UNROLL
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SL_HAS_SHUFFLE 1
#endif
#endif

namespace structloss {

template <typename T>
struct RankTraits;
template <>
struct RankTraits<float> {
  using Count = int32_t;  // as wide as the element, so that a compare's mask is added without conversion
  static constexpr int kLanes = 8;
  static constexpr bool kHasCodes = true;  // see block.hpp
  typedef float Vec __attribute__((vector_size(32)));
  typedef int32_t CountVec __attribute__((vector_size(32)));
};
template <>
struct RankTraits<double> {
  using Count = int64_t;
  static constexpr int kLanes = 4;
  static constexpr bool kHasCodes = false;
  typedef double Vec __attribute__((vector_size(32)));
  typedef int64_t CountVec __attribute__((vector_size(32)));
};

template <typename T>
SL_INLINE typename RankTraits<T>::Vec load(const T* x) {
  typename RankTraits<T>::Vec v;
  std::memcpy(&v, x, sizeof v);
  return v;
}
template <typename T>
SL_INLINE typename RankTraits<T>::Vec splat(T x) {
  return typename RankTraits<T>::Vec{} + x;
}
// A comparator of a sorting network.
template <typename V>
SL_INLINE void exchange(V& a, V& b) {
  const V low = a < b ? a : b, high = a > b ? a : b;  // so written, single instructions
  a = low;
  b = high;
}
// Whether a mask has a lane that is not 0.
template <typename V>
SL_INLINE bool any_lane(const V& mask) {
  uint64_t part[sizeof mask / 8], all = 0;
  std::memcpy(part, &mask, sizeof mask);
  for (uint64_t x : part) all |= x;
  return all != 0;
}
}  // namespace structloss

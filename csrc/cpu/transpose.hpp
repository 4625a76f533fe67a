// Small squares turned around in registers: between poses in memory (a frame after the other) and rows of frames.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace structloss {

// Side of the square: the elements of a 32-byte vector.
template <typename T>
constexpr int kTile = 32 / int(sizeof(T));

#if defined(SL_HAS_SHUFFLE)

// x[i][k] <-> x[k][i]
SL_INLINE void turn(RankTraits<float>::Vec (&x)[8]) {
  RankTraits<float>::Vec y[8];
  for (int i = 0; i < 8; i += 2) {  // neighbours interleaved
    y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)  // fours
    for (int k = 0; k < 2; ++k) {
      x[i + 2 * k] = __builtin_shufflevector(y[i + k], y[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      x[i + 2 * k + 1] = __builtin_shufflevector(y[i + k], y[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; ++i) {  // halves
    y[i] = __builtin_shufflevector(x[i], x[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    y[i + 4] = __builtin_shufflevector(x[i], x[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int i = 0; i < 8; ++i) x[i] = y[i];
}
SL_INLINE void turn(RankTraits<double>::Vec (&x)[4]) {
  RankTraits<double>::Vec y[4];
  for (int i = 0; i < 4; i += 2) {
    y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 4, 2, 6);
    y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 1, 5, 3, 7);
  }
  for (int i = 0; i < 2; ++i) {
    x[i] = __builtin_shufflevector(y[i], y[i + 2], 0, 1, 4, 5);
    x[i + 2] = __builtin_shufflevector(y[i], y[i + 2], 2, 3, 6, 7);
  }
}

// The vector that begins a frame later than `a`, `b` being the one after it.
SL_INLINE RankTraits<float>::Vec a_frame_on(RankTraits<float>::Vec a, RankTraits<float>::Vec b) {
  return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8);
}
SL_INLINE RankTraits<double>::Vec a_frame_on(RankTraits<double>::Vec a, RankTraits<double>::Vec b) {
  return __builtin_shufflevector(a, b, 1, 2, 3, 4);
}

// to[i][k] = from[k][i], rows `from_stride` and `to_stride` apart.
template <typename T, typename From>
SL_INLINE void transpose(const From* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int L = kTile<T>;
  typedef From Wide __attribute__((vector_size(L * sizeof(From))));
  typename RankTraits<T>::Vec x[L];
  for (int i = 0; i < L; ++i) {
    Wide row;
    std::memcpy(&row, from + i * from_stride, sizeof row);
    x[i] = __builtin_convertvector(row, typename RankTraits<T>::Vec);
  }
  turn(x);
  for (int i = 0; i < L; ++i) std::memcpy(to + i * to_stride, &x[i], sizeof x[i]);
}

#else

template <typename T, typename From>
SL_INLINE void transpose(const From* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int L = kTile<T>;
  for (int i = 0; i < L; ++i)
    for (int k = 0; k < L; ++k) to[i * to_stride + k] = T(from[k * from_stride + i]);
}
template <typename V>
SL_INLINE V a_frame_on(V a, V b) {
  constexpr int L = sizeof(V) / sizeof(a[0]);
  for (int i = 0; i + 1 < L; ++i) a[i] = a[i + 1];
  a[L - 1] = b[0];
  return a;
}

#endif

// to[j][t] = from[t][j] for [frames][n], rows of `to` to_stride apart.
template <typename T>
SL_INLINE void turn_rows(const T* from, int64_t n, int frames, T* to, int64_t to_stride) {
  constexpr int L = kTile<T>;
  int t = 0;
  if (n >= L)
    for (; t + L <= frames; t += L)
      for (int64_t j = 0; j < n; j += L) {  // the last square overlaps the one before it
        const int64_t at = j + L <= n ? j : n - L;
        transpose(from + t * n + at, n, to + at * to_stride + t, to_stride);
      }
  for (; t < frames; ++t)
    for (int64_t j = 0; j < n; ++j) to[j * to_stride + t] = from[t * n + j];
}

}  // namespace structloss

// Sorts what is nearly in order: keys dealt into buckets, a bucket after the other, of at most kHalf + 1 keys each. Blocks
// of 2 kHalf keys are sorted by a network, as many side by side as a vector has lanes, then the blocks half way between
// are merged: a short bucket lies in a block of the first or of the second kind. No branch depends on a key.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "transpose.hpp"

namespace structloss {

// A key's bits are those of a normal positive double (see make_key), which order as the integers do: every instruction
// set has minima and maxima of doubles.
typedef uint64_t Key;
constexpr Key kLastKey = 0x7fe0000000000000;  // above every key

constexpr int kHalf = 16;
#if defined(__x86_64__)
constexpr int kKeyLanes = 4;
#else
constexpr int kKeyLanes = 2;  // NEON and others: compilers take selects of longer vectors apart
#endif
constexpr int kKeyAlignment = 64;
typedef double KeyVec __attribute__((vector_size(8 * kKeyLanes)));

// Batcher's odd-even merge of x[kFrom], x[kFrom + kStep], ..., two sorted halves of kCount / 2 places.
template <int kFrom, int kCount, int kStep, int... kPairs>
SL_INLINE void exchange_pairs(KeyVec* x, std::integer_sequence<int, kPairs...>) {
  (exchange(x[kFrom + kStep + 2 * kStep * kPairs], x[kFrom + 2 * kStep + 2 * kStep * kPairs]), ...);
}
template <int kFrom, int kCount, int kStep>
SL_INLINE void merge_network(KeyVec* x) {
  if constexpr (2 * kStep < kCount) {
    merge_network<kFrom, kCount, 2 * kStep>(x);
    merge_network<kFrom + kStep, kCount, 2 * kStep>(x);
    exchange_pairs<kFrom, kCount, kStep>(x, std::make_integer_sequence<int, kCount / (2 * kStep) - 1>());
  } else {
    exchange(x[kFrom], x[kFrom + kStep]);
  }
}
template <int kFrom, int kCount>
SL_INLINE void sort_network(KeyVec* x) {
  if constexpr (kCount > 1) {
    sort_network<kFrom, kCount / 2>(x);
    sort_network<kFrom + kCount / 2, kCount / 2>(x);
    merge_network<kFrom, kCount, 1>(x);
  }
}

// x[i][k] <-> x[k][i]
SL_INLINE void turn_keys(KeyVec* x) {
#if defined(SL_HAS_SHUFFLE) && defined(__x86_64__)
  turn(*reinterpret_cast<KeyVec(*)[kKeyLanes]>(x));
#else
  for (int i = 0; i < kKeyLanes; ++i)
    for (int k = 0; k < i; ++k) {
      const double value = x[i][k];
      x[i][k] = x[k][i];
      x[k][i] = value;
    }
#endif
}

// One pass over whole groups of blocks: sorts each block or, if its halves are in order, merges them.
constexpr int kGroup = 2 * kHalf * kKeyLanes;
template <bool kHalvesSorted>
SL_INLINE void network_pass(Key* keys, int64_t groups) {
  constexpr int kRows = 2 * kHalf;
  for (int64_t i = 0; i < groups; ++i) {
    // Aligned: unaligned vectors cross cache lines, and compilers halve them for old processors.
    Key* group = static_cast<Key*>(__builtin_assume_aligned(keys + i * kGroup, kKeyAlignment));
    KeyVec x[kRows];
    // A half at a time: its vectors fit the registers, and half the code does.
#pragma GCC unroll 1
    for (int half = 0; half < kRows; half += kHalf) {
      KeyVec y[kHalf];
#pragma GCC unroll 32
      for (int r = 0; r < kHalf; r += kKeyLanes) {
#pragma GCC unroll 8
        for (int l = 0; l < kKeyLanes; ++l) std::memcpy(&y[r + l], group + kRows * l + half + r, sizeof *y);
        turn_keys(y + r);
      }
      if constexpr (!kHalvesSorted) sort_network<0, kHalf>(y);
#pragma GCC unroll 32
      for (int r = 0; r < kHalf; ++r) x[half + r] = y[r];
    }
    merge_network<0, kRows, 1>(x);
#pragma GCC unroll 32
    for (int r = 0; r < kRows; r += kKeyLanes) {
      turn_keys(x + r);
#pragma GCC unroll 8
      for (int l = 0; l < kKeyLanes; ++l) std::memcpy(group + kRows * l + r, &x[r + l], sizeof *x);
    }
  }
}

// Sorts n keys whose buckets are in order and have at most kHalf + 1 keys, or are sorted already; a window of them at a
// time. `read(first, m, keys)` gives keys first..first + m - 1, and `write(first, m, keys)` takes them sorted.
constexpr int kWindow = 1024;
template <typename Read, typename Write>
SL_INLINE void sort_neighbours(int64_t n, Read&& read, Write&& write) {
  // The last half block of the window before, then the window; the first has zeros before it, below every key.
  alignas(kKeyAlignment) Key keys[kHalf + kWindow + kGroup];
  std::memset(keys, 0, kHalf * sizeof *keys);
  for (int64_t first = 0; first < n; first += kWindow) {
    const int64_t m = n - first < kWindow ? n - first : kWindow, groups = (m + kHalf + kGroup - 1) / kGroup;
    read(first, m, keys + kHalf);
    for (int64_t k = kHalf + m; k < kHalf + groups * kGroup; ++k) keys[k] = kLastKey;
    network_pass<false>(keys + kHalf, m == kWindow ? kWindow / kGroup : groups);
    network_pass<true>(keys, m == kWindow ? kWindow / kGroup : groups);
    const bool last = first + m == n;
    const int64_t skipped = first == 0 ? kHalf : 0, kept = last ? 0 : kHalf;
    write(first + skipped - kHalf, kHalf + m - skipped - kept, keys + skipped);
    if (!last) std::memcpy(keys, keys + kWindow, kHalf * sizeof *keys);
  }
}

}  // namespace structloss

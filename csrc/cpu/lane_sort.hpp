// Rows side by side, one a SIMD lane, sorted by one network of compare-exchanges: no shuffles, no branches on the data.
//
// A bitonic sorter in which every comparator points the same way: the first step of a merge compares an element with its
// mirror image, the others halve the distance. So what would lie beyond the rows, the greatest of all, never moves and
// is left out. Up to three steps are done on eight vectors at a time: eight loads, twelve compare-exchanges, eight
// stores, all in the sixteen registers of AVX2.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace structloss {

// Rows side by side in vectors of `kBytes`, kCount of them. A key is as wide as an element, so that its lane is its
// row's: an integer whose bits are those of a positive normal number, because comparing numbers is what every processor
// does fastest (integers of these widths have no minimum before SSE4.1 and AVX-512).
template <typename T, int kBytes>
struct Lanes;
template <int kBytes>
struct Lanes<float, kBytes> {
  using Element = float;
  using Key = int32_t;
  static constexpr int kCount = kBytes / 4;
  static constexpr Key kLeast = 0x00800000, kGreatest = 0x7f7fffff;
  typedef float Vec __attribute__((vector_size(kBytes)));
  typedef int32_t Keys __attribute__((vector_size(kBytes)));
};
template <int kBytes>
struct Lanes<double, kBytes> {
  using Element = double;
  using Key = int64_t;
  static constexpr int kCount = kBytes / 8;
  static constexpr Key kLeast = 0x0010000000000000, kGreatest = 0x7fefffffffffffff;
  typedef double Vec __attribute__((vector_size(kBytes)));
  typedef int64_t Keys __attribute__((vector_size(kBytes)));
};

// A vector from and to memory of any alignment and type. Not by memcpy, of which GCC makes pieces of 16 bytes.
template <typename V>
struct __attribute__((packed, may_alias)) InMemory {
  V vector;
};
template <typename V, typename T>
SL_INLINE V read_vector(const T* x) {
  return reinterpret_cast<const InMemory<V>*>(x)->vector;
}
template <typename T, typename V>
SL_INLINE void write_vector(T* x, const V& v) {
  reinterpret_cast<InMemory<V>*>(x)->vector = v;
}

// Halves of x, each by comparators of distance kFrom, kFrom / 2, ..., 1.
template <int kFrom, int kSize, typename V>
SL_INLINE void clean(V (&x)[kSize]) {
  if constexpr (kFrom > 0) {
    SL_UNROLL
    for (int block = 0; block < kSize; block += 2 * kFrom)
      SL_UNROLL
      for (int i = block; i < block + kFrom; ++i) exchange(x[i], x[i + kFrom]);
    clean<kFrom / 2>(x);
  }
}

// The optimal network of eight: 19 comparators.
template <typename V>
SL_INLINE void sort_eight(V (&x)[8]) {
  exchange(x[0], x[2]), exchange(x[1], x[3]), exchange(x[4], x[6]), exchange(x[5], x[7]);
  exchange(x[0], x[4]), exchange(x[1], x[5]), exchange(x[2], x[6]), exchange(x[3], x[7]);
  exchange(x[0], x[1]), exchange(x[2], x[3]), exchange(x[4], x[5]), exchange(x[6], x[7]);
  exchange(x[2], x[4]), exchange(x[3], x[5]);
  exchange(x[1], x[4]), exchange(x[3], x[6]);
  exchange(x[1], x[2]), exchange(x[3], x[4]), exchange(x[5], x[6]);
}

// The first kSteps steps of merging the sorted halves of each block of m keys: mirror images, then distances m / 4, ...
template <typename L, int kSteps>
SL_INLINE void merge_mirrored(typename L::Key* keys, int64_t n, int64_t m) {
  using V = typename L::Vec;
  constexpr int kHalf = 1 << (kSteps - 1);
  const int64_t apart = m >> kSteps;
  for (int64_t block = 0; block + m / 2 < n; block += m) {
    typename L::Key* first = keys + block * L::kCount;
    const int64_t end = n - block;
    // Of the upper half's keys of a turn, the lowest is m - 1 - i - (kHalf - 1) * apart: beyond the rows, nothing moves.
    const int64_t lowest = m - 1 - (kHalf - 1) * apart;
    for (int64_t i = lowest < end ? 0 : lowest - end + 1; i < apart; ++i) {
      V x[2 * kHalf];
      auto low = [&](int k) SL_INLINED { return first + (i + k * apart) * L::kCount; };
      auto high = [&](int k) SL_INLINED { return first + (m - 1 - i - (kHalf - 1 - k) * apart) * L::kCount; };
      SL_UNROLL
      for (int k = 0; k < kHalf; ++k) x[k] = read_vector<V>(low(k)), x[kHalf + k] = read_vector<V>(high(k));
      SL_UNROLL
      for (int k = 0; k < kHalf; ++k) exchange(x[k], x[2 * kHalf - 1 - k]);
      clean<kHalf / 2>(x);
      SL_UNROLL
      for (int k = 0; k < kHalf; ++k) write_vector(low(k), x[k]), write_vector(high(k), x[kHalf + k]);
    }
  }
}

// kSteps steps of a merge, the first of distance `from`.
template <typename L, int kSteps>
SL_INLINE void merge_halving(typename L::Key* keys, int64_t n, int64_t from) {
  using V = typename L::Vec;
  constexpr int kSize = 1 << kSteps;
  const int64_t apart = from >> (kSteps - 1);
  for (int64_t block = 0; block + apart < n; block += 2 * from)
    for (int64_t i = block; i < block + apart; ++i) {
      V x[kSize];
      auto at = [&](int k) SL_INLINED { return keys + (i + k * apart) * L::kCount; };
      SL_UNROLL
      for (int k = 0; k < kSize; ++k) x[k] = read_vector<V>(at(k));
      clean<kSize / 2>(x);
      SL_UNROLL
      for (int k = 0; k < kSize; ++k) write_vector(at(k), x[k]);
    }
}

// Sorted blocks of kSize / 2 keys become sorted blocks of kSize.
template <typename L, int kSize>
SL_INLINE void merge_blocks(typename L::Key* keys, int64_t n) {
  if (kSize / 2 >= n) return;
  if constexpr (kSize == 16) {
    merge_mirrored<L, 1>(keys, n, kSize);
  } else if constexpr (kSize == 32) {
    merge_mirrored<L, 2>(keys, n, kSize);
  } else if constexpr (kSize == 64) {
    merge_mirrored<L, 3>(keys, n, kSize);
  } else if constexpr (kSize == 128) {
    merge_mirrored<L, 2>(keys, n, kSize);
    merge_halving<L, 2>(keys, n, kSize / 8);
  } else if constexpr (kSize == 256) {
    merge_mirrored<L, 3>(keys, n, kSize);
    merge_halving<L, 2>(keys, n, kSize / 16);
  } else if constexpr (kSize == 512) {
    merge_mirrored<L, 3>(keys, n, kSize);
    merge_halving<L, 3>(keys, n, kSize / 16);
  } else {
    static_assert(kSize == 1024, "no plan for a merge of this size");
    merge_mirrored<L, 3>(keys, n, kSize);
    merge_halving<L, 2>(keys, n, kSize / 16);
    merge_halving<L, 2>(keys, n, kSize / 64);
  }
  merge_halving<L, 3>(keys, n, 4);
}

constexpr int64_t kMostSorted = 1024;
// Rows of keys that sort_lanes touches to sort n.
constexpr int64_t sorted_size(int64_t n) {
  int64_t size = 8;
  while (size < n) size *= 2;
  return size;
}

// Sorts kCount columns of n keys at once: keys [sorted_size(n)][kCount]; n is a multiple of eight, up to kMostSorted, and
// what is beyond n holds the greatest key.
template <typename L>
SL_INLINE void sort_lanes(typename L::Key* keys, int64_t n) {
  using V = typename L::Vec;
  for (int64_t i = 0; i < n; i += 8) {
    V x[8];
    SL_UNROLL
    for (int k = 0; k < 8; ++k) x[k] = read_vector<V>(keys + (i + k) * L::kCount);
    sort_eight(x);
    SL_UNROLL
    for (int k = 0; k < 8; ++k) write_vector(keys + (i + k) * L::kCount, x[k]);
  }
  merge_blocks<L, 16>(keys, n);
  merge_blocks<L, 32>(keys, n);
  merge_blocks<L, 64>(keys, n);
  merge_blocks<L, 128>(keys, n);
  merge_blocks<L, 256>(keys, n);
  merge_blocks<L, 512>(keys, n);
  merge_blocks<L, 1024>(keys, n);
}

}  // namespace structloss

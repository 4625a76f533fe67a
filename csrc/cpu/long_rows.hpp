// Ranks of a long row: its elements are dealt into buckets by value, a radix sort with one wide digit, and ranked within
// their bucket by counting. Linear time for anything like a trajectory; what crowds into few buckets is sorted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "simd.hpp"

namespace structloss {

// Six elements per bucket on average, most of a vector; measured against 3 to 12.
constexpr int64_t bucket_count(int64_t n) { return n / 6 + 1; }
// Elements of longer buckets are sorted, not counted.
constexpr int64_t kBucketCountUpTo = 32;

// Memory for rows of up to n elements; nine bytes per element.
struct LongRow {
  std::vector<uint32_t> order;         // elements, bucket after bucket
  std::vector<uint32_t> bucket;        // where each bucket ends
  std::vector<int32_t> rank;           // twice the mid-rank by p, then twice g
  std::vector<double> weighted_rank;   // with weights: the mid-rank by p, then g

  void reserve(int64_t n, bool weighted) {
    order.resize(n);
    bucket.resize(bucket_count(n) + 1);
    rank.resize(n);
    if (weighted) weighted_rank.resize(n);
  }
};

// Deals 0..n-1 into s.order by x, which holds no NaN. False, with everything in one bucket, if x has no finite range.
template <typename T>
SL_INLINE bool deal(const T* x, int64_t n, LongRow& s) {
  const int32_t buckets = int32_t(bucket_count(n));
  uint32_t* bucket = s.bucket.data();
  uint32_t* order = s.order.data();
  T low = x[0], high = x[0];
  for (int64_t i = 0; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  const T range = high - low, factor = T(buckets) / range, most = std::numeric_limits<T>::max();
  if (!(range > 0) || !(range < most) || !(factor < most)) {
    for (int64_t i = 0; i < n; ++i) order[i] = uint32_t(i);
    return false;
  }
  // Never against the order of x: rounding is monotone.
  auto code = [x, low, factor, buckets](int64_t i) SL_INLINED {
    const int32_t c = int32_t((x[i] - low) * factor);
    return c < buckets ? c : buckets - 1;
  };
  std::fill_n(bucket, buckets, 0u);
  for (int64_t i = 0; i < n; ++i) ++bucket[code(i)];
  uint32_t begin = 0;
  for (int32_t c = 0; c < buckets; ++c) {
    const uint32_t size = bucket[c];
    bucket[c] = begin;
    begin += size;
  }
  for (int64_t i = 0; i < n; ++i) order[bucket[code(i)]++] = uint32_t(i);
  return true;
}

// Enters the rank of element i: `less` is the number (weight) of those before it, `equal` of its other ties.
SL_INLINE void enter_rank(LongRow& s, bool by_d, uint32_t i, int64_t less, int64_t equal) {
  // Ties share their mid-rank, so it also tells groups of ties apart.
  const int32_t twice = int32_t(2 * less + equal);
  s.rank[i] = by_d ? s.rank[i] - twice : twice;
}
SL_INLINE void enter_weighted_rank(LongRow& s, const double* w, bool by_d, uint32_t i, double less, double equal) {
  const double mid = less + 0.5 * equal;
  s.weighted_rank[i] = by_d ? w[i] * (s.weighted_rank[i] - mid) : mid;
}

// A short bucket without weights: each vector of elements against all, one at a time. False, with nothing entered, if
// elements tie in d: then their order by p decides.
template <typename T>
SL_INLINE bool count_bucket(const T* x, const uint32_t* order, int64_t begin, int64_t m, bool by_d, LongRow& s) {
  using Vec = typename RankTraits<T>::Vec;
  using CountVec = typename RankTraits<T>::CountVec;
  constexpr int L = RankTraits<T>::kLanes;
  T value[kBucketCountUpTo];
  typename RankTraits<T>::Count less[kBucketCountUpTo], equal[kBucketCountUpTo], ties = 0;
  for (int64_t k = 0; k < m; ++k) value[k] = x[order[k]];
  for (int64_t k = m; k % L != 0; ++k) value[k] = std::numeric_limits<T>::quiet_NaN();  // equals nothing
  for (int64_t k = 0; k < m; k += L) {
    const Vec v = load<T>(value + k);
    CountVec l = {}, e = {};
    for (int64_t j = 0; j < m; ++j) {
      const Vec other = splat<T>(value[j]);
      l -= other < v;
      e -= other == v;
    }
    std::memcpy(less + k, &l, sizeof l);
    std::memcpy(equal + k, &e, sizeof e);
  }
  for (int64_t k = 0; k < m; ++k) ties += equal[k];
  if (by_d && ties != m) return false;
  for (int64_t k = 0; k < m; ++k) enter_rank(s, by_d, order[k], begin + less[k], equal[k] - 1);
  return true;
}

// Ranks by x, one row: by p first, then, with `by_d`, by d with ties ordered by p. Leaves in s.rank twice the mid-rank by
// p, then twice g; with weights (not null) the mid-rank, then g, in s.weighted_rank. x holds no NaN.
template <typename T>
SL_INLINE void rank_by_buckets(const T* x, int64_t n, const double* w, bool by_d, LongRow& s) {
  uint32_t* order = s.order.data();
  const int32_t* rank = s.rank.data();
  const int64_t buckets = deal(x, n, s) ? bucket_count(n) : 1;
  auto before = [x, rank, by_d](uint32_t a, uint32_t b) SL_INLINED {
    if (x[a] != x[b]) return x[a] < x[b];
    return by_d && rank[a] != rank[b] ? rank[a] < rank[b] : a < b;
  };
  auto tied = [x, rank, by_d](uint32_t a, uint32_t b) SL_INLINED {
    return x[a] == x[b] && (!by_d || rank[a] == rank[b]);
  };
  double below = 0;  // weight of the buckets before
  for (int64_t c = 0, begin = 0, end; c < buckets; ++c, begin = end) {
    end = buckets == 1 ? n : int64_t(s.bucket[c]);
    const int64_t m = end - begin;
    uint32_t* mine = order + begin;
    if (m == 0) continue;
    if (w == nullptr && m <= kBucketCountUpTo && count_bucket(x, mine, begin, m, by_d, s)) continue;
    // Many equal values (a constant prediction, rounded depths) come in order already.
    bool sorted = true;
    for (int64_t k = 1; k < m && sorted; ++k) sorted = !before(mine[k], mine[k - 1]);
    if (!sorted) std::sort(mine, mine + m, before);
    for (int64_t first = 0, last; first < m; first = last) {
      double run = 0;
      for (last = first; last < m && tied(mine[last], mine[first]); ++last) run += w == nullptr ? 0 : w[mine[last]];
      for (int64_t k = first; k < last; ++k) {
        const uint32_t i = mine[k];
        if (w != nullptr) enter_weighted_rank(s, w, by_d, i, below, run - w[i]);
        enter_rank(s, by_d, i, begin + first, last - first - 1);
      }
      below += run;
    }
  }
}

}  // namespace structloss

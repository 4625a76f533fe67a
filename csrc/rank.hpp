// The pairwise ranking hinge of one row, from ranks.
//
//   L = sum over (i, j) with d_i < d_j of w_i w_j max(0, p_i - p_j) = sum_i p_i g_i
//   g_i = w_i (R_p(i) - R_{d|p}(i))
//
// R_p is the (weighted) mid-rank by p, R_{d|p} the mid-rank when sorted by d with ties ordered by p. Short rows count
// the pairs, long rows take two stable radix sorts; both give the same integers (or, with weights, sums of weights).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#define SL_INLINE inline __attribute__((always_inline))

namespace structloss {

// Rows up to this length are counted: measured crossover with the radix sort (bench/run.py --crossover).
constexpr int64_t kCountUpTo = 320;
// Rows from this length on are counted in 16-bit codes first.
constexpr int64_t kCodesFrom = 48;

template <typename T>
struct RankTraits;
template <>
struct RankTraits<float> {
  using Key = uint32_t;
  using Count = int32_t;  // as wide as the element, so that a compare's mask is added without conversion
  static constexpr int kLanes = 8;
  static constexpr bool kHasCodes = true;  // see CodeVec
  typedef float Vec __attribute__((vector_size(32)));
  typedef int32_t CountVec __attribute__((vector_size(32)));
};
template <>
struct RankTraits<double> {
  using Key = uint64_t;
  using Count = int64_t;
  static constexpr int kLanes = 4;
  static constexpr bool kHasCodes = false;
  typedef double Vec __attribute__((vector_size(32)));
  typedef int64_t CountVec __attribute__((vector_size(32)));
};

// Sum with independent partial sums, so that additions need not wait for each other; the order is fixed.
constexpr int kSumLanes = 8;
template <typename F>
SL_INLINE double lane_sum(int64_t n, F&& f) {
  double lane[kSumLanes] = {};
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int k = 0; k < kSumLanes; ++k) lane[k] += f(i + k);
  double sum = 0;
  for (; i < n; ++i) sum += f(i);
  for (int k = 0; k < kSumLanes; ++k) sum += lane[k];
  return sum;
}

constexpr int kCodeLanes = 16;

// Memory of rank_by_codes for rows up to kCountUpTo.
struct CodeScratch {
  int16_t codes[kCountUpTo + 4 * kCodeLanes], latest[kCountUpTo], previous[kCountUpTo];
};

// Working memory for one row of at most n elements; one per thread.
template <typename T>
struct RankScratch {
  using Key = typename RankTraits<T>::Key;
  using Count = typename RankTraits<T>::Count;
  struct Item {
    Key key;
    uint32_t index;
  };
  std::vector<T> p, d;
  std::vector<double> w;
  std::vector<double> g;  // the row's result, g_i
  std::vector<Count> count_p, count_d;
  std::vector<int16_t> rank_p, rank_d;  // of the 16-bit path
  CodeScratch codes;
  std::vector<uint32_t> position;  // where a kept element stands in the row
  std::vector<Item> items, spare;
  std::vector<uint32_t> group;
  std::vector<double> rank;

  void reserve(int64_t n, bool weighted) {
    // Room to pad the row to whole vectors.
    p.resize(n + 4 * RankTraits<T>::kLanes);
    d.resize(n + 4 * RankTraits<T>::kLanes);
    g.resize(n);
    if (weighted) {
      w.resize(n + RankTraits<T>::kLanes);
      position.resize(n);
    }
    // A masked long row may shrink to a short one, so both ways have their memory.
    count_p.resize((n < kCountUpTo ? n : kCountUpTo) + 4 * RankTraits<T>::kLanes);
    count_d.resize(count_p.size());
    if (RankTraits<T>::kHasCodes) {
      rank_p.resize(kCountUpTo + 4 * kCodeLanes);
      rank_d.resize(kCountUpTo + 4 * kCodeLanes);
    }
    if (n > kCountUpTo) {
      items.resize(n);
      spare.resize(n);
      group.resize(n);
      if (weighted) rank.resize(n);
    }
  }
};

// A float's bits as an unsigned integer of the same order; -0 and +0 share one key.
SL_INLINE uint32_t ordered_key(float x) {
  x += 0.0f;
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u ^ ((u >> 31) ? 0xFFFFFFFFu : 0x80000000u);
}
SL_INLINE uint64_t ordered_key(double x) {
  x += 0.0;
  uint64_t u;
  std::memcpy(&u, &x, sizeof u);
  return u ^ ((u >> 63) ? ~uint64_t(0) : uint64_t(1) << 63);
}

// The compiler's own vector types: they compile for any instruction set, comparisons give masks of 0 and -1.
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
template <typename T>
SL_INLINE typename RankTraits<T>::Count horizontal_sum(typename RankTraits<T>::CountVec v) {
  typename RankTraits<T>::Count sum = 0;
  for (int k = 0; k < RankTraits<T>::kLanes; ++k) sum += v[k];
  return sum;
}

// Twice the contribution of the pair (i, j) to g_i (its negative goes to g_j): +-2 for a wrongly ordered pair, +-1 where
// the predictions tie (half of the gradient, as torch.maximum(., 0) passes at zero), 0 for a right or undecided pair.
template <typename T>
SL_INLINE typename RankTraits<T>::CountVec pair_count(typename RankTraits<T>::Vec pi, typename RankTraits<T>::Vec pj,
                                                      typename RankTraits<T>::Vec di, typename RankTraits<T>::Vec dj) {
  const auto below = di < dj, above = dj < di;
  return (above - below) + (((pi < pj) - (pi > pj)) & (below | above));
}

// out[i] = how many of the n elements are smaller than x[i]. Four vectors of i against one j at a time: the counters stay
// in registers and need no sum across lanes. x and out have room for whole groups of four vectors.
template <typename T>
SL_INLINE void count_smaller(const T* __restrict x, int64_t n, typename RankTraits<T>::Count* __restrict out) {
  using V = typename RankTraits<T>::Vec;
  using C = typename RankTraits<T>::CountVec;
  constexpr int kLanes = RankTraits<T>::kLanes;
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    const V x0 = load<T>(x + i), x1 = load<T>(x + i + kLanes), x2 = load<T>(x + i + 2 * kLanes),
            x3 = load<T>(x + i + 3 * kLanes);
    C c0 = {}, c1 = {}, c2 = {}, c3 = {};
    for (int64_t j = 0; j < n; ++j) {
      const V v = splat<T>(x[j]);
      c0 -= v < x0;
      c1 -= v < x1;
      c2 -= v < x2;
      c3 -= v < x3;
    }
    std::memcpy(out + i, &c0, sizeof c0);
    std::memcpy(out + i + kLanes, &c1, sizeof c1);
    std::memcpy(out + i + 2 * kLanes, &c2, sizeof c2);
    std::memcpy(out + i + 3 * kLanes, &c3, sizeof c3);
  }
}

// A row in 16 bits: codes[i] grows with x[i], never against it, so unequal codes tell the order of two elements, and
// twice as many fit a vector. False if the row has no finite, positive range.
typedef int16_t CodeVec __attribute__((vector_size(32)));

SL_INLINE bool make_codes(const float* __restrict x, int64_t n, int16_t* __restrict codes) {
  float low[8], high[8];
  for (int k = 0; k < 8; ++k) low[k] = high[k] = x[0];
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int k = 0; k < 8; ++k) {
      low[k] = x[i + k] < low[k] ? x[i + k] : low[k];
      high[k] = x[i + k] > high[k] ? x[i + k] : high[k];
    }
  }
  for (; i < n; ++i) {
    low[0] = x[i] < low[0] ? x[i] : low[0];
    high[0] = x[i] > high[0] ? x[i] : high[0];
  }
  for (int k = 1; k < 8; ++k) {
    low[0] = low[k] < low[0] ? low[k] : low[0];
    high[0] = high[k] > high[0] ? high[k] : high[0];
  }
  const float range = high[0] - low[0];
  // Rounded down: the largest code must not overflow. The infinite factor of a tiny range is refused too.
  const float factor = 65000.0f / range;
  if (!(range > 0) || !(range < std::numeric_limits<float>::max()) || !(factor < 1e30f)) return false;
  for (i = 0; i < n; ++i) codes[i] = int16_t(int32_t((x[i] - low[0]) * factor) - 32500);
  return true;
}

// As count_smaller, on codes. Returns the sum of the counts: n(n-1)/2 if no two codes are equal.
SL_INLINE int64_t count_smaller_codes(const int16_t* __restrict codes, int64_t n, int16_t* __restrict out) {
  for (int64_t i = 0; i < n; i += 4 * kCodeLanes) {
    CodeVec x0, x1, x2, x3, c0 = {}, c1 = {}, c2 = {}, c3 = {};
    std::memcpy(&x0, codes + i, sizeof x0);
    std::memcpy(&x1, codes + i + kCodeLanes, sizeof x1);
    std::memcpy(&x2, codes + i + 2 * kCodeLanes, sizeof x2);
    std::memcpy(&x3, codes + i + 3 * kCodeLanes, sizeof x3);
    for (int64_t j = 0; j < n; ++j) {
      const CodeVec v = CodeVec{} + codes[j];
      c0 -= v < x0;
      c1 -= v < x1;
      c2 -= v < x2;
      c3 -= v < x3;
    }
    std::memcpy(out + i, &c0, sizeof c0);
    std::memcpy(out + i + kCodeLanes, &c1, sizeof c1);
    std::memcpy(out + i + 2 * kCodeLanes, &c2, sizeof c2);
    std::memcpy(out + i + 3 * kCodeLanes, &c3, sizeof c3);
  }
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += out[i];
  return sum;
}

// Exact ranks of a row without ties, from its codes: elements that share a code come out with the same count, and are
// told apart by their values. False if the row has ties, or shares so many codes that comparing all values is better.
SL_INLINE bool rank_by_codes(const float* __restrict x, int64_t n, CodeScratch& s, int16_t* __restrict out) {
  if (!make_codes(x, n, s.codes)) return false;
  if (count_smaller_codes(s.codes, n, out) == n * (n - 1) / 2) return true;
  std::memset(s.latest, -1, size_t(n) * sizeof *s.latest);
  int64_t comparisons = 2 * n;
  for (int64_t i = 0; i < n; ++i) {
    const int16_t group = out[i];
    for (int16_t j = s.latest[group]; j >= 0; j = s.previous[j]) {
      if (x[j] == x[i] || --comparisons < 0) return false;
      ++out[x[j] < x[i] ? i : int64_t(j)];  // the elements of a group before i are done with as keys
    }
    s.previous[i] = s.latest[group];
    s.latest[group] = int16_t(i);
  }
  return true;
}

// Padding is NaN: every comparison with it is false.
template <typename T>
SL_INLINE void pad_row(T* x, int64_t n) {
  for (int k = 0; k < 4 * RankTraits<T>::kLanes; ++k) x[n + k] = std::numeric_limits<T>::quiet_NaN();
}

template <typename T>
SL_INLINE void count_row(const T* __restrict p, const T* __restrict d, int64_t n, RankScratch<T>& s) {
  using Count = typename RankTraits<T>::Count;
  if constexpr (RankTraits<T>::kHasCodes) {
    if (n >= kCodesFrom && rank_by_codes(p, n, s.codes, s.rank_p.data()) &&
        rank_by_codes(d, n, s.codes, s.rank_d.data())) {
      for (int64_t i = 0; i < n; ++i) s.g[i] = double(s.rank_p[i] - s.rank_d[i]);
      return;
    }
  }
  Count* __restrict cp = s.count_p.data();
  Count* __restrict cd = s.count_d.data();
  count_smaller<T>(p, n, cp);
  count_smaller<T>(d, n, cd);
  int64_t sum_p = 0, sum_d = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum_p += cp[i];
    sum_d += cd[i];
  }
  double* g = s.g.data();
  // Without ties every one of the n(n-1)/2 pairs is strictly ordered, and g is a difference of two plain ranks.
  const int64_t strict = n * (n - 1) / 2;
  if (sum_p == strict && sum_d == strict) {
    for (int64_t i = 0; i < n; ++i) g[i] = double(cp[i] - cd[i]);
    return;
  }
  using V = typename RankTraits<T>::Vec;
  using C = typename RankTraits<T>::CountVec;
  for (int64_t i = 0; i < n; ++i) {
    const V pi = splat<T>(p[i]), di = splat<T>(d[i]);
    C sum = {};
    for (int64_t j = 0; j < n; j += RankTraits<T>::kLanes)
      sum += pair_count<T>(pi, load<T>(p + j), di, load<T>(d + j));
    g[i] = 0.5 * double(horizontal_sum<T>(sum));
  }
}

template <typename T>
SL_INLINE void count_row_weighted(const T* p, const T* d, const double* w, int64_t n, RankScratch<T>& s) {
  using V = typename RankTraits<T>::Vec;
  constexpr int kLanes = RankTraits<T>::kLanes;
  for (int64_t i = 0; i < n; ++i) {
    const V pi = splat<T>(p[i]), di = splat<T>(d[i]);
    double lane[kLanes] = {};
    for (int64_t j = 0; j < n; j += kLanes) {
      const auto c = pair_count<T>(pi, load<T>(p + j), di, load<T>(d + j));
      for (int k = 0; k < kLanes; ++k) lane[k] += w[j + k] * double(c[k]);
    }
    double sum = 0;
    for (int k = 0; k < kLanes; ++k) sum += lane[k];
    s.g[i] = 0.5 * w[i] * sum;
  }
}

// Stable least-significant-digit radix sort; a digit that is the same in every key costs nothing.
template <int kBits, typename Item>
SL_INLINE void radix_sort(std::vector<Item>& items, std::vector<Item>& spare, int64_t n) {
  using Key = decltype(Item::key);
  constexpr int kDigits = (int(sizeof(Key)) * 8 + kBits - 1) / kBits;
  constexpr uint32_t kBuckets = 1u << kBits, kMask = kBuckets - 1;
  uint32_t histogram[kDigits][kBuckets];
  std::memset(histogram, 0, sizeof histogram);
  for (int64_t i = 0; i < n; ++i) {
    const Key key = items[i].key;
    for (int k = 0; k < kDigits; ++k) ++histogram[k][(key >> (k * kBits)) & kMask];
  }
  for (int k = 0; k < kDigits; ++k) {
    uint32_t* h = histogram[k];
    if (h[(items[0].key >> (k * kBits)) & kMask] == uint32_t(n)) continue;
    uint32_t start = 0;
    for (uint32_t b = 0; b < kBuckets; ++b) {
      const uint32_t c = h[b];
      h[b] = start;
      start += c;
    }
    const Item* from = items.data();
    Item* to = spare.data();
    for (int64_t i = 0; i < n; ++i) to[h[(from[i].key >> (k * kBits)) & kMask]++] = from[i];
    items.swap(spare);
  }
}

template <typename T>
SL_INLINE void sort_items(RankScratch<T>& s, int64_t n) {
  if (n < 4096) {
    radix_sort<8>(s.items, s.spare, n);
  } else {
    radix_sort<11>(s.items, s.spare, n);
  }
}

// Two radix sorts. `w` is null for a row of unit weights. `group` tells which elements share a value of p.
template <typename T>
SL_INLINE void sort_row(const T* p, const T* d, const double* w, int64_t n, RankScratch<T>& s) {
  double* g = s.g.data();
  uint32_t* group = s.group.data();
  for (int64_t i = 0; i < n; ++i) s.items[i] = {ordered_key(p[i]), uint32_t(i)};
  sort_items(s, n);
  double below = 0;
  for (int64_t first = 0; first < n;) {
    int64_t last = first;
    double run = 0;
    const auto key = s.items[first].key;
    do {
      run += w ? w[s.items[last].index] : 1.0;
      ++last;
    } while (last < n && s.items[last].key == key);
    for (int64_t k = first; k < last; ++k) {
      const uint32_t i = s.items[k].index;
      group[i] = uint32_t(first);
      // Without weights twice the mid-rank is first + last, so the group already says it all; kept exact in g.
      if (w) {
        s.rank[i] = below + 0.5 * (run - w[i]);
      } else {
        g[i] = 0.5 * double(first + last - 1);
      }
    }
    below += run;
    first = last;
  }
  // The sort is stable: sorting the p-ordered items by d leaves ties in d ordered by p.
  for (int64_t k = 0; k < n; ++k) s.items[k].key = ordered_key(d[s.items[k].index]);
  sort_items(s, n);
  below = 0;
  for (int64_t first = 0; first < n;) {
    int64_t last = first;
    double run = 0;
    const auto key = s.items[first].key;
    const uint32_t same = group[s.items[first].index];
    do {
      run += w ? w[s.items[last].index] : 1.0;
      ++last;
    } while (last < n && s.items[last].key == key && group[s.items[last].index] == same);
    for (int64_t k = first; k < last; ++k) {
      const uint32_t i = s.items[k].index;
      if (w) {
        g[i] = w[i] * (s.rank[i] - (below + 0.5 * (run - w[i])));
      } else {
        g[i] -= 0.5 * double(first + last - 1);
      }
    }
    below += run;
    first = last;
  }
}

// Hinge of one row whose p, d (and, if weighted, w) lie in the scratch. Returns the unreduced loss and leaves g_i in
// s.g[0..n). A NaN anywhere in the row makes the loss and the row's gradient NaN. Elements of weight 0 take no part,
// whatever they hold.
template <typename T>
SL_INLINE double hinge_row(RankScratch<T>& s, int64_t n, bool weighted) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  T* p = s.p.data();
  T* d = s.d.data();
  double* g = s.g.data();
  int64_t m = n;
  bool unit = true;
  if (weighted) {  // close the gaps: what has no weight has no rank
    m = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double w = s.w[i];
      if (w == 0) continue;
      unit = unit && w == 1;
      p[m] = p[i];
      d[m] = d[i];
      s.w[m] = w;
      s.position[m++] = uint32_t(i);
    }
  }
  const double mean = lane_sum(m, [p](int64_t i) { return double(p[i]); }) / double(m > 0 ? m : 1);
  int64_t unordered = 0;
  for (int64_t i = 0; i < m; ++i) unordered += int64_t(d[i] != d[i]);
  double loss = 0;
  if (mean != mean || unordered != 0) {
    for (int64_t i = 0; i < m; ++i) g[i] = nan;
    loss = nan;
  } else {
    if (m <= kCountUpTo) {
      pad_row(p, m);
      pad_row(d, m);
      if (!unit) std::fill_n(s.w.begin() + m, RankTraits<T>::kLanes, 0.0);
      if (unit) {
        count_row(p, d, m, s);
      } else {
        count_row_weighted(p, d, s.w.data(), m, s);
      }
    } else {
      sort_row(p, d, unit ? nullptr : s.w.data(), m, s);
    }
    // The g_i sum to zero, so a shift of p changes nothing but the rounding.
    loss = lane_sum(m, [p, g, mean](int64_t i) { return (double(p[i]) - mean) * g[i]; });
  }
  if (m < n) {  // spread the result back over the row; m <= position, so from the end
    int64_t next = n;
    for (int64_t k = m; k-- > 0;) {
      const int64_t at = s.position[k];
      const double value = g[k];
      while (--next > at) g[next] = 0;
      g[at] = value;
    }
    while (--next >= 0) g[next] = 0;
  }
  return loss;
}

}  // namespace structloss

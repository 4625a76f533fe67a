// How a row by itself is ranked: see rank.hpp.
#include "rank.hpp"

namespace structloss {
namespace {

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

// Padding is NaN: every comparison with it is false.
template <typename T>
SL_INLINE void pad_row(T* x, int64_t n) {
  for (int k = 0; k < 4 * RankTraits<T>::kLanes; ++k) x[n + k] = std::numeric_limits<T>::quiet_NaN();
}

template <typename T>
SL_INLINE void count_row(const T* __restrict p, const T* __restrict d, int64_t n, RankScratch<T>& s) {
  using Count = typename RankTraits<T>::Count;
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

// Moves the kept elements of a row to its beginning, and back to where they belong among zeros.
template <typename T>
SL_INLINE void close_gaps(T* x, const uint32_t* position, int64_t kept) {
  for (int64_t k = 0; k < kept; ++k) x[k] = x[position[k]];
}
template <typename T>
SL_INLINE void open_gaps(T* x, const uint32_t* position, int64_t kept, int64_t n) {
  int64_t next = n;
  for (int64_t k = kept; k-- > 0;) {  // k <= position[k], so from the end
    const int64_t at = position[k];
    const T value = x[k];
    while (--next > at) x[next] = T(0);
    x[at] = value;
  }
  while (--next >= 0) x[next] = T(0);
}

template <typename T>
SL_INLINE bool has_nan(const T* x, int64_t n) {
  int64_t unordered = 0;
  for (int64_t i = 0; i < n; ++i) unordered += int64_t(x[i] != x[i]);
  return unordered != 0;
}

template <typename T>
SL_INLINE double hinge_of_row(RankScratch<T>& s, int64_t n, bool weighted, double scale, const RowAccess<T>& row) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  int64_t m = n;
  bool unit = true;
  if (weighted) {  // what has no weight has no rank
    m = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double w = s.w[i];
      if (w == 0) continue;
      unit = unit && w == 1;
      s.w[m] = w;
      s.position[m++] = uint32_t(i);
    }
  }
  const uint32_t* position = s.position.data();
  auto read = [&](int which, T* to) SL_INLINED {
    row.fill(which, to);
    if (m < n) close_gaps(to, position, m);
    return !has_nan(to, m);
  };
  T* p = s.p.data();
  double loss = nan;
  if (m > kCountUpTo) {
    loss = long_row(p, m, unit ? nullptr : s.w.data(), s.sorting, scale, read);
  } else {
    T* d = s.d.data();
    double* g = s.g.data();
    bool valid = read(0, p);
    valid = read(1, d) && valid;
    if (!valid) {
      std::fill_n(g, m, nan);
    } else {
      pad_row(p, m);
      pad_row(d, m);
      if (unit) {
        count_row(p, d, m, s);
      } else {
        std::fill_n(s.w.begin() + m, RankTraits<T>::kLanes, 0.0);
        count_row_weighted(p, d, s.w.data(), m, s);
      }
      const double shift = double(p[0]);
      loss = lane_sum(m, [=](int64_t i) SL_INLINED { return (double(p[i]) - shift) * g[i]; });
    }
    for (int64_t k = 0; k < m; ++k) p[k] = T(scale * g[k]);
  }
  if (m < n) open_gaps(p, position, m, n);
  row.store(p);
  return m > 0 ? loss : 0;
}

}  // namespace

#define SL_DEFINE_HINGE_ROW_OF(SET, TYPE, TARGET)                                                                    \
  TARGET double hinge_row(SET, RankScratch<TYPE>& s, int64_t n, bool weighted, double scale,                         \
                          const RowAccess<TYPE>& row) {                                                              \
    return hinge_of_row(s, n, weighted, scale, row);                                                                 \
  }
#define SL_DEFINE_HINGE_ROW(SET, TARGET)     \
  SL_DEFINE_HINGE_ROW_OF(SET, float, TARGET) \
  SL_DEFINE_HINGE_ROW_OF(SET, double, TARGET)
SL_DEFINE_HINGE_ROW(Plain, )
#if SL_HAS_X86
SL_DEFINE_HINGE_ROW(Avx2, SL_TARGET_AVX2)
SL_DEFINE_HINGE_ROW(Avx512, SL_TARGET_AVX512)
#endif

}  // namespace structloss

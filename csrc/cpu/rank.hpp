// The pairwise ranking hinge of one row, from ranks.
//
//   L = sum over (i, j) with d_i < d_j of w_i w_j max(0, p_i - p_j) = sum_i p_i g_i
//   g_i = w_i (R_p(i) - R_{d|p}(i))
//
// R_p is the (weighted) mid-rank by p, R_{d|p} the mid-rank when sorted by d with ties ordered by p. Rows of up to 1024
// are ranked side by side (lane_rows.hpp); longer ones here: those of which a mask leaves few are counted, the others
// sorted twice (long_rows.hpp). All give the same integers (or, with weights, sums of weights).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "instruction_sets.hpp"
#include "long_rows.hpp"
#include "simd.hpp"

namespace structloss {

// Rows of which a mask leaves no more than this are counted.
constexpr int64_t kCountUpTo = 320;

// Working memory for one row of at most n elements; one per thread. Long rows take 14.5 bytes per element in float32 (and
// 20 more with weights).
template <typename T>
struct RankScratch {
  using Count = typename RankTraits<T>::Count;
  // Short rows: all of them. Long rows: `p` holds what is being sorted, and `d` is not used.
  std::vector<T> p, d;
  std::vector<double> w;
  std::vector<double> g;  // the row's result g_i, short rows
  std::vector<Count> count_p, count_d;
  std::vector<uint32_t> position;  // where a kept element stands in the row
  LongRow<T> sorting;

  void reserve(int64_t n, bool weighted) {
    // Room to pad the row to whole vectors.
    const int64_t counted = n < kCountUpTo ? n : kCountUpTo, padding = 4 * RankTraits<T>::kLanes;
    p.resize(n + padding);
    // A row that its mask shortens is read whole first.
    d.resize((weighted ? n : counted) + padding);
    g.resize(counted);
    if (weighted) {
      w.resize(n + RankTraits<T>::kLanes);
      position.resize(n);
    }
    // A masked long row may shrink to a short one, so both ways have their memory.
    count_p.resize(counted + padding);
    count_d.resize(counted + padding);
    if (n > kCountUpTo) sorting.reserve(n, weighted);
  }
};

// Where a row comes from and its gradient goes to.
template <typename T>
struct RowAccess {
  virtual void fill(int which, T* to) const = 0;  // copies p (0) or d (1) to memory of n elements
  virtual void store(const T* from) const = 0;    // takes the gradient from there
};

// Hinge of one row of n elements, and scale * g, its gradient, as compiled for an instruction set. Returns the unreduced
// loss. A NaN anywhere in the row makes the loss and the row's gradient NaN. Elements of weight 0 take no part, whatever
// they hold. The weights, if any, lie in s.w[0..n).
#define SL_DECLARE_HINGE_ROW(SET)                                                                                 \
  double hinge_row(SET, RankScratch<float>& s, int64_t n, bool weighted, double scale, const RowAccess<float>& row); \
  double hinge_row(SET, RankScratch<double>& s, int64_t n, bool weighted, double scale, const RowAccess<double>& row);
SL_DECLARE_HINGE_ROW(Plain)
#if SL_HAS_X86
SL_DECLARE_HINGE_ROW(Avx2)
SL_DECLARE_HINGE_ROW(Avx512)
#endif
#undef SL_DECLARE_HINGE_ROW

template <typename T, typename Fill, typename Store>
struct RowOf final : RowAccess<T> {
  const Fill& by_fill;
  const Store& by_store;
  RowOf(const Fill& fill, const Store& store) : by_fill(fill), by_store(store) {}
  void fill(int which, T* to) const override { by_fill(which, to); }
  void store(const T* from) const override { by_store(from); }
};
// The same with functions fill(which, to) and store(from).
template <typename Set, typename T, typename Fill, typename Store>
double hinge_row(Set set, RankScratch<T>& s, int64_t n, bool weighted, double scale, const Fill& fill,
                 const Store& store) {
  return hinge_row(set, s, n, weighted, scale, RowOf<T, Fill, Store>(fill, store));
}

}  // namespace structloss

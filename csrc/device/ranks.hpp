// The ranking hinge of one row (see rank.hpp for the mathematics) by one warp, rows of up to 512 elements.
//
// An element's key is a 32-bit word: above, a code that grows with its value, below, its index. Keys are sorted in
// registers. Where codes differ, so do the values, in the same order. Where neighbours share a code, the values
// themselves are compared, so ranks are exact whatever the codes are; the codes only make this rare.
#pragma once

#include "poses.hpp"
#include "sort.hpp"

namespace structloss {

constexpr int kMostRowElements = 512;

constexpr int bits_for(int n) { return n <= 1 ? 0 : 1 + bits_for((n + 1) / 2); }

// Order-preserving image of a number; -0 counts as 0.
SL_DEVICE uint32_t ordered_bits(float x) {
  const uint32_t bits = bits_of(x == 0.0f ? 0.0f : x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
SL_DEVICE uint64_t ordered_bits(double x) {
  const uint64_t bits = bits_of(x == 0.0 ? 0.0 : x);
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}
SL_DEVICE uint32_t top_bits(uint32_t x, int bits) { return x >> (32 - bits); }
SL_DEVICE uint32_t top_bits(uint64_t x, int bits) { return uint32_t(x >> (64 - bits)); }

// Codes of kBits bits for a row between two values. The largest code is left to padding.
template <typename T, int kBits>
struct Coder {
  T low, factor;
  bool by_range;

  SL_DEVICE Coder(T from, T to) : low(from) {
    // A margin for rounding; without a finite positive range the upper bits of the values have to do.
    constexpr double kMost = double((1u << kBits) - (1u << (kBits - 16)));
    const T range = to - from;
    factor = T(kMost) / range;
    by_range = range > T(0) && range < std::numeric_limits<T>::max() && factor < std::numeric_limits<T>::max();
  }
  SL_DEVICE uint32_t operator()(T x) const {
    return by_range ? uint32_t((x - low) * factor) : top_bits(ordered_bits(x), kBits);
  }
};

// Shared memory of one warp for a row of n elements: its bytes, and where its parts are.
template <typename T>
struct RowScratch {
  uint32_t* keys;
  int32_t* rank;          // twice the mid-rank by p
  double *before, *mass;  // with weights: that of the positions before, and the mid-rank by p in units of weight

  static constexpr int64_t bytes(int64_t padded, bool weighted) { return padded * (weighted ? 4 + 16 : 8); }
  SL_DEVICE RowScratch(unsigned char* memory, int padded, bool weighted) {
    before = reinterpret_cast<double*>(memory);
    mass = before + padded;
    keys = reinterpret_cast<uint32_t*>(weighted ? reinterpret_cast<unsigned char*>(mass + padded) : memory);
    rank = reinterpret_cast<int32_t*>(keys + padded);
  }
};

// A row in shared memory. Without weights w is null. What has no weight holds 0.
template <typename T>
struct Row {
  const T *p, *d, *w;
  int n;
};

// What is known of a sorted element's place: how much is before it (elements, or weight), and how much ties with it.
template <typename N>
struct Place {
  N below, equal;
};

// Place of sorted position `at`, from the elements that share its code.
template <typename T, int kIndexBits, typename N, typename Before, typename Amount>
SL_DEVICE Place<N> place_among(const Row<T>& row, const uint32_t* keys, bool by_target, int at, Before&& before,
                               Amount&& amount) {
  constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
  const T* values = by_target ? row.d : row.p;
  const uint32_t key = keys[at], code = key >> kIndexBits;
  const int me = int(key & kIndex);
  const T x = values[me];
  int first = at;
  while (first > 0 && keys[first - 1] >> kIndexBits == code) --first;
  Place<N> place{before(first), N(0)};
  for (int k = first; k < row.n && keys[k] >> kIndexBits == code; ++k) {
    const int other = int(keys[k] & kIndex);
    if (other == me) continue;
    const T y = values[other];
    bool less = y < x, same = y == x;
    if (by_target && same) {  // ties in d are ordered by p
      less = row.p[other] < row.p[me];
      same = row.p[other] == row.p[me];
    }
    if (less) place.below += amount(other);
    if (same) place.equal += amount(other);
  }
  return place;
}

template <typename T, int E>
SL_DEVICE void sort_row(const Row<T>& row, bool by_target, T low, T high, uint32_t (&key)[E]) {
  constexpr int kIndexBits = bits_for(kWarp * E);
  const Coder<T, 32 - kIndexBits> code(low, high);
  const T* x = by_target ? row.d : row.p;
  SL_UNROLLED
  for (int e = 0; e < E; ++e) {
    const int i = e * kWarp + lane_index();
    key[e] = i < row.n ? code(x[i]) << kIndexBits | uint32_t(i) : 0xffffffffu;
  }
  sort_warp<E>(key);
}

// Ranks by p, or by d with ties ordered by p: calls enter(i, twice the mid-rank) for this lane's elements.
template <typename T, int E, typename Enter>
SL_DEVICE void rank_row(const Row<T>& row, bool by_target, T low, T high, const RowScratch<T>& s, Enter&& enter) {
  constexpr int kIndexBits = bits_for(kWarp * E);
  constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
  uint32_t key[E];
  sort_row<T, E>(row, by_target, low, high, key);
  const int first = lane_index() * E;
  uint32_t previous = shuffle_up(key[E - 1], 1);
  bool shared = false;
  SL_UNROLLED
  for (int e = 0; e < E; ++e) {
    const int at = first + e;
    shared |= at > 0 && at < row.n && previous >> kIndexBits == key[e] >> kIndexBits;
    previous = key[e];
  }
  if (!any_lane(shared)) {  // the usual case: a position is a rank
    SL_UNROLLED
    for (int e = 0; e < E; ++e)
      if (first + e < row.n) enter(int(key[e] & kIndex), 2 * (first + e));
    return;
  }
  SL_UNROLLED
  for (int e = 0; e < E; ++e) s.keys[first + e] = key[e];
  sync_warp();
  SL_ROLLED
  for (int at = first; at < first + E && at < row.n; ++at) {
    const Place<int> place = place_among<T, kIndexBits, int>(
        row, s.keys, by_target, at, [](int k) { return k; }, [](int) { return 1; });
    enter(int(s.keys[at] & kIndex), 2 * place.below + place.equal);
  }
  sync_warp();
}

// The same in units of weight: calls enter(i, mid-rank).
template <typename T, int E, typename Enter>
SL_DEVICE void rank_weighted_row(const Row<T>& row, bool by_target, T low, T high, const RowScratch<T>& s,
                                 Enter&& enter) {
  constexpr int kIndexBits = bits_for(kWarp * E);
  constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
  const int first = lane_index() * E;
  {
    uint32_t key[E];
    sort_row<T, E>(row, by_target, low, high, key);
    SL_UNROLLED
    for (int e = 0; e < E; ++e) s.keys[first + e] = key[e];
  }
  double mine = 0;
  SL_ROLLED
  for (int at = first; at < first + E && at < row.n; ++at) mine += double(row.w[s.keys[at] & kIndex]);
  double up_to = mine;  // inclusive sum over the lanes
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const double other = shuffle_up(up_to, lanes);
    if (lane_index() >= lanes) up_to += other;
  }
  double before = up_to - mine;
  SL_ROLLED
  for (int at = first; at < first + E && at < row.n; ++at) {
    s.before[at] = before;
    before += double(row.w[s.keys[at] & kIndex]);
  }
  sync_warp();
  SL_ROLLED
  for (int at = first; at < first + E && at < row.n; ++at) {
    const Place<double> place = place_among<T, kIndexBits, double>(
        row, s.keys, by_target, at, [&](int k) { return s.before[k]; }, [&](int i) { return double(row.w[i]); });
    enter(int(s.keys[at] & kIndex), place.below + 0.5 * place.equal);
  }
  sync_warp();
}

// Hinge of a row; adds scale * g_i to g[i]. Returns this lane's share of the unreduced loss. A NaN among the elements with weight makes the loss, and the gradient of those elements, NaN.
template <typename T, int E, bool kWeighted>
SL_DEVICE double hinge_row(const Row<T>& row, double scale, T* g, const RowScratch<T>& s) {
  const T big = std::numeric_limits<T>::infinity();
  T low_p = big, high_p = -big, low_d = big, high_d = -big;
  bool invalid = false;
  SL_UNROLLED
  for (int e = 0; e < E; ++e) {
    const int i = e * kWarp + lane_index();
    if (i >= row.n) continue;
    const T p = row.p[i], d = row.d[i];
    invalid |= p != p || d != d;
    low_p = p < low_p ? p : low_p;
    high_p = p > high_p ? p : high_p;
    low_d = d < low_d ? d : low_d;
    high_d = d > high_d ? d : high_d;
  }
  if (any_lane(invalid)) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (int i = lane_index(); i < row.n; i += kWarp) g[i] += kWeighted && row.w[i] == T(0) ? T(0) : nan;
    return double(nan);
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    T other = shuffle_xor(low_p, mask);
    low_p = other < low_p ? other : low_p;
    other = shuffle_xor(high_p, mask);
    high_p = other > high_p ? other : high_p;
    other = shuffle_xor(low_d, mask);
    low_d = other < low_d ? other : low_d;
    other = shuffle_xor(high_d, mask);
    high_d = other > high_d ? other : high_d;
  }
  // The g_i sum to zero, so a shift of p changes nothing but the rounding.
  const double shift = row.n > 0 ? double(row.p[0]) : 0.0;
  const T scaled = T(scale);
  double loss = 0;
  SL_ROLLED
  for (int pass = 0; pass < 2; ++pass) {  // by p, then by d: one copy of the sort's many instructions
    const bool by_target = pass != 0;
    const T low = by_target ? low_d : low_p, high = by_target ? high_d : high_p;
    if constexpr (kWeighted) {
      rank_weighted_row<T, E>(row, by_target, low, high, s, [&](int i, double rank) {
        if (!by_target) {
          s.mass[i] = rank;
          return;
        }
        const double w = double(row.w[i]), gi = w == 0 ? 0 : w * (s.mass[i] - rank);
        loss += gi == 0 ? 0 : (double(row.p[i]) - shift) * gi;
        g[i] += T(scale * gi);
      });
    } else {
      rank_row<T, E>(row, by_target, low, high, s, [&](int i, int twice) {
        if (!by_target) {
          s.rank[i] = twice;
          return;
        }
        const T gi = T(0.5) * T(s.rank[i] - twice);  // exact
        loss += (double(row.p[i]) - shift) * double(gi);
        g[i] += scaled * gi;
      });
    }
    sync_warp();
  }
  sync_warp();
  return loss;
}

}  // namespace structloss

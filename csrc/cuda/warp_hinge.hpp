// The ranking hinge of one row (see cpu/rank.hpp for the mathematics) by one warp, rows of up to 512 elements.
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
struct RowScratch {
  uint32_t* keys;
  int32_t* rank;          // twice the mid-rank by p
  double *before, *mass;  // with weights: that of the positions before, and the mid-rank by p in units of weight

  SL_BOTH static constexpr int64_t bytes(int64_t padded, bool weighted) { return padded * (weighted ? 8 + 16 : 8); }
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

// A sorted element's place: how much is before it (elements, or weight), and how much ties with it.
template <typename N>
struct Place {
  N below, equal;
};

// Place of sorted position `at`, found among the elements that share its code.
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

// Runs of sorted positions, as a lane sees them that holds positions `start` ...: bit e of `begins` says that one begins at
// start + e.
struct Runs {
  uint32_t begins;
  int start, before, next;  // where the run that comes in from the left began; where one begins to the right

  // Of a row of n; position 0 and those from n on begin a run.
  SL_DEVICE Runs(uint32_t bits, int first, int n) : begins(bits), start(first) {
    int begun = bits != 0 ? first + highest_bit(bits) : -1, to = bits != 0 ? first + lowest_bit(bits) : n;
    for (int lanes = 1; lanes < kWarp; lanes *= 2) {
      const int left = shuffle_up(begun, lanes), right = shuffle_down(to, lanes);
      if (lane_index() >= lanes) begun = left > begun ? left : begun;
      if (lane_index() + lanes < kWarp) to = right < to ? right : to;
    }
    before = shuffle_up(begun, 1);
    next = shuffle_down(to, 1);
    if (lane_index() == kWarp - 1 || next > n) next = n;
  }
  SL_DEVICE int first(int e) const {
    const uint32_t up_to = begins & ((2u << e) - 1);
    return up_to != 0 ? start + highest_bit(up_to) : before;
  }
  SL_DEVICE int last(int e) const {
    const uint32_t later = begins >> (e + 1);
    return (later != 0 ? start + e + 1 + lowest_bit(later) : next) - 1;
  }
};

// Bits of the positions whose key differs from the one before in more than the index.
template <int E>
SL_DEVICE uint32_t where_keys_change(const uint32_t (&key)[E], int index_bits, int n) {
  const int start = lane_index() * E;
  uint32_t previous = shuffle_up(key[E - 1], 1), bits = 0;
  SL_UNROLLED
  for (int e = 0; e < E; ++e) {
    const int at = start + e;
    if (at == 0 || at >= n || previous >> index_bits != key[e] >> index_bits) bits |= 1u << e;
    previous = key[e];
  }
  return bits;
}

// Sorts a row by p, or by d with ties ordered by p, and calls enter(i, twice the mid-rank) for this lane's elements or,
// with weights, enter(i, twice the mid-rank, mid-rank in units of weight). By d, the ranks by p are in s.rank.
template <typename T, int E, bool kWeighted, typename Enter>
SL_DEVICE void rank_row(const Row<T>& row, bool by_target, T low, T high, const RowScratch& s, Enter&& enter) {
  constexpr int kIndexBits = bits_for(kWarp * E), kRankBits = kIndexBits + 1;
  constexpr uint32_t kIndex = (1u << kIndexBits) - 1;
  static_assert(2 * kIndexBits + kRankBits <= 32, "a place, a rank and an index fit a word");
  const int start = lane_index() * E;
  const T* values = by_target ? row.d : row.p;
  uint32_t key[E];
  {
    const Coder<T, 32 - kIndexBits> code(low, high);
    SL_UNROLLED
    for (int e = 0; e < E; ++e) {
      const int i = e * kWarp + lane_index();
      key[e] = i < row.n ? code(values[i]) << kIndexBits | uint32_t(i) : 0xffffffffu;
    }
  }
  uint32_t begins = 0;
  bool unresolved = false, again = false;
  SL_ROLLED
  while (true) {
    sort_warp<E>(key);
    begins = where_keys_change<E>(key, kIndexBits, row.n);
    const bool shared = any_lane(begins != (1u << E) - 1);
    if constexpr (!kWeighted) {
      if (!shared) {  // the usual case: a position is a rank
        SL_UNROLLED
        for (int e = 0; e < E; ++e)
          if (start + e < row.n) enter(int(key[e] & kIndex), 2 * (start + e));
        return;
      }
    }
    SL_UNROLLED
    for (int e = 0; e < E; ++e) s.keys[start + e] = key[e];
    sync_warp();
    if (again || !shared) break;
    // Neighbours with one code either tie, or the code could not tell them apart.
    SL_ROLLED
    for (int e = 0; e < E; ++e)
      if (!(begins >> e & 1))
        unresolved |= values[s.keys[start + e - 1] & kIndex] != values[s.keys[start + e] & kIndex];
    unresolved = any_lane(unresolved);
    if (!by_target || unresolved) break;
    // Once more: within a run of d, in the order of p.
    const Runs runs(begins, start, row.n);
    SL_UNROLLED
    for (int e = 0; e < E; ++e) {
      if (start + e >= row.n) continue;
      const uint32_t i = key[e] & kIndex;
      key[e] = (uint32_t(runs.first(e)) << kRankBits | uint32_t(s.rank[i])) << kIndexBits | i;
    }
    again = true;
    sync_warp();
  }
  if constexpr (kWeighted) {
    double mine = 0;
    SL_ROLLED
    for (int at = start; at < start + E && at < row.n; ++at) mine += double(row.w[s.keys[at] & kIndex]);
    double before = sum_up_to(mine) - mine;
    SL_ROLLED
    for (int at = start; at < start + E && at < row.n; ++at) {
      s.before[at] = before;
      before += double(row.w[s.keys[at] & kIndex]);
    }
    sync_warp();
  }
  if (!unresolved) {
    const Runs runs(begins, start, row.n);
    SL_ROLLED
    for (int e = 0; e < E && start + e < row.n; ++e) {
      const int i = int(s.keys[start + e] & kIndex), first = runs.first(e), last = runs.last(e);
      if constexpr (kWeighted) {
        const double below = s.before[first];
        double equal = 0;
        if (first != last) equal = s.before[last] + double(row.w[s.keys[last] & kIndex]) - below - double(row.w[i]);
        enter(i, first + last, below + 0.5 * equal);
      } else {
        enter(i, first + last);
      }
    }
    sync_warp();
    return;
  }
  SL_ROLLED
  for (int at = start; at < start + E && at < row.n; ++at) {
    const int i = int(s.keys[at] & kIndex);
    const Place<int> place = place_among<T, kIndexBits, int>(
        row, s.keys, by_target, at, [](int k) { return k; }, [](int) { return 1; });
    if constexpr (kWeighted) {
      const Place<double> mass = place_among<T, kIndexBits, double>(
          row, s.keys, by_target, at, [&](int k) { return s.before[k]; }, [&](int k) { return double(row.w[k]); });
      enter(i, 2 * place.below + place.equal, mass.below + 0.5 * mass.equal);
    } else {
      enter(i, 2 * place.below + place.equal);
    }
  }
  sync_warp();
}

// Hinge of a row; adds scale * g_i to g[i]. Returns this lane's share of the unreduced loss. A NaN among the elements with
// weight makes the loss, and the gradient of those elements, NaN.
template <typename T, int E, bool kWeighted>
SL_DEVICE double hinge_row(const Row<T>& row, T scale, T* g, const RowScratch& s) {
  const T big = std::numeric_limits<T>::infinity();
  // Nothing is in a wrong order where all d are equal, as the root's are in root-relative poses. (An infinite p would be
  // multiplied by 0 all the same.)
  bool matters = false;
  SL_UNROLLED
  for (int e = 0; e < E; ++e) {
    const int i = e * kWarp + lane_index();
    if (i < row.n) matters |= row.d[i] != row.d[0] || !(row.p[i] < big && row.p[i] > -big);
  }
  if (!any_lane(matters)) return 0;
  double loss = 0;
  SL_ROLLED
  for (int pass = 0; pass < 2; ++pass) {  // by p, then by d: one copy of the sort's many instructions
    const bool by_target = pass != 0;
    const T* x = by_target ? row.d : row.p;
    T low = big, high = -big;
    bool invalid = false;
    SL_UNROLLED
    for (int e = 0; e < E; ++e) {
      const int i = e * kWarp + lane_index();
      if (i >= row.n) continue;
      const T value = x[i];
      invalid |= value != value;
      low = value < low ? value : low;
      high = value > high ? value : high;
    }
    if (any_lane(invalid)) {
      const T nan = std::numeric_limits<T>::quiet_NaN();
      for (int i = lane_index(); i < row.n; i += kWarp) g[i] += kWeighted && row.w[i] == T(0) ? T(0) : nan;
      sync_warp();
      return double(nan);
    }
    for (int mask = kWarp / 2; mask > 0; mask /= 2) {
      T other = shuffle_xor(low, mask);
      low = other < low ? other : low;
      other = shuffle_xor(high, mask);
      high = other > high ? other : high;
    }
    // Below, the g_i sum to zero, so a shift of p changes nothing but the rounding.
    if constexpr (kWeighted) {
      rank_row<T, E, true>(row, by_target, low, high, s, [&](int i, int twice, double mass) {
        if (!by_target) {
          s.rank[i] = twice;
          s.mass[i] = mass;
          return;
        }
        const double w = double(row.w[i]), gi = w == 0 ? 0 : w * (s.mass[i] - mass);
        loss += gi == 0 ? 0 : (double(row.p[i]) - double(row.p[0])) * gi;
        g[i] += scale * T(gi);
      });
    } else {
      rank_row<T, E, false>(row, by_target, low, high, s, [&](int i, int twice) {
        if (!by_target) {
          s.rank[i] = twice;
          return;
        }
        const T gi = T(0.5) * T(s.rank[i] - twice);  // exact
        loss += (double(row.p[i]) - double(row.p[0])) * double(gi);
        g[i] += scale * gi;
      });
    }
    sync_warp();
  }
  return loss;
}

}  // namespace structloss

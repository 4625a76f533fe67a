// The pairwise hinge of one long row, from its ranks: elements are dealt into buckets by value, a radix sort with one wide
// digit, and put in order by a network (key_network.hpp). Linear time for anything like a trajectory; what crowds into few
// buckets all the same is dealt again, and then sorted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "key_network.hpp"
#include "simd.hpp"

namespace structloss {

// Sum with independent partial sums, so that additions need not wait for each other; the order is fixed.
constexpr int kSumLanes = 4;
template <typename V = double, typename F>
SL_INLINE V lane_sum(int64_t n, F&& f) {
  V lane[kSumLanes] = {};
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    SL_UNROLL
    for (int k = 0; k < kSumLanes; ++k) lane[k] += f(i + k);
  for (int k = 0; i < n; ++i, ++k) lane[k] += f(i);
  V sum = lane[0];
  for (int k = 1; k < kSumLanes; ++k) sum += lane[k];
  return sum;
}

// ---- keys ---------------------------------------------------------------------------------------------------------

// The range of values is cut into equal cells, and each cell into as many equal buckets as a sample says it needs.
constexpr int kCellBits = 8, kCells = 1 << kCellBits;
constexpr int kPlaceBits = 23;  // of a place in the range, from a float's 24 bits
constexpr int kInCellBits = kPlaceBits - kCellBits;
// Keys per bucket where the sample is right; the network takes up to kHalf + 1.
constexpr int64_t kPerBucket = 8;
constexpr int64_t bucket_count(int64_t n) { return n / kPerBucket + 2 * kCells; }

// Elements in order are looked through for ties so many at a time.
constexpr int64_t kChunk = 64;

constexpr int kElementBits = 31;
// A code plus kLowestCode, up to kHighestCode, is the upper part of a key: an exponent neither 0 nor the largest.
constexpr uint32_t kLowestCode = 0x00800000, kHighestCode = 0xff800000;
SL_INLINE Key make_key(uint32_t code, int64_t element) { return Key(code) << kElementBits | Key(element); }
SL_INLINE uint32_t code_of(Key key) { return uint32_t(key >> kElementBits); }
SL_INLINE uint32_t element_of(Key key) { return uint32_t(key) & 0x7fffffff; }

// Integers in the order of the values; -0 is made +0. The infinities lie within kLowestCode..kHighestCode.
SL_INLINE uint32_t image(float x) {
  x += 0.0f;
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return uint32_t(bits) ^ (uint32_t(bits >> 31) | 0x80000000u);
}
SL_INLINE uint64_t image(double x) {
  x += 0.0;
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return uint64_t(bits) ^ (uint64_t(bits >> 63) | 0x8000000000000000u);
}

// Codes of values, in the order of the values. Values share a code only if they are equal or, in float64, are told apart
// later: there a code is 30 bits of the place in the range (`linear`) or the upper 31 of the image.
template <typename T>
struct Coder {
  T low, factor;
  bool linear;
  SL_INLINE uint32_t operator()(T value) const {
    if constexpr (std::is_same_v<T, float>)
      return image(value);
    else
      return kLowestCode + (linear ? uint32_t((value - low) * factor) : uint32_t(image(value) >> 33));
  }
};

// What is dealt: the place of element k in the range, 0 to 2^kPlaceBits - 1, in the order of the values (rounding is
// monotone).
template <typename T>
struct LinearSource {
  const T* x;
  T low, factor;
  SL_INLINE uint32_t place(int64_t k) const {
    const int32_t at = int32_t((x[k] - low) * factor);
    return uint32_t(at < (1 << kPlaceBits) ? at : (1 << kPlaceBits) - 1);
  }
};
// By the image, nearly logarithmic: for outliers and infinities.
template <typename T>
struct ImageSource {
  const T* x;
  Coder<T> code;  // not linear
  uint32_t low;
  int shift;
  SL_INLINE uint32_t place(int64_t k) const { return (code(x[k]) - low) >> shift; }
};
// Keys that are dealt again.
struct KeySource {
  const Key* keys;
  uint32_t low;
  int shift;
  SL_INLINE uint32_t place(int64_t k) const { return (code_of(keys[k]) - low) >> shift; }
};
// How far codes up to `range` are shifted to be places.
SL_INLINE int shift_for(uint32_t range) {
  int shift = 0;
  while ((range >> shift) >> kPlaceBits != 0) ++shift;
  return shift;
}

// How cells are cut into buckets.
struct Plan {
  uint32_t first[kCells], buckets[kCells];  // of each cell
  int64_t most;                             // of the sample in one cell
  int64_t sampled, total;                   // elements and buckets

  SL_INLINE uint32_t bucket(uint32_t place) const {
    const uint32_t cell = place >> kInCellBits, rest = place & ((1u << kInCellBits) - 1);
    return first[cell] + ((rest * buckets[cell]) >> kInCellBits);
  }
};

template <typename Source>
SL_INLINE void make_plan(const Source& source, int64_t n, Plan& plan) {
  uint32_t count[kCells + 2] = {};  // of the sample, an empty cell at either end
  const int64_t step = std::max<int64_t>(1, n / std::max<int64_t>(512, n / 16));
  plan.sampled = 0;
  for (int64_t k = 0; k < n; k += step, ++plan.sampled) ++count[1 + (source.place(k) >> kInCellBits)];
  // At most 2^16 buckets a cell, so that `bucket` stays within 32 bits.
  const double wanted = double(std::min<int64_t>(n / kPerBucket, 1 << 16)) / double(4 * plan.sampled);
  plan.most = plan.total = 0;
  for (int c = 0; c < kCells; ++c) {
    plan.most = std::max<int64_t>(plan.most, count[c + 1]);
    const int32_t share = int32_t(count[c] + 2 * count[c + 1] + count[c + 2]);  // smooth: a cell has few of the sample
    plan.first[c] = uint32_t(plan.total);
    plan.buckets[c] = uint32_t(1 + int32_t(double(share) * wanted));
    plan.total += plan.buckets[c];
  }
}

// Deals 0..n-1 into buckets: put(k, at) puts element k at that place, prepare(at) says that something will be put near
// there; ends[b] is then where bucket b ends. `kept` is memory for the buckets of the elements, or null.
constexpr int kDealTile = 64;
template <typename Source, typename Prepare, typename Put>
SL_INLINE void deal(const Source& source, int64_t n, const Plan& plan, uint32_t* ends, uint16_t* kept, Prepare&& prepare,
                    Put&& put) {
  if (plan.total > 1 << 16) kept = nullptr;
  std::memset(ends, 0, size_t(plan.total) * sizeof *ends);
  for (int64_t k = 0; k < n; k += kDealTile) {
    const int m = int(std::min<int64_t>(kDealTile, n - k));
    uint32_t place[kDealTile];  // a tile at a time, so that vectors compute them
    for (int i = 0; i < m; ++i) place[i] = source.place(k + i);
    if (kept != nullptr) {
      for (int i = 0; i < m; ++i) {
        const uint32_t bucket = plan.bucket(place[i]);
        ++ends[bucket];
        kept[k + i] = uint16_t(bucket);
      }
    } else {
      for (int i = 0; i < m; ++i) ++ends[plan.bucket(place[i])];
    }
  }
  uint32_t begin = 0;
  for (int64_t b = 0; b < plan.total; ++b) {
    const uint32_t size = ends[b];
    ends[b] = begin;
    begin += size;
  }
  if (kept != nullptr) {
    for (int64_t k = 0; k < n; k += kDealTile) {
      const int64_t end = std::min<int64_t>(n, k + kDealTile);
      for (int64_t i = k; i < end; ++i) prepare(ends[kept[i]]);
      for (int64_t i = k; i < end; ++i) put(i, ends[kept[i]]++);
    }
  } else {
    for (int64_t k = 0; k < n; ++k) put(k, ends[plan.bucket(source.place(k))]++);
  }
}

// Memory for rows of up to n elements; with the row itself 14.5 bytes per element in float32, 18.5 with weights. Where
// more than kSmall elements share a bucket out of order, or are equal in d, they take 24 bytes more each.
constexpr int64_t kSmall = 1024;
constexpr int64_t kCountKeys = 128;  // crowds this long are sorted by counting, longer ones dealt again
template <typename T>
struct LongRow {
  std::vector<uint32_t> order;        // elements, sorted
  std::vector<uint32_t> ends;         // of the buckets
  std::vector<uint16_t> kept;         // the bucket of each element
  std::vector<uint8_t> shared;        // whether a chunk of kChunk elements shares codes
  std::vector<Key> keys;              // of crowds
  std::vector<unsigned char> ranks;   // int32_t or, with weights, double

  int32_t* twice() { return reinterpret_cast<int32_t*>(ranks.data()); }    // twice the mid-rank by p, then twice g
  double* weighted() { return reinterpret_cast<double*>(ranks.data()); }  // the mid-rank by p, then g

  void reserve(int64_t n, bool weighted) {
    order.resize(n);
    ends.resize(bucket_count(n));
    kept.resize(n);
    shared.resize(n / kChunk + 1);
    ranks.resize(size_t(n) * (weighted ? sizeof(double) : sizeof(int32_t)));
  }
};

// ---- sorting ------------------------------------------------------------------------------------------------------

// Nearly sorted keys.
SL_INLINE void sort_by_insertion(Key* keys, int64_t n) {
  for (int64_t k = 1; k < n; ++k) {
    const Key key = keys[k];
    int64_t at = k;
    for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1];
    keys[at] = key;
  }
}

// A few keys, all different, into `sorted`: each goes where as many are smaller. There is room to pad both to whole groups
// of four vectors.
SL_INLINE void sort_by_counting(Key* keys, int64_t n, Key* sorted) {
  typedef int64_t CountVec __attribute__((vector_size(sizeof(KeyVec))));
  constexpr int kVecs = 4;
  for (int64_t i = n; i % (kVecs * kKeyLanes) != 0; ++i) keys[i] = kLastKey;
  for (int64_t i = 0; i < n; i += kVecs * kKeyLanes) {
    KeyVec x[kVecs];
    CountVec smaller[kVecs] = {};
    std::memcpy(x, keys + i, sizeof x);
    for (int64_t k = 0; k < n; ++k) {
      double key;
      std::memcpy(&key, keys + k, sizeof key);
      const KeyVec other = KeyVec{} + key;
      for (int v = 0; v < kVecs; ++v) smaller[v] -= other < x[v];
    }
    for (int v = 0; v < kVecs; ++v)
      for (int l = 0; l < kKeyLanes; ++l) sorted[smaller[v][l]] = keys[i + v * kKeyLanes + l];
  }
}

// Sorts `order[0..n)` by code(i), then i.
template <typename T, typename Code>
SL_INLINE void sort_crowd(uint32_t* order, int64_t n, LongRow<T>& s, Code&& code) {
  int64_t sorted_up_to = 1;  // many equal values (a constant prediction, rounded depths) come in order already
  for (; sorted_up_to < n; ++sorted_up_to) {
    const uint32_t before = order[sorted_up_to - 1], i = order[sorted_up_to];
    if (make_key(code(before), before) > make_key(code(i), i)) break;
  }
  if (sorted_up_to >= n) return;
  Key small[2 * kSmall + kGroup];
  uint32_t small_ends[bucket_count(kSmall)];
  Key* keys = small;
  uint32_t* ends = small_ends;
  if (n > kSmall) {
    if (int64_t(s.keys.size()) < 3 * n) s.keys.resize(size_t(3 * n));
    keys = s.keys.data();
    ends = reinterpret_cast<uint32_t*>(keys + 2 * n);  // bucket_count(n) of them take less room than n keys
  }
  uint32_t low = kHighestCode, high = 0;
  for (int64_t k = 0; k < n; ++k) {
    const uint32_t c = code(order[k]);
    low = std::min(low, c);
    high = std::max(high, c);
    keys[k] = make_key(c, order[k]);
  }
  if (n <= 2 * kHalf) {
    sort_by_insertion(keys, n);
  } else if (n <= kCountKeys) {
    sort_by_counting(keys, n, keys + kSmall);
    keys += kSmall;
  } else {
    Key* sorted = keys + n;
    const KeySource source{keys, low, shift_for(high - low)};
    Plan plan;
    make_plan(source, n, plan);
    deal(source, n, plan, ends, nullptr, [](uint32_t) SL_INLINED {},
         [=](int64_t k, uint32_t at) SL_INLINED { sorted[at] = keys[k]; });
    for (int64_t b = 0, begin = 0; b < plan.total; begin = ends[b++])
      if (ends[b] - begin > 2 * kHalf) std::sort(sorted + begin, sorted + ends[b]);
    sort_by_insertion(sorted, n);
    keys = sorted;
  }
  for (int64_t k = 0; k < n; ++k) order[k] = element_of(keys[k]);
}

// Smallest and largest of x[0..n).
template <typename T>
SL_INLINE void find_range(const T* x, int64_t n, T& low, T& high) {
  using Vec = typename RankTraits<T>::Vec;
  constexpr int kLanes = RankTraits<T>::kLanes, kVecs = 4;  // enough that none waits for the one before
  Vec least[kVecs], most[kVecs];
  for (int v = 0; v < kVecs; ++v) least[v] = most[v] = splat<T>(x[0]);
  int64_t i = 0;
  for (; i + kVecs * kLanes <= n; i += kVecs * kLanes)
    for (int v = 0; v < kVecs; ++v) {
      const Vec value = load<T>(x + i + v * kLanes);
      least[v] = value < least[v] ? value : least[v];
      most[v] = value > most[v] ? value : most[v];
    }
  low = high = x[0];
  for (int v = 0; v < kVecs; ++v)
    for (int l = 0; l < kLanes; ++l) {
      low = std::min(low, T(least[v][l]));
      high = std::max(high, T(most[v][l]));
    }
  for (; i < n; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
}

// Deals 0..n-1 into s.order, and sorts the buckets that the network would not.
template <typename T, typename Source>
SL_INLINE void deal_row(const T* x, int64_t n, const Source& source, const Coder<T>& code, const Plan& plan,
                        LongRow<T>& s) {
  uint32_t* order = s.order.data();
  const uint32_t* ends = s.ends.data();
  deal(source, n, plan, s.ends.data(), s.kept.data(), [=](uint32_t at) SL_INLINED { __builtin_prefetch(order + at, 1); },
       [=](int64_t k, uint32_t at) SL_INLINED { order[at] = uint32_t(k); });
  for (int64_t b = 0, begin = 0; b < plan.total; begin = ends[b++])
    if (ends[b] - begin > kHalf + 1)
      sort_crowd(order + begin, ends[b] - begin, s, [=](uint32_t i) SL_INLINED { return code(x[i]); });
}

// Sorts s.order, dealt already, by code, and marks in s.shared the chunks where an element shares its code with the next.
// In float64 these are not in order yet.
template <typename T>
SL_INLINE void sort_dealt(const T* x, int64_t n, const Coder<T>& code, LongRow<T>& s) {
  uint32_t* order = s.order.data();
  uint8_t* shared = s.shared.data();
  Key before = 0;  // the last key written
  std::memset(shared, 0, s.shared.size());
  sort_neighbours(
      n,
      [=](int64_t first, int64_t m, Key* keys) SL_INLINED {
        T value[kWindow];
        for (int64_t k = 0; k < m; ++k) value[k] = x[order[first + k]];
        for (int64_t k = 0; k < m; ++k) keys[k] = make_key(code(value[k]), order[first + k]);
      },
      [=, &before](int64_t first, int64_t m, const Key* keys) SL_INLINED {
        for (int64_t k = 0; k < m; ++k) order[first + k] = element_of(keys[k]);
        if (m > 0 && first > 0 && code_of(before) == code_of(keys[0])) shared[(first - 1) / kChunk] = 1;
        for (int64_t k = 0; k < m; k += kChunk) {
          // With the next of each; the chunks are those of the window, not of the row.
          const int64_t end = std::min(m - 1, k + kChunk);
          uint64_t same = 0;
          for (int64_t i = k; i < end; ++i)
            same |= uint64_t((keys[i] >> kElementBits) == (keys[i + 1] >> kElementBits));
          if (same != 0) shared[(first + k) / kChunk] = shared[(first + std::min(m, k + kChunk) - 1) / kChunk] = 1;
        }
        if (m > 0) before = keys[m - 1];
      });
}

// ---- ranks --------------------------------------------------------------------------------------------------------

// Enters ranks from s.order: single(k) for an element with a code of its own, tie(first, last) for those that share one.
template <typename T, typename Single, typename Code, typename Tie>
SL_INLINE void over_runs(int64_t n, const LongRow<T>& s, Single&& single, Code&& code, Tie&& tie) {
  const uint32_t* order = s.order.data();
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = std::min(n, (begin / kChunk + 1) * kChunk);
    if (s.shared[begin / kChunk] == 0) {
      for (int64_t k = begin; k < end; ++k) single(k);
      continue;
    }
    for (int64_t k = begin, last; k < end; k = last) {
      const uint32_t mine = code(order[k]);
      for (last = k + 1; last < n && code(order[last]) == mine;) ++last;
      if (last == k + 1)
        single(k);
      else
        tie(k, last);
      end = std::max(end, last);
    }
  }
}

// Ranks from s.order: by p first, then, with `by_d`, by d with ties ordered by p. Leaves in s.twice() twice the mid-rank
// by p, then twice g; with weights (not null) the mid-rank, then g, in s.weighted(). The weighted mid-rank here counts half
// of the element's own weight, which the difference of two takes out again: so ties share it.
template <typename T, typename W, typename Code>
SL_INLINE void enter_ranks(const T* x, int64_t n, const W* w, bool by_d, LongRow<T>& s, Code&& code) {
  uint32_t* order = s.order.data();
  int32_t* twice = s.twice();
  double* rank = s.weighted();
  double below = 0;  // weight of the elements before
  // Of elements that are equal in x and, by d, in p.
  auto equal = [=, &below](int64_t first, int64_t last) SL_INLINED {
    double run = 0;
    if (w != nullptr)
      for (int64_t k = first; k < last; ++k) run += double(w[order[k]]);
    for (int64_t k = first; k < last; ++k) {
      const uint32_t i = order[k];
      const int32_t mid = int32_t(first + last - 1);
      if (w == nullptr)
        twice[i] = by_d ? twice[i] - mid : mid;
      else
        rank[i] = by_d ? double(w[i]) * (rank[i] - (below + 0.5 * run)) : below + 0.5 * run;
    }
    below += run;
  };
  // Of elements that are equal in x.
  auto tied = [=, &s](int64_t first, int64_t last) SL_INLINED {
    if (!by_d) {
      equal(first, last);
      return;
    }
    // Weighted ranks in float32 first, and where these are equal as they are.
    auto rank_code = [=](uint32_t i) SL_INLINED {
      return w == nullptr ? kLowestCode + uint32_t(twice[i]) : image(float(rank[i]));
    };
    sort_crowd(order + first, last - first, s, rank_code);
    if (w != nullptr)
      for (int64_t k = first, end; k < last; k = end) {
        for (end = k + 1; end < last && rank_code(order[end]) == rank_code(order[k]);) ++end;
        auto before = [=](uint32_t i, uint32_t j) SL_INLINED { return rank[i] != rank[j] ? rank[i] < rank[j] : i < j; };
        bool ordered = true;
        for (int64_t j = k + 1; j < end && ordered; ++j) ordered = !before(order[j], order[j - 1]);
        if (!ordered) std::sort(order + k, order + end, before);
      }
    for (int64_t k = first, end; k < last; k = end) {
      auto same = [=](uint32_t i) SL_INLINED {
        return w == nullptr ? twice[i] == twice[order[k]] : rank[i] == rank[order[k]];
      };
      for (end = k + 1; end < last && same(order[end]);) ++end;
      equal(k, end);
    }
  };
  // Of elements that share a code.
  auto run = [=](int64_t first, int64_t last) SL_INLINED {
    if constexpr (std::is_same_v<T, float>) {
      tied(first, last);
    } else {
      auto before = [=](uint32_t i, uint32_t k) SL_INLINED { return x[i] != x[k] ? x[i] < x[k] : i < k; };
      bool ordered = true;
      for (int64_t k = first + 1; k < last && ordered; ++k) ordered = !before(order[k], order[k - 1]);
      if (!ordered) std::sort(order + first, order + last, before);
      for (int64_t k = first, end; k < last; k = end) {
        for (end = k + 1; end < last && x[order[end]] == x[order[k]];) ++end;
        tied(k, end);
      }
    }
  };
  if (w != nullptr) {
    over_runs(n, s, [=, &below](int64_t k) SL_INLINED {
      const uint32_t i = order[k];
      const double weight = double(w[i]), mid = below + 0.5 * weight;
      rank[i] = by_d ? weight * (rank[i] - mid) : mid;
      below += weight;
    }, code, run);
  } else if (by_d) {
    over_runs(n, s, [=](int64_t k) SL_INLINED { twice[order[k]] -= 2 * int32_t(k); }, code, run);
  } else {
    over_runs(n, s, [=](int64_t k) SL_INLINED { twice[order[k]] = 2 * int32_t(k); }, code, run);
  }
}

// enter_ranks of the row x[0..n), which holds no NaN.
template <typename T, typename W>
SL_INLINE void rank_row(const T* x, int64_t n, const W* w, bool by_d, LongRow<T>& s) {
  T low, high;
  find_range(x, n, low, high);
  const T range = high - low, factor = T(1 << kPlaceBits) / range, most = std::numeric_limits<T>::max() / 256;
  Coder<T> code{low, factor * T(128), false};
  const LinearSource<T> linear{x, low, factor};
  const ImageSource<T> by_image{x, code, code(low), shift_for(code(high) - code(low))};
  if (low == high) {  // as an untrained network predicts
    for (int64_t k = 0; k < n; ++k) s.order[size_t(k)] = uint32_t(k);
    std::fill(s.shared.begin(), s.shared.end(), uint8_t(1));
  } else {
    Plan plan;
    bool is_linear = range > 0 && range < most && factor < most;
    if (is_linear) make_plan(linear, n, plan);
    if (!is_linear || 2 * plan.most > plan.sampled) {
      const int64_t crowd = is_linear ? plan.most : n + 1;
      make_plan(by_image, n, plan);
      is_linear = plan.most >= crowd;
      if (is_linear) make_plan(linear, n, plan);
    }
    code.linear = is_linear;
    if (is_linear)
      deal_row(x, n, linear, code, plan, s);
    else
      deal_row(x, n, by_image, code, plan, s);
    sort_dealt(x, n, code, s);
  }
  enter_ranks(x, n, w, by_d, s, [=](uint32_t i) SL_INLINED { return code(x[i]); });
}

// Hinge of one row of n elements, and in x scale * g, its gradient. Returns the unreduced loss. `read(which, x)` writes p
// (0) or d (1) to x and says whether it is free of NaN; one makes the loss and the gradient NaN. Weights, if not null, are
// positive.
template <typename T, typename W, typename Read>
SL_INLINE double long_row(T* x, int64_t n, const W* w, LongRow<T>& s, double scale, Read&& read) {
  bool valid = true;
  for (int which = 0; which < 2 && valid; ++which) {
    valid = read(which, x);
    if (valid) rank_row(x, n, w, which == 1, s);
  }
  if (!valid) {
    std::fill_n(x, n, std::numeric_limits<T>::quiet_NaN());
    return std::numeric_limits<double>::quiet_NaN();
  }
  read(0, x);
  const int32_t* twice = s.twice();
  const double* g = s.weighted();
  // The g_i sum to zero, so a shift of p changes nothing but the rounding.
  const double shift = double(x[0]);
  double loss;
  if (w == nullptr) {
    loss = lane_sum(n, [=](int64_t i) SL_INLINED { return (double(x[i]) - shift) * (0.5 * double(twice[i])); });
    for (int64_t i = 0; i < n; ++i) x[i] = T(scale * (0.5 * double(twice[i])));
  } else {
    loss = lane_sum(n, [=](int64_t i) SL_INLINED { return (double(x[i]) - shift) * g[i]; });
    for (int64_t i = 0; i < n; ++i) x[i] = T(scale * g[i]);
  }
  return loss;
}

}  // namespace structloss

// How rows side by side are ranked.
//
//   g_i = R_p(i) - R_{d|p}(i)
//
// Keys of p (a code that grows with the value, in the upper bits, and the element's number) are sorted, which gives ranks
// by p; then keys of d with the rank by p in place of the number, so that ties in d come out ordered by p. Where all p
// differ, g is the difference of the two places. What codes cannot tell is looked at row by row: elements that share a
// code are put in order by their values, and rows with ties in p, or weights other than 0 and 1, get their mid-ranks.
#include "lane_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "long_rows.hpp"

namespace structloss {
namespace {

// y, at least 0 and below 2^30 (float) or 2^51 (double), as an integer: never against the order.
template <typename L>
SL_INLINE typename L::Keys to_code(typename L::Vec y) {
  if constexpr (sizeof(typename L::Element) == 4) {
    return __builtin_convertvector(y, typename L::Keys);
  } else {  // 64-bit conversions are not for every processor: an integer below 2^52 is the low bits of 2^52 + it
    constexpr double kShift = 4503599627370496.0;
    const typename L::Vec shifted = y + kShift;
    return read_vector<typename L::Keys>(&shifted) & 0xfffffffffffff;
  }
}

// One group of rows, as rank_rows is told.
template <typename L, typename Set, bool kWeighted>
struct RowGroup {
  using T = typename L::Element;
  using Key = typename L::Key;
  using Keys = typename L::Keys;
  using Vec = typename L::Vec;
  static constexpr int kCount = L::kCount;
  static constexpr int kLaneBits = kCount == 2 ? 1 : kCount == 4 ? 2 : kCount == 8 ? 3 : 4;
  static_assert(1 << kLaneBits == kCount);
  using Flags = uint32_t;  // a bit per lane

  LaneMemory<T>& m;
  const int64_t n;
  const int bits;          // of an element's number
  const Key mask;          // its place in a key
  const Key past;          // keys from here on are of what has no weight
  const double scale;
  Flags invalid = 0, looked_at = 0, unit = ~Flags(0);  // rows with a NaN; with ties in p or weights; with weights 0 and 1
  int64_t kept[kCount];    // elements with weight

  SL_INLINE RowGroup(LaneMemory<T>& memory, int64_t length, double gradient_scale)
      : m(memory), n(length), bits(bits_of(length)), mask((Key(1) << bits) - 1), past(L::kGreatest & ~mask),
        scale(gradient_scale) {
    for (int l = 0; l < kCount; ++l) kept[l] = n;
  }

  static SL_INLINE int bits_of(int64_t n) {
    int bits = 8;
    while ((int64_t(1) << bits) < n) ++bits;
    return bits;
  }
  static SL_INLINE Flags flags_of(Keys k) {
    Flags flags = 0;
    for (int l = 0; l < kCount; ++l) flags |= Flags(k[l] != 0) << l;
    return flags;
  }
  static SL_INLINE Vec vec(const T* x, int64_t i) { return read_vector<Vec>(x + i * kCount); }
  static SL_INLINE Keys keys(const Key* x, int64_t i) { return read_vector<Keys>(x + i * kCount); }

  SL_INLINE void run(double* loss) {
    if constexpr (kWeighted) look_at_weights();
    const Coder of_p = coder(m.p), of_d = coder(m.d);
    for (int64_t i = 0; i < n; ++i) enter(m.by_p, i, of_p.code(vec(m.p, i)), Keys{} + Key(i));
    sort(m.by_p);
    looked_at = ~unit | order(m.by_p, [this](int l, int64_t a, int64_t b) SL_INLINED {
                  return compare(m.p[a * kCount + l], m.p[b * kCount + l]);
                });
    enter_ranks();
    for (int64_t i = 0; i < n; ++i) enter(m.by_d, i, of_d.code(vec(m.d, i)), keys(m.by_d, i));
    sort(m.by_d);
    order(m.by_d, [this](int l, int64_t a, int64_t b) SL_INLINED { return compare(m.d[by_p(a, l)], m.d[by_p(b, l)]); });
    enter_differences();
    finish(of_p.low, loss);
    over(looked_at & ~invalid, [&](int l) SL_INLINED { loss[l] = look_at_row(l, double(of_p.low[l])); });
    over(invalid, [&](int l) SL_INLINED {
      loss[l] = std::numeric_limits<double>::quiet_NaN();
      for (int64_t i = 0; i < n; ++i)
        m.g[i * kCount + l] = kWeighted && m.w[i * kCount + l] == T(0) ? T(0) : std::numeric_limits<T>::quiet_NaN();
    });
  }

 private:
  template <typename F>
  static SL_INLINE void over(Flags lanes, F&& f) {
    for (int l = 0; lanes != 0; ++l, lanes >>= 1)
      if (lanes & 1) f(l);
  }
  static SL_INLINE int compare(T x, T y) { return int(x > y) - int(x < y); }

  // The element that stands at place k in the order of p, as its offset in p, d and g: after enter_ranks.
  SL_INLINE int64_t by_p(int64_t k, int l) const { return int64_t(m.by_p[k * kCount + l]); }
  // Numbers of elements or places, as offsets.
  SL_INLINE Keys offsets(Keys number) const {
    Keys lane{};
    for (int l = 0; l < kCount; ++l) lane[l] = l;
    return number * kCount + lane;
  }

  struct Coder {
    Vec low, factor;
    Keys usable;  // 0 for a row without a finite, positive range: its codes are all 0
    SL_INLINE Keys code(Vec x) const { return to_code<L>(usable ? (x - low) * factor : Vec{}); }
  };

  // Takes what has no weight out of p and d, and counts what has.
  SL_INLINE void look_at_weights() {
    Keys count{}, other{};
    for (int64_t i = 0; i < n; ++i) {
      const Vec w = vec(m.w, i);
      const Keys has = w != T(0);
      count -= has;
      other |= has & (w != T(1));
      // Any of the row's own numbers would do: the others are not looked at.
      write_vector(m.p + i * kCount, has ? vec(m.p, i) : Vec{} + std::numeric_limits<T>::infinity());
      write_vector(m.d + i * kCount, has ? vec(m.d, i) : Vec{} + std::numeric_limits<T>::infinity());
    }
    for (int l = 0; l < kCount; ++l) kept[l] = int64_t(count[l]);
    unit = ~flags_of(other);
  }

  SL_INLINE Coder coder(T* x) {
    constexpr T kMost = std::numeric_limits<T>::max();
    Coder c;
    Vec low = Vec{} + std::numeric_limits<T>::infinity(), high = -low;
    Keys unordered{};
    for (int64_t i = 0; i < n; ++i) {
      const Vec v = vec(x, i);
      low = v < low ? v : low;
      unordered = v == v ? unordered : ~Keys{};
      Vec u = v;  // what has no weight is infinite here
      if constexpr (kWeighted) u = vec(m.w, i) != T(0) ? v : Vec{} - std::numeric_limits<T>::infinity();
      high = u > high ? u : high;
    }
    invalid |= flags_of(unordered);
    const Vec range = high - low;
    // Codes, and the numbers below them, stay below `past`, and codes of double within what to_code takes.
    const double codes = std::min(double((L::kGreatest - L::kLeast) >> bits), 0x1p50) * (1 - 1.0 / 128);
    const Vec factor = T(codes) / range;
    c.usable = (range > T(0)) & (range < kMost) & (factor < kMost) & ~unordered;
    c.low = low < kMost ? low : Vec{};  // nothing has weight
    c.factor = factor;
    if constexpr (kWeighted)  // from now on harmless numbers
      for (int64_t i = 0; i < n; ++i) {
        const Keys has = vec(m.w, i) != T(0);
        write_vector(x + i * kCount, has ? vec(x, i) : c.low);
      }
    return c;
  }

  // Makes the key of element i: its code, and below it a number.
  SL_INLINE void enter(Key* to, int64_t i, Keys code, Keys number) const {
    Keys key = (code << bits) + (L::kLeast + number);
    if constexpr (kWeighted) key = vec(m.w, i) != T(0) ? key : past + number;
    write_vector(to + i * kCount, key);
  }
  SL_INLINE void sort(Key* sorted) const {
    const int64_t end = (n + 7) / 8 * 8, size = sorted_size(n);
    for (int64_t i = n; i < size; ++i) write_vector(sorted + i * kCount, Keys{} + L::kGreatest);
    sort_keys(Set{}, VectorBytes<int(sizeof(Vec))>{}, sorted, end);
  }

  // Puts neighbours that share a code in order by their values: `compare(lane, a, b)` tells the order of two numbers
  // below codes. Returns the rows with ties.
  template <typename F>
  SL_INLINE Flags order(Key* sorted, F&& compare) {
    constexpr int64_t kBlock = 8;
    auto close = [&](int64_t k, Keys key) SL_INLINED {
      const Keys same = (key ^ keys(sorted, k - 1)) <= mask;
      return kWeighted ? (key < past ? same : Keys{}) : same;
    };
    Flags tied = 0;
    for (int64_t begin = 1; begin < n; begin += kBlock) {
      const int64_t end = std::min(n, begin + kBlock);
      Keys found{};
      for (int64_t k = begin; k < end; ++k) found |= close(k, keys(sorted, k));
      if (!any_lane(found)) continue;
      for (int64_t k = begin; k < end; ++k) {
        const Keys same = close(k, keys(sorted, k));
        if (!any_lane(same)) continue;
        over(flags_of(same) & ~invalid, [&](int l) SL_INLINED { tied |= Flags(insert(sorted, l, k, compare)) << l; });
      }
    }
    return tied;
  }
  // Moves the key at place k before those of its code that have greater values; whether it ties with one.
  template <typename F>
  SL_INLINE bool insert(Key* sorted, int l, int64_t k, F&& compare) {
    const Key key = sorted[k * kCount + l], number = key & mask;
    for (; k > 0; --k) {
      const Key before = sorted[(k - 1) * kCount + l];
      if ((before ^ key) > mask) break;
      const int order = compare(l, before & mask, number);
      if (order == 0) {
        sorted[k * kCount + l] = key;
        return true;
      }
      if (order < 0) break;
      sorted[k * kCount + l] = before;
    }
    sorted[k * kCount + l] = key;
    return false;
  }

  // Ranks by p to where the elements stand, in by_d; leaves offsets in by_p. Vectors first, then single numbers: a lane of
  // a vector takes longer to get at than a number in memory.
  SL_INLINE void enter_ranks() {
    Key* __restrict place = m.by_p;
    Key* __restrict rank = m.by_d;
    for (int64_t k = 0; k < n; ++k) write_vector(place + k * kCount, offsets(keys(place, k) & mask));
    for (int64_t k = 0; k < n; ++k)
      for (int l = 0; l < kCount; ++l) rank[place[k * kCount + l]] = Key(k);
  }

  // g as places by p less places by d: integers, in the memory of g. Leaves offsets of places by p in by_d.
  SL_INLINE void enter_differences() {
    const Key* __restrict place = m.by_p;
    Key* __restrict by_d = m.by_d;
    Key* __restrict g = reinterpret_cast<Key*>(m.g);
    for (int64_t j = 0; j < n; ++j) write_vector(by_d + j * kCount, offsets(keys(by_d, j) & mask));
    for (int64_t j = 0; j < n; ++j)
      for (int l = 0; l < kCount; ++l) {
        const Key at = by_d[j * kCount + l];
        g[place[at]] = (at >> kLaneBits) - Key(j);
      }
  }

  // The loss and the scaled gradient from integers g.
  SL_INLINE void finish(Vec low, double* loss) {
    typedef double Wide __attribute__((vector_size(sizeof(Vec))));
    constexpr int kWide = int(sizeof(Vec) / sizeof(double));
    typedef T Part __attribute__((vector_size(kWide * sizeof(T))));
    typedef Key KeyPart __attribute__((vector_size(kWide * sizeof(Key))));
    for (int at = 0; at < kCount; at += kWide) {
      const Wide shift = __builtin_convertvector(read_vector<Part>(reinterpret_cast<const T*>(&low) + at), Wide);
      const Wide total = lane_sum<Wide>(n, [&](int64_t i) SL_INLINED {
        T* to = m.g + i * kCount + at;
        const Wide g = __builtin_convertvector(read_vector<KeyPart>(to), Wide);
        const Wide p = __builtin_convertvector(read_vector<Part>(m.p + i * kCount + at), Wide);
        write_vector(to, __builtin_convertvector(scale * g, Part));
        return (p - shift) * g;
      });
      std::memcpy(loss + at, &total, sizeof total);
    }
  }

  // Mid-ranks of a lane, in units of weight, itself not counted: enter(place, rank) for each place of an order in which
  // ties(a, b) tells neighbours that tie, and weight(place) what they count.
  template <typename Ties, typename Weight, typename Enter>
  SL_INLINE void mid_ranks(int64_t count, Ties&& ties, Weight&& weight, Enter&& enter) {
    double below = 0;
    for (int64_t begin = 0, end; begin < count; begin = end) {
      double of_run = weight(begin);
      for (end = begin + 1; end < count && ties(end - 1, end); ++end) of_run += weight(end);
      for (int64_t k = begin; k < end; ++k) enter(k, below + 0.5 * (of_run - weight(k)));
      below += of_run;
    }
  }

  // A row with ties in p, or weights: the loss, and its gradient to m.g.
  SL_INLINE double look_at_row(int l, double shift) {
    const T *p = m.p, *d = m.d;
    auto place = [&](int64_t j) SL_INLINED { return int64_t(m.by_d[j * kCount + l] >> kLaneBits); };
    auto at = [&](int64_t j) SL_INLINED { return by_p(place(j), l); };
    const bool weighted = kWeighted && !(unit >> l & 1);
    auto weight = [&](int64_t i) SL_INLINED { return weighted ? double(m.w[i]) : 1.0; };
    const int64_t count = kept[l];
    if constexpr (kWeighted) std::fill_n(m.row, n, 0.0);
    mid_ranks(
        count, [&](int64_t a, int64_t b) SL_INLINED { return p[by_p(a, l)] == p[by_p(b, l)]; },
        [&](int64_t k) SL_INLINED { return weight(by_p(k, l)); },
        [&](int64_t k, double rank) SL_INLINED { m.places[k] = rank; });
    mid_ranks(
        count, [&](int64_t a, int64_t b) SL_INLINED { return d[at(a)] == d[at(b)] && p[at(a)] == p[at(b)]; },
        [&](int64_t j) SL_INLINED { return weight(at(j)); },
        [&](int64_t j, double rank) SL_INLINED {
          const int64_t i = at(j);
          m.row[i / kCount] = weight(i) * (m.places[place(j)] - rank);
        });
    const double* g = m.row;
    for (int64_t i = 0; i < n; ++i) m.g[i * kCount + l] = T(scale * g[i]);
    return lane_sum(n, [=](int64_t i) SL_INLINED { return (double(p[i * kCount + l]) - shift) * g[i]; });
  }
};

}  // namespace

#define SL_DEFINE_RANK_ROWS_OF(SET, BYTES, TYPE, TARGET)                                                             \
  TARGET void rank_rows(SET, VectorBytes<BYTES>, LaneMemory<TYPE>& m, int64_t n, bool weighted, double scale,        \
                        double* loss) {                                                                              \
    if constexpr (BYTES == SET::kLongLaneBytes) {                                                                    \
      if (weighted) return RowGroup<Lanes<TYPE, BYTES>, SET, true>(m, n, scale).run(loss);                           \
    }                                                                                                                \
    RowGroup<Lanes<TYPE, BYTES>, SET, false>(m, n, scale).run(loss);                                                 \
  }
#define SL_DEFINE_RANK_ROWS(SET, BYTES, TARGET)      \
  SL_DEFINE_RANK_ROWS_OF(SET, BYTES, float, TARGET)  \
  SL_DEFINE_RANK_ROWS_OF(SET, BYTES, double, TARGET)
SL_DEFINE_RANK_ROWS(Plain, 16, )
#if SL_HAS_X86
SL_DEFINE_RANK_ROWS(Avx2, 32, SL_TARGET_AVX2)
SL_DEFINE_RANK_ROWS(Avx512, 32, SL_TARGET_AVX512)
SL_DEFINE_RANK_ROWS(Avx512, 64, SL_TARGET_AVX512)
#endif

}  // namespace structloss

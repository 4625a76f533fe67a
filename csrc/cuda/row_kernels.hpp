// The ranking hinge of rows, apart from the rest of the objective: one warp per row up to 512 elements, and by merge
// sort in device memory beyond. Worst case and usual case cost the same, and no sum depends on the order of execution.
#pragma once

#include "scales.hpp"
#include "warp_hinge.hpp"

namespace structloss {

// Rows of B clips and J joints over T frames; depth is what is ranked. Rows [R, N] are R clips of one joint.
template <typename T>
struct RowsParams : CallParams<T> {
  int64_t rows = 0;
  int64_t grad_step = 1, grad_offset = 0;  // of grad, which has that many coordinates a joint; the depth's place in them

  SL_DEVICE int64_t at(int64_t clip, int64_t t, int64_t j) const {
    return ((clip * this->frames + t) * this->joints + j) * grad_step + grad_offset;
  }
};

constexpr int kRowWarps = 4;

SL_BOTH inline int64_t row_blocks(int64_t rows, int warps) {
  constexpr int64_t kMost = 16384;
  const int64_t blocks = (rows + warps - 1) / warps;
  return blocks < kMost ? blocks : kMost;
}

template <typename T>
constexpr int64_t row_bytes(int padded, bool weighted) {
  return int64_t(padded) * sizeof(T) * 4 + RowScratch::bytes(padded, weighted);
}

// ---- short rows ---------------------------------------------------------------------------------------------------

template <typename T, int E, bool kWeighted>
SL_KERNEL(kRowWarps* kWarp) rows_kernel(RowsParams<T> q) {
  constexpr int kPadded = kWarp * E;
  unsigned char* memory = shared_memory() + warp_index() * row_bytes<T>(kPadded, kWeighted);
  const RowScratch scratch(memory, kPadded, kWeighted);
  T* p = reinterpret_cast<T*>(memory + RowScratch::bytes(kPadded, kWeighted));
  T *d = p + kPadded, *g = d + kPadded, *w = g + kPadded;
  const int n = int(q.frames);
  const T scale = T(q.scale.of(kDepthRankingFrames));
  // How many blocks there are depends on the number of rows alone, and so does who adds up what.
  const int64_t blocks = row_blocks(q.rows, warp_count());
  double loss = 0;
  for (int64_t row = block_index() * warp_count() + warp_index(); row < q.rows; row += blocks * warp_count()) {
    const int64_t clip = row / q.joints, j = row % q.joints;
    for (int t = lane_index(); t < n; t += kWarp) {
      const T weight = read_weight<T>(q.weight, clip, t, j);
      const bool seen = weight != T(0);
      p[t] = seen ? read_depth<T>(q.pred, clip, t, j) : T(0);
      d[t] = seen ? read_depth<T>(q.target, clip, t, j) : T(0);
      g[t] = T(0);
      if (kWeighted) w[t] = weight;
    }
    sync_warp();
    loss += hinge_row<T, E, kWeighted>({p, d, kWeighted ? w : nullptr, n}, scale, g, scratch);
    if (q.grad != nullptr)
      for (int t = lane_index(); t < n; t += kWarp) q.grad[q.at(clip, t, j)] = g[t];
    sync_warp();
  }
  const double sums[] = {loss};
  constexpr Term kTerms[] = {kDepthRankingFrames};
  write_block_sums(sums, kTerms, q.sums + block_index() * kTermCount);
}

// ---- long rows ----------------------------------------------------------------------------------------------------

template <typename T>
struct OrderedBits;
template <>
struct OrderedBits<float> {
  using type = uint32_t;
};
template <>
struct OrderedBits<double> {
  using type = uint64_t;
};

// An element on its way through the sort: by value, then by its rank by p (0 when p itself is sorted). The index makes
// all of them different.
template <typename T>
struct Entry {
  typename OrderedBits<T>::type value;
  uint32_t minor, index;

  SL_DEVICE bool before(const Entry& other) const {
    if (value != other.value) return value < other.value;
    if (minor != other.minor) return minor < other.minor;
    return index < other.index;
  }
  SL_DEVICE bool ties(const Entry& other) const { return value == other.value && minor == other.minor; }
};

constexpr int kTile = 1024, kTileThreads = 256, kEachThreads = 256, kScanThreads = 512;

template <typename T>
struct LongParams {
  RowsParams<T> q;
  Entry<T>*in, *out;  // [rows of this pass][frames]
  int32_t* rank;      // the same: twice the mid-rank by p
  double *before, *mass;  // the same, with weights: weight of the sorted positions before; mid-rank by p
  int64_t first_row, rows;  // of this pass
  int64_t run;              // length of the sorted runs
  bool by_target;

  SL_DEVICE int64_t tiles(int64_t size) const { return (q.frames + size - 1) / size; }
};

// Reads a tile of a row and sorts it, in shared memory.
template <typename T>
SL_KERNEL(kTileThreads) sort_tiles_kernel(LongParams<T> x) {
  const RowsParams<T>& q = x.q;
  const int64_t row = block_index() / x.tiles(kTile), t0 = block_index() % x.tiles(kTile) * kTile;
  const int64_t clip = (x.first_row + row) / q.joints, j = (x.first_row + row) % q.joints;
  Entry<T>* tile = reinterpret_cast<Entry<T>*>(shared_memory());
  for (int i = thread_index(); i < kTile; i += thread_count()) {
    const int64_t t = t0 + i;
    Entry<T> e{~typename OrderedBits<T>::type(0), ~0u, ~0u};  // padding comes last
    if (t < q.frames) {
      const bool seen = read_weight<T>(q.weight, clip, t, j) != T(0);
      e.value = ordered_bits(seen ? read_depth<T>(x.by_target ? q.target : q.pred, clip, t, j) : T(0));
      e.minor = x.by_target ? uint32_t(x.rank[row * q.frames + t]) : 0u;
      e.index = uint32_t(t);
    }
    tile[i] = e;
  }
  sync_block();
  for (int size = 2; size <= kTile; size *= 2) {
    for (int gap = size / 2; gap > 0; gap /= 2) {
      for (int i = thread_index(); i < kTile / 2; i += thread_count()) {
        // The first step of a merge compares with the mirror image, so that all comparisons point the same way.
        const int a = i / gap * 2 * gap + i % gap;
        const int b = gap == size / 2 ? a / size * size + size - 1 - a % size : a + gap;
        const Entry<T> low = tile[a], high = tile[b];
        if (high.before(low)) {
          tile[a] = high;
          tile[b] = low;
        }
      }
      sync_block();
    }
  }
  for (int i = thread_index(); i < kTile && t0 + i < q.frames; i += thread_count())
    x.out[row * q.frames + t0 + i] = tile[i];
}

// How many of the sorted entries come before `e`.
template <typename T>
SL_DEVICE int64_t count_before(const Entry<T>* sorted, int64_t n, const Entry<T>& e) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted[middle].before(e)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Merges runs two by two: an element's new place is its own in its run and that in the other.
template <typename T>
SL_KERNEL(kEachThreads) merge_kernel(LongParams<T> x) {
  const int64_t n = x.q.frames, row = block_index() / x.tiles(kEachThreads);
  const int64_t k = block_index() % x.tiles(kEachThreads) * kEachThreads + thread_index();
  if (k >= n) return;
  const Entry<T>* in = x.in + row * n;
  const int64_t mine = k / x.run, other = mine ^ 1, both = (mine < other ? mine : other) * x.run;
  const int64_t begin = other * x.run, end = begin + x.run < n ? begin + x.run : n;
  const Entry<T> e = in[k];
  const int64_t among = begin < n ? count_before(in + begin, end - begin, e) : 0;
  x.out[row * n + both + (k - mine * x.run) + among] = e;
}

// Weight of the elements before each sorted position; one block per row.
template <typename T>
SL_KERNEL(kScanThreads) scan_kernel(LongParams<T> x) {
  const RowsParams<T>& q = x.q;
  const int64_t row = block_index(), clip = (x.first_row + row) / q.joints, j = (x.first_row + row) % q.joints;
  double* of_warp = reinterpret_cast<double*>(shared_memory());  // [warps]
  double carried = 0;
  for (int64_t begin = 0; begin < q.frames; begin += thread_count()) {
    const int64_t k = begin + thread_index();
    const double mine = k < q.frames ? double(read_weight<T>(q.weight, clip, x.in[row * q.frames + k].index, j)) : 0;
    const double up_to = sum_up_to(mine);
    if (lane_index() == kWarp - 1) of_warp[warp_index()] = up_to;
    sync_block();
    double before = carried, all = 0;
    for (int warp = 0; warp < warp_count(); ++warp) {
      if (warp < warp_index()) before += of_warp[warp];
      all += of_warp[warp];
    }
    if (k < q.frames) x.before[row * q.frames + k] = before + up_to - mine;
    carried += all;
    sync_block();
  }
}

// First and one after the last sorted position that tie with position k.
template <typename T>
SL_DEVICE void tied_run(const Entry<T>* sorted, int64_t n, int64_t k, int64_t& first, int64_t& last) {
  const Entry<T> e = sorted[k];
  first = k > 0 && sorted[k - 1].ties(e) ? count_before(sorted, k, Entry<T>{e.value, e.minor, 0u}) : k;
  last = k + 1;
  if (last >= n || !sorted[last].ties(e)) return;
  // The index ~0 comes after every element's.
  last += count_before(sorted + last, n - last, Entry<T>{e.value, e.minor, ~0u});
}

// Ranks from sorted positions: by p into memory; by d into the gradient and the loss.
template <typename T>
SL_KERNEL(kEachThreads) ranks_kernel(LongParams<T> x) {
  const RowsParams<T>& q = x.q;
  const int64_t n = q.frames, row = block_index() / x.tiles(kEachThreads);
  const int64_t k = block_index() % x.tiles(kEachThreads) * kEachThreads + thread_index();
  const int64_t clip = (x.first_row + row) / q.joints, j = (x.first_row + row) % q.joints;
  const bool weighted = q.weight.data != nullptr;
  const Entry<T>* sorted = x.in + row * n;
  double loss = 0;
  if (k < n) {
    int64_t first, last;
    tied_run(sorted, n, k, first, last);
    const int64_t t = sorted[k].index, at = row * n + t;
    const int32_t twice = int32_t(first + last - 1);
    const double weight = weighted ? double(read_weight<T>(q.weight, clip, t, j)) : 1;
    double mass = 0;
    if (weighted) {
      const double* before = x.before + row * n;
      const double up_to = before[last - 1] + double(read_weight<T>(q.weight, clip, sorted[last - 1].index, j));
      mass = before[first] + 0.5 * (last - first > 1 ? up_to - before[first] - weight : 0.0);
    }
    // NaN is beyond the infinities, on either side.
    const T infinity = std::numeric_limits<T>::infinity();
    const bool nan = sorted[0].value < ordered_bits(-infinity) || sorted[n - 1].value > ordered_bits(infinity);
    if (!x.by_target) {
      // A NaN leaves its mark for the second round, where only d is sorted.
      x.rank[at] = nan ? -1 : twice;
      if (weighted) x.mass[at] = mass;
    } else {
      const int32_t by_pred = x.rank[at];
      double g = weighted ? weight * (x.mass[at] - mass) : 0.5 * double(by_pred - twice);
      if (nan || by_pred < 0) g = std::numeric_limits<double>::quiet_NaN();
      if (weight == 0) g = 0;
      if (weight != 0) {
        const bool shift_seen = read_weight<T>(q.weight, clip, 0, j) != T(0);
        const double shift = shift_seen ? double(read_depth<T>(q.pred, clip, 0, j)) : 0;
        loss = (double(read_depth<T>(q.pred, clip, t, j)) - shift) * g;
      }
      if (q.grad != nullptr) q.grad[q.at(clip, t, j)] = T(q.scale.of(kDepthRankingFrames) * g);
    }
  }
  if (!x.by_target) return;
  const double sums[] = {loss};
  constexpr Term kTerms[] = {kDepthRankingFrames};
  write_block_sums(sums, kTerms, q.sums + (x.first_row * x.tiles(kEachThreads) + block_index()) * kTermCount);
}

}  // namespace structloss

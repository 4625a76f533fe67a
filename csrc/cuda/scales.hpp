// Parameters of the kernels, factors of the terms' gradients, and sums of the terms over a block of threads.
#pragma once

#include "poses.hpp"

namespace structloss {

// lambda / denominator of each term; known when the kernel is launched, or computed on the device before.
struct Scales {
  double value[kTermCount] = {};
  const double* device = nullptr;

  SL_DEVICE double of(int term) const { return device == nullptr ? value[term] : device[term]; }
};

// What the kernels of a call share. A clip is `tiles` blocks of `tile_frames` frames.
template <typename T>
struct CallParams {
  Input pred, target, weight;
  T* grad = nullptr;       // [B, T, J, 3], null: no gradient
  double* sums = nullptr;  // [blocks][kTermCount]
  Scales scale;
  int64_t frames = 0;
  int32_t joints = 0, tiles = 1, tile_frames = 0;
  bool on[kTermCount] = {};
};

// The terms of a kernel, in order, as a constant.
template <int N>
struct TermList {
  Term of[N] = {};
};
constexpr int count_terms(GpuKernel kernel) {
  int count = 0;
  for (const TermTraits& traits : kTraits) count += traits.kernel == kernel;
  return count;
}
template <GpuKernel kKernel>
constexpr TermList<count_terms(kKernel)> terms_of() {
  TermList<count_terms(kKernel)> list;
  int place = 0;
  for (const TermTraits& traits : kTraits)
    if (traits.kernel == kKernel) list.of[place++] = traits.term;
  return list;
}
// Where a term stands among those of its kernel.
constexpr int place_in_kernel(Term term) {
  int place = 0;
  for (int k = 0; k < term; ++k) place += kTraits[k].kernel == kTraits[term].kernel;
  return place;
}

// Adds up what the threads of a block have of some terms (or of some denominators), in a fixed order, and writes one
// row [kTermCount]. Shared memory is free to be overwritten; every thread calls this.
template <int N, typename Slot>
SL_DEVICE void write_block_sums(const double (&mine)[N], const Slot (&slots)[N], double* row) {
  double* of_warp = reinterpret_cast<double*>(shared_memory());  // [warps][N]
  sync_block();
  SL_UNROLLED
  for (int i = 0; i < N; ++i) {
    const double sum = warp_sum(mine[i]);
    if (lane_index() == 0) of_warp[warp_index() * N + i] = sum;
  }
  sync_block();
  static_assert(kTermCount <= kWarp, "one thread per term, in blocks of one warp too");
  static_assert(kDenominatorCount <= kTermCount, "a row of counts is as wide as one of terms");
  const int term = thread_index();
  if (term >= kTermCount) return;
  double sum = 0;
  SL_UNROLLED
  for (int i = 0; i < N; ++i)
    if (int(slots[i]) == term)
      for (int warp = 0; warp < warp_count(); ++warp) sum += of_warp[warp * N + i];
  row[term] = sum;
}
constexpr int64_t block_sums_bytes(int threads, int terms) { return int64_t(threads / kWarp) * terms * 8; }

}  // namespace structloss

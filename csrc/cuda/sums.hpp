// What is left between the kernels: denominators of the means where there are weights, sums over blocks, the results.
#pragma once

#include "frames.hpp"

namespace structloss {

constexpr int kCountThreads = 256;
// What counts_kernel adds up frame by frame, and clip_counts_kernel clip by clip.
constexpr int kFrameCounts = 7, kClipCounts = 2;

// ---- what the means divide by -------------------------------------------------------------------------------------

struct CountsParams {
  Input weight;
  Structure structure;    // in device memory
  const double* freedom;  // [B][bones] of limb_variance, or null
  double* sums;           // [blocks][kTermCount], of which the first kDenominatorCount are used
  int64_t frames;
  int32_t joints, tiles;  // a clip is `tiles` blocks of kCountThreads frames
};

// One thread per frame: sums of products of weights, as in denominators.hpp.
SL_KERNEL(kCountThreads) counts_kernel(CountsParams q) {
  const int64_t clip = block_index() / q.tiles, t = block_index() % q.tiles * kCountThreads + thread_index();
  const Structure& s = q.structure;
  auto weight = [&](int64_t frame, int j) { return read_weight_wide(q.weight, clip, frame, j); };
  auto angle_weight = [&](int64_t frame, const Angle& a) {
    return weight(frame, a.first.child) * weight(frame, a.first.parent) * weight(frame, a.other);
  };
  double joints = 0, steps = 0, squares = 0, any = 0, bones = 0, angles = 0, angle_steps = 0;
  if (t < q.frames) {
    for (int j = 0; j < q.joints; ++j) {
      const double w = weight(t, j);
      joints += w;
      any = w > 0 ? 1 : any;
      if (t > 0) steps += w * weight(t - 1, j);
    }
    squares = joints * joints;
    for (int k = 0; k < s.n_bones; ++k) bones += weight(t, s.bones[k].child) * weight(t, s.bones[k].parent);
    for (int k = 0; k < s.n_angles; ++k) angles += angle_weight(t, s.angles[k]);
    for (int k = 0; t > 0 && k < s.n_angles_velocity; ++k)
      angle_steps += angle_weight(t, s.angles_velocity[k]) * angle_weight(t - 1, s.angles_velocity[k]);
  }
  using D = Denominator;
  const double sums[] = {joints, steps, squares, any, bones, angles, angle_steps};
  constexpr D kinds[kFrameCounts] = {D::joint_weights, D::steps,  D::joint_pairs, D::frames,
                                     D::bones,         D::angles, D::angle_steps};
  write_block_sums(sums, kinds, q.sums + block_index() * kTermCount);
}

// One block per clip: what is summed over time first.
SL_KERNEL(kCountThreads) clip_counts_kernel(CountsParams q) {
  const int64_t clip = block_index();
  double columns = 0, bones = 0;
  for (int j = warp_index(); j < q.joints; j += warp_count()) {
    double sum = 0;
    for (int64_t t = lane_index(); t < q.frames; t += kWarp) sum += read_weight_wide(q.weight, clip, t, j);
    sum = warp_sum(sum);
    if (lane_index() == 0) columns += sum * sum;
  }
  if (q.freedom != nullptr)
    for (int k = thread_index(); k < q.structure.n_bones; k += thread_count())
      bones += q.freedom[clip * q.structure.n_bones + k] > 0 ? 1 : 0;
  const double sums[] = {columns, bones};
  constexpr Denominator kinds[kClipCounts] = {Denominator::frame_pairs, Denominator::varying_bones};
  write_block_sums(sums, kinds, q.sums + block_index() * kTermCount);
}

// ---- sums over blocks ---------------------------------------------------------------------------------------------

// Threads of a block: one per term, or a place that stays empty, in each of the lanes.
constexpr int kSumThreads = 256, kSumRows = 256, kSumPlaces = kTermCount <= 16 ? 16 : 32;
constexpr int kSumLanes = kSumThreads / kSumPlaces;
static_assert(kTermCount <= kSumPlaces, "sum_rows adds up as many terms as it has places");

struct SumParams {
  const double* rows;  // [count][kTermCount]
  double* out;         // [blocks][kTermCount]: of kSumRows rows each
  int64_t count;
};

// Sum of the rows from `begin` on, up to kSumRows of them, of each term: in thread `term`, all in shared memory
// [kSumPlaces].
SL_DEVICE double* sum_rows(const double* rows, int64_t begin, int64_t count) {
  double* lanes = reinterpret_cast<double*>(shared_memory());  // [kSumLanes][kSumPlaces]
  const int term = thread_index() % kSumPlaces, lane = thread_index() / kSumPlaces;
  const int64_t end = begin + kSumRows < count ? begin + kSumRows : count;
  double sum = 0;
  if (term < kTermCount)
    for (int64_t row = begin + lane; row < end; row += kSumLanes) sum += rows[row * kTermCount + term];
  lanes[lane * kSumPlaces + term] = sum;
  sync_block();
  if (lane == 0) {
    for (int l = 1; l < kSumLanes; ++l) sum += lanes[l * kSumPlaces + term];
    lanes[term] = sum;
  }
  sync_block();
  return lanes;
}
constexpr int64_t kSumBytes = kSumLanes * kSumPlaces * 8;

SL_KERNEL(kSumThreads) sum_kernel(SumParams q) {
  const double* sums = sum_rows(q.rows, block_index() * kSumRows, q.count);
  if (thread_index() < kTermCount) q.out[block_index() * kTermCount + thread_index()] = sums[thread_index()];
}

// ---- factors, results ---------------------------------------------------------------------------------------------

// The terms that were asked for, in order, and their weights.
struct Wanted {
  int32_t count = 0;
  int32_t term[kTermCount] = {};
  Denominator denominator[kTermCount] = {};
  double lambda[kTermCount] = {};
  const void* lambdas = nullptr;  // in device memory, of the compute dtype; not null: instead of lambda

  template <typename T>
  SL_DEVICE double weight(int i) const {
    return lambdas == nullptr ? lambda[i] : double(static_cast<const T*>(lambdas)[i]);
  }
};

struct ScalesParams {
  Wanted wanted;
  const double* rows;  // sums of counts, at most kSumRows rows [kTermCount]; null: `counts` are known
  int64_t count;
  double counts[kDenominatorCount];
  double joints;       // whatever their weights
  double* inverse;         // [kTermCount]: 1 / denominator, 0 where there is nothing to average
  double* scales;          // [kTermCount]: lambda / denominator
};

// What a mean divides by, from the sums of weights.
SL_DEVICE double weighted_count(const double* sums, Denominator kind, double joints) {
  if (kind == Denominator::joints) return joints;
  if (kind == Denominator::step_coordinates) return 3 * sums[int(Denominator::steps)];
  return sums[int(kind)];
}

template <typename T>
SL_KERNEL(kSumThreads) scales_kernel(ScalesParams q) {
  const double* sums = q.rows == nullptr ? nullptr : sum_rows(q.rows, 0, q.count);
  if (thread_index() != 0) return;
  for (int i = 0; i < q.wanted.count; ++i) {
    const int term = q.wanted.term[i];
    const Denominator kind = q.wanted.denominator[i];
    const double count = sums == nullptr ? q.counts[int(kind)] : weighted_count(sums, kind, q.joints);
    const double inverse = count > 0 ? 1 / count : 0;
    q.inverse[term] = inverse;
    q.scales[term] = q.wanted.weight<T>(i) * inverse;
  }
}

struct FinishParams {
  Wanted wanted;
  const double* rows;  // [count][kTermCount], at most kSumRows
  int64_t count;
  double known[kTermCount];  // 1 / denominator, used if `inverse` is null
  const double* inverse;
  void *total, *values;  // [], [wanted.count], of the compute dtype
};

template <typename T>
SL_KERNEL(kSumThreads) finish_kernel(FinishParams q) {
  const double* sums = sum_rows(q.rows, 0, q.count);
  if (thread_index() != 0) return;
  double total = 0;
  for (int i = 0; i < q.wanted.count; ++i) {
    const int term = q.wanted.term[i];
    const double value = sums[term] * (q.inverse == nullptr ? q.known[term] : q.inverse[term]);
    static_cast<T*>(q.values)[i] = T(value);
    total += q.wanted.weight<T>(i) * value;
  }
  *static_cast<T*>(q.total) = T(total);
}

// ---- tables, gradients --------------------------------------------------------------------------------------------

// Bytes that travel to the device as a kernel's parameter: no copy, no wait, and a CUDA graph keeps them.
struct UploadParams {
  static constexpr int kBytes = 3584;
  unsigned char bytes[kBytes];
  unsigned char* to;
  int32_t count;
};
SL_KERNEL(kSumThreads) upload_kernel(UploadParams q) {
  for (int i = thread_index(); i < q.count; i += thread_count()) q.to[i] = q.bytes[i];
}

struct ScaleParams {
  void* grad;
  const void* by;  // one number of the same dtype
  int64_t count, blocks;
};

// grad *= by, in place; a loss that nothing is multiplied with leaves the memory alone.
template <typename T>
SL_KERNEL(kSumThreads) scale_kernel(ScaleParams q) {
  const T by = *static_cast<const T*>(q.by);
  if (by == T(1)) return;
  T* grad = static_cast<T*>(q.grad);
  for (int64_t i = block_index() * kSumThreads + thread_index(); i < q.count; i += q.blocks * kSumThreads) grad[i] *= by;
}
// So many blocks keep the memory busy, and are soon gone where there is nothing to do.
constexpr int64_t kMostScaleBlocks = 1024;

}  // namespace structloss

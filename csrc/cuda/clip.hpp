// One block per clip: both depth rankings and the terms of single joints, fused.
//
// Depths are read into shared memory, one row per joint; each thread ranks the joints of a frame, then each warp rows
// over time. At last positions and steps are read again (from the second-level cache), their terms are added, and the
// gradient is written, once. Clips that do not fit are cut into tiles of frames, without the ranking over time.
#pragma once

#include <type_traits>

#include "scales.hpp"
#include "warp_hinge.hpp"

namespace structloss {

// Nine warps rank the 17 joints of a clip in two rounds.
constexpr int kMostClipThreads = 9 * kWarp;
constexpr int kClipTerms = 6;
static_assert(count_terms(GpuKernel::clips) == kClipTerms, "clip_kernel adds up these terms, written out at its end");

// Blocks that share a multiprocessor, by what their shared memory leaves room for.
template <typename T, int E, bool kWeighted>
constexpr int clip_blocks() {
  return sizeof(T) == sizeof(double) || E > 8 ? 1 : kWeighted ? 2 : 3;
}

// A fused clip is one tile of all frames.
template <typename T>
struct ClipParams : CallParams<T> {
  const double *weighted_joints = nullptr, *consistency_joints = nullptr;  // [J], null: 1
  bool packed = false;         // pred, target and grad can be read and written in groups
  bool ranks_in_grad = false;  // the gradient of the ranking over time is in grad's depths already
};

// Shared memory of a block.
struct ClipMemory {
  int64_t row, rows, scratch, bytes;  // elements of a row; bytes of one set of rows; where the warps' memory begins

  SL_BOTH ClipMemory(int joints, int frames, int item, int warps, int padded, bool weighted, bool depths) {
    row = frames | 1;  // odd: neighbouring joints of a frame lie in different banks
    rows = depths ? (joints * row * item + 15) / 16 * 16 : 0;
    scratch = rows * (weighted ? 4 : 3);
    bytes = scratch + warps * RowScratch::bytes(padded, weighted);
  }
};

// ---- depth ranking over the joints --------------------------------------------------------------------------------

// Twice what the pair adds to g_i, and takes from g_j: +-2 if it is in the wrong order, +-1 if the predictions tie. In
// floating-point numbers, which take fewer instructions than flags.
template <typename T>
SL_DEVICE T pair_order(T pi, T pj, T di, T dj) {
  const T by_target = T(di < dj) - T(dj < di), by_pred = T(pi > pj) - T(pi < pj);
  return by_target + by_pred * (by_target * by_target);
}

// Hinge of a frame whose depths are p[j * row] and d[j * row]; adds scale * g_j to g[j * row]. A few joints at a time
// are in registers; w is null without weights.
template <typename T, bool kWeighted>
SL_DEVICE double frame_hinge(const T* p, const T* d, const T* w, int row, int joints, T scale, T* g) {
  constexpr int N = 4;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  using Sum = std::conditional_t<kWeighted, double, T>;
  bool invalid = false;
  for (int j = 0; j < joints; ++j) invalid |= p[j * row] != p[j * row] || d[j * row] != d[j * row];
  double loss = 0;
  for (int first = 0; first < joints; first += N) {
    T pj[N], dj[N];
    Sum twice[N];
    SL_UNROLLED
    for (int i = 0; i < N; ++i) {
      const int j = first + i < joints ? first + i : first;
      pj[i] = p[j * row];
      dj[i] = d[j * row];
      twice[i] = Sum(0);
    }
    SL_ROLLED
    for (int k = 0; k < joints; ++k) {
      const T pk = p[k * row], dk = d[k * row];
      const Sum wk = kWeighted ? Sum(w[k * row]) : Sum(1);
      SL_UNROLLED
      for (int i = 0; i < N; ++i) {
        const Sum c = Sum(pair_order(pj[i], pk, dj[i], dk));
        twice[i] += kWeighted ? wk * c : c;
      }
    }
    SL_UNROLLED
    for (int i = 0; i < N; ++i) {
      const int j = first + i;
      if (j >= joints) continue;
      const Sum wj = kWeighted ? Sum(w[j * row]) : Sum(1);
      Sum gj = Sum(0.5) * wj * twice[i];
      if (invalid) gj = wj == Sum(0) ? Sum(0) : Sum(nan);
      loss += (double(pj[i]) - double(p[0])) * double(gj);
      g[j * row] += scale * T(gj);
    }
  }
  return loss;
}

// The hinge for N joints in registers, if none tie: then g is a difference of two ranks, and a pair takes one comparison
// each.
template <typename T, int N>
SL_DEVICE double frame_hinge_of(const T* p, const T* d, int row, T scale, T* g) {
  T gj[N];
  SL_UNROLLED
  for (int j = 0; j < N; ++j) gj[j] = T(0);
  bool ties = false;
  SL_ROLLED
  for (int which = 0; which < 2; ++which) {  // not at once: that would take twice the registers
    const T* x = which == 0 ? p : d;
    const T sign = which == 0 ? T(1) : T(-1);
    T value[N];
    SL_UNROLLED
    for (int j = 0; j < N; ++j) {
      value[j] = x[j * row];
      ties |= value[j] != value[j];  // a NaN is no usual case either
    }
    SL_UNROLLED
    for (int j = 0; j < N; ++j) {
      SL_UNROLLED
      for (int k = 0; k < N; ++k) {  // constant bounds: they are unrolled on every architecture
        if (k <= j) continue;
        const T smaller = T(value[k] < value[j]);
        ties |= value[j] == value[k];
        gj[j] = multiply_add(smaller, sign, gj[j]);
        gj[k] = multiply_add(smaller, -sign, gj[k]);
      }
    }
  }
  if (ties) return frame_hinge<T, false>(p, d, nullptr, row, N, scale, g);
  const T shift = p[0];
  double loss = 0;
  SL_UNROLLED
  for (int j = 0; j < N; ++j) {
    loss += (double(p[j * row]) - double(shift)) * double(gj[j]);
    g[j * row] += scale * gj[j];
  }
  return loss;
}

// ---- positions and steps ------------------------------------------------------------------------------------------

template <typename T>
struct JointSums {
  T mpjpe = 0, weighted_mpjpe = 0, velocity = 0, consistency = 0;
};

// A step between two frames: what it adds to the terms of motion.
template <typename T>
struct Step {
  T weight;
  Vec3<T> pred, error;  // of the prediction; its difference to the target's
};

template <typename T>
SL_DEVICE Step<T> step_from(const ClipParams<T>& q, int64_t clip, int64_t t, int j, bool targets) {
  const T now_weight = read_weight<T>(q.weight, clip, t, j), next_weight = read_weight<T>(q.weight, clip, t + 1, j);
  const Vec3<T> now = where_seen(now_weight, read_joint<T>(q.pred, clip, t, j));
  const Vec3<T> next = where_seen(next_weight, read_joint<T>(q.pred, clip, t + 1, j));
  Step<T> step{now_weight * next_weight, next - now, {T(0), T(0), T(0)}};
  if (!targets) return step;
  const Vec3<T> now_target = where_seen(now_weight, read_joint<T>(q.target, clip, t, j));
  const Vec3<T> next_target = where_seen(next_weight, read_joint<T>(q.target, clip, t + 1, j));
  // Steps first: they are exact for coordinates far from the origin, where errors of position would not be.
  step.error = step.pred - (next_target - now_target);
  return step;
}

// Gradient of the terms of motion; a step counts for the frame it leads to.
template <typename T>
SL_DEVICE Vec3<T> motion_terms(const ClipParams<T>& q, int64_t clip, int64_t t, int j, JointSums<T>& sums) {
  Vec3<T> g{T(0), T(0), T(0)};
  const bool velocity = q.on[kVelocity], consistency = q.on[kTemporalConsistency];
  const T factor = q.consistency_joints == nullptr ? T(1) : T(q.consistency_joints[j]);
  const T slope = T(q.scale.of(kVelocity)), twice = T(2 * q.scale.of(kTemporalConsistency));
  SL_ROLLED
  for (int side = 0; side < 2; ++side) {  // the step to this frame, and the one from it
    const bool back = side == 0;
    if (back ? t == 0 : t + 1 == q.frames) continue;
    const Step<T> step = step_from(q, clip, back ? t - 1 : t, j, velocity);
    const T direction = back ? T(1) : T(-1);
    T length_sum = T(0), square_sum = T(0);
    if (velocity) g = g + direction * weighted_length(step.error, step.weight, slope, length_sum);
    if (consistency) g = g + direction * weighted_square(step.pred, factor * step.weight, twice, square_sum);
    if (!back) continue;
    sums.velocity += length_sum;
    sums.consistency += square_sum;
  }
  return g;
}

template <typename T, bool kWeighted>
struct PositionTerms {
  const ClipParams<T>& q;
  const T mpjpe, weighted_mpjpe;  // factors of the gradients

  SL_DEVICE explicit PositionTerms(const ClipParams<T>& params)
      : q(params), mpjpe(T(q.scale.of(kMpjpe))), weighted_mpjpe(T(q.scale.of(kWeightedMpjpe))) {}

  // MPJPE alone, without weights: with a device's inverse root.
  SL_DEVICE Vec3<T> plain(const Vec3<T>& p, const Vec3<T>& d, JointSums<T>& sums) const {
    const Vec3<T> difference = p - d;
    const T square = dot(difference, difference), inverse = square == T(0) ? T(0) : inverse_root(square);
    sums.mpjpe += square * inverse;
    return (mpjpe * inverse) * difference;
  }

  SL_DEVICE Vec3<T> operator()(int64_t clip, int64_t t, int j, const Vec3<T>& p, const Vec3<T>& d,
                               JointSums<T>& sums) const {
    const T weight = kWeighted ? read_weight<T>(q.weight, clip, t, j) : T(1);
    const Vec3<T> difference = where_seen(weight, p - d);
    Vec3<T> g{T(0), T(0), T(0)};
    if (q.on[kMpjpe]) g = weighted_length(difference, weight, mpjpe, sums.mpjpe);
    if (q.on[kWeightedMpjpe]) {
      const T factor = weight * (q.weighted_joints == nullptr ? T(1) : T(q.weighted_joints[j]));
      g = g + weighted_length(difference, factor, weighted_mpjpe, sums.weighted_mpjpe);
    }
    return g;
  }
};

// ---- the kernel ---------------------------------------------------------------------------------------------------

// The joints of a tile, which are joints begin ... end - 1 of the whole tensor: calls group(first) for groups of four that
// can be read in words, and single(joint) for the others.
template <typename Group, typename Single>
SL_DEVICE void over_joints(bool packed, int64_t begin, int64_t end, Group&& group, Single&& single) {
  int64_t from = end, to = end;
  if (packed) {
    const int64_t up = (begin + kGroup - 1) / kGroup * kGroup, down = end / kGroup * kGroup;
    if (up < down) {
      from = up;
      to = down;
    }
  }
  for (int64_t first = from + kGroup * thread_index(); first < to; first += kGroup * thread_count()) group(first);
  // What is before and after the groups.
  const int64_t head = from - begin, rest = head + (end - to);
  for (int64_t i = thread_index(); i < rest; i += thread_count()) single(i < head ? begin + i : to + (i - head));
}

// Frame and joint of an element of the tile; they follow each other by joints.
struct TilePlace {
  int t, j;
  SL_DEVICE TilePlace(int element, int joints) : t(element / joints), j(element - t * joints) {}
  SL_DEVICE void next(int joints) {
    if (++j < joints) return;
    j = 0;
    ++t;
  }
};

// E: 32 E is the least number of elements that rows over time are sorted as; 0: they are not ranked here.
template <typename T, int E, bool kWeighted>
SL_KERNEL_SHARING(kMostClipThreads, (clip_blocks<T, E, kWeighted>())) clip_kernel(ClipParams<T> q) {
  // A fused clip is one tile.
  const int64_t clip = E > 0 ? block_index() : block_index() / q.tiles;
  const int64_t t0 = E > 0 ? 0 : block_index() % q.tiles * q.tile_frames;
  const int J = q.joints, n = int(q.frames - t0 < q.tile_frames ? q.frames - t0 : q.tile_frames);
  const int64_t begin = (clip * q.frames + t0) * J, end = begin + int64_t(n) * J;
  const bool depths = q.on[kDepthRankingJoints] || (E > 0 && q.on[kDepthRankingFrames]);
  const ClipMemory memory(J, q.tile_frames, sizeof(T), warp_count(), kWarp * E, kWeighted, depths);
  const int row = int(memory.row);
  T* p = reinterpret_cast<T*>(shared_memory());                     // [J][row]
  T* d = reinterpret_cast<T*>(shared_memory() + memory.rows);       // [J][row]
  T* g = reinterpret_cast<T*>(shared_memory() + 2 * memory.rows);   // [J][row], gradient of the rankings
  T* w = kWeighted ? reinterpret_cast<T*>(shared_memory() + 3 * memory.rows) : nullptr;
  double joints_loss = 0, frames_loss = 0;

  if (depths) {
    auto put = [&](int t, int j, T depth, T target) {
      const int at = j * row + t;
      if (kWeighted) {
        const T weight = read_weight<T>(q.weight, clip, t0 + t, j);
        w[at] = weight;
        if (weight == T(0)) depth = target = T(0);
      }
      p[at] = depth;
      d[at] = target;
      g[at] = T(0);
    };
    over_joints(
        q.packed, begin, end,
        [&](int64_t first) {
          T pg[3 * kGroup], dg[3 * kGroup];
          read_group(q.pred, first / kGroup, pg);
          read_group(q.target, first / kGroup, dg);
          TilePlace at(int(first - begin), J);
          SL_UNROLLED
          for (int k = 0; k < kGroup; ++k, at.next(J)) put(at.t, at.j, pg[3 * k + 2], dg[3 * k + 2]);
        },
        [&](int64_t joint) {
          const TilePlace at(int(joint - begin), J);
          put(at.t, at.j, read_depth<T>(q.pred, clip, t0 + at.t, at.j), read_depth<T>(q.target, clip, t0 + at.t, at.j));
        });
    sync_block();
    // Joints first, while few registers are taken by the rest.
    if (q.on[kDepthRankingJoints]) {
      const T scale = T(q.scale.of(kDepthRankingJoints));
      for (int t = thread_index(); t < n; t += thread_count()) {
        const int apart = opaque(row);  // or the compiler keeps multiples of it in registers
        if (!kWeighted && J == 17) {
          joints_loss += frame_hinge_of<T, 17>(p + t, d + t, apart, scale, g + t);
        } else {
          joints_loss += frame_hinge<T, kWeighted>(p + t, d + t, kWeighted ? w + t : nullptr, apart, J, scale, g + t);
        }
      }
      sync_block();
    }
    if constexpr (E > 0) {
      if (q.on[kDepthRankingFrames]) {
        const RowScratch scratch(shared_memory() + memory.scratch +
                                        warp_index() * RowScratch::bytes(kWarp * E, kWeighted),
                                    kWarp * E, kWeighted);
        const T scale = T(q.scale.of(kDepthRankingFrames));
        for (int j = warp_index(); j < J; j += warp_count()) {
          const Row<T> one{p + j * row, d + j * row, kWeighted ? w + j * row : nullptr, n};
          frames_loss += hinge_row<T, E, kWeighted>(one, scale, g + j * row, scratch);
        }
        sync_block();
      }
    }
  }

  JointSums<T> sums;  // of a thread: few enough to be added up in T
  const PositionTerms<T, kWeighted> position_terms(q);
  const bool positions = q.on[kMpjpe] || q.on[kWeightedMpjpe];
  const bool plain = !kWeighted && q.on[kMpjpe] && !q.on[kWeightedMpjpe];
  const bool motion = q.on[kVelocity] || q.on[kTemporalConsistency];
  if (q.grad != nullptr || positions || motion) {
    over_joints(
        q.packed && !motion, begin, end,
        [&](int64_t first) {
          T pg[3 * kGroup], dg[3 * kGroup];
          if (positions) {
            read_group(q.pred, first / kGroup, pg);
            read_group(q.target, first / kGroup, dg);
          }
          TilePlace at(int(first - begin), J);
          SL_UNROLLED
          for (int k = 0; k < kGroup; ++k, at.next(J)) {
            const Vec3<T> pred{pg[3 * k], pg[3 * k + 1], pg[3 * k + 2]};
            const Vec3<T> target{dg[3 * k], dg[3 * k + 1], dg[3 * k + 2]};
            Vec3<T> total{T(0), T(0), T(0)};
            if (plain) {
              total = position_terms.plain(pred, target, sums);
            } else if (positions) {
              total = position_terms(clip, t0 + at.t, at.j, pred, target, sums);
            }
            if (depths) total.z += g[at.j * row + at.t];
            if (q.ranks_in_grad) total.z += q.grad[3 * (first + k) + 2];
            pg[3 * k] = total.x;
            pg[3 * k + 1] = total.y;
            pg[3 * k + 2] = total.z;
          }
          if (q.grad != nullptr) write_group(q.grad, first / kGroup, pg);
        },
        [&](int64_t joint) {
          const TilePlace at(int(joint - begin), J);
          const int64_t t = t0 + at.t;
          const int j = at.j;
          Vec3<T> total{T(0), T(0), T(0)};
          if (positions)
            total = position_terms(clip, t, j, read_joint<T>(q.pred, clip, t, j),
                                   read_joint<T>(q.target, clip, t, j), sums);
          if (motion) total = total + motion_terms(q, clip, t, j, sums);
          if (q.grad == nullptr) return;
          if (depths) total.z += g[j * row + at.t];
          T* to = q.grad + 3 * joint;
          if (q.ranks_in_grad) total.z += to[2];
          to[0] = total.x;
          to[1] = total.y;
          to[2] = total.z;
        });
  }
  const double mine[] = {double(sums.mpjpe),       double(sums.weighted_mpjpe), double(sums.velocity),
                         double(sums.consistency), joints_loss,                 frames_loss};
  constexpr Term terms[kClipTerms] = {kMpjpe, kWeightedMpjpe, kVelocity, kTemporalConsistency, kDepthRankingJoints,
                                      kDepthRankingFrames};
  write_block_sums(mine, terms, q.sums + block_index() * kTermCount);
}

}  // namespace structloss

// Frames side by side on the CPU: a block of a clip in structure-of-arrays form, and the terms on vectors of its frames.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "pack.hpp"
#include "rank.hpp"
#include "terms.hpp"
#include "transpose.hpp"

#if defined(__clang__)
#define SL_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SL_UNROLL _Pragma("GCC unroll 32")
#else
#define SL_UNROLL
#endif

namespace structloss {

// Frames per block: the arrays of a 17-joint block fit the first-level cache together.
constexpr int kBlock = 32;
// A row holds frames -kLead .. kBlock + kTrail - 1: the neighbours of the block's frames, and room to read whole vectors.
constexpr int kLead = kPack, kTrail = 2 * kPack;
constexpr int kStride = kLead + kBlock + kTrail;

template <typename T>
struct Block {
  using Count = typename RankTraits<T>::Count;
  int64_t J = 0;
  int frames = 0;  // of the clip in this block; the rest is padding
  bool weighted = false;
  std::vector<T> p, d;     // [3J][kStride]: x, y and z of joint 0, of joint 1, ...; d is the target
  std::vector<double> w;   // [J][kStride]
  std::vector<double> g;   // [3J][kBlock], gradient of the weighted total
  double valid[kStride];   // 1 for a frame of the clip, neighbours included
  double own[kStride];     // 1 for a frame of the block: what its sums count
  double delta[kStride];   // angle differences
  std::vector<Count> pairs;  // [J][kBlock], spatial hinge: twice g
  std::vector<double> pairs_weighted;

  void reserve(int64_t joints, bool with_weights) {
    J = joints;
    weighted = with_weights;
    for (auto* v : {&p, &d}) v->assign(size_t(3 * J) * kStride, T(0));
    g.resize(size_t(3 * J) * kBlock);
    pairs.resize(size_t(J) * kBlock);
    if (weighted) {
      w.assign(size_t(J) * kStride, 0.0);
      pairs_weighted.resize(size_t(J) * kBlock);
    }
  }
  // Where a row's frame stands.
  static int64_t at(int64_t row, int frame) { return row * kStride + kLead + frame; }
  const T* pred_depth(int64_t j) const { return p.data() + at(3 * j + 2, 0); }
  const T* target_depth(int64_t j) const { return d.data() + at(3 * j + 2, 0); }
  const double* weight(int64_t j) const { return w.data() + at(j, 0); }
};

// kPack frames of a block, from `frame` on: the access that terms.hpp asks for.
template <typename T>
struct PackAccess {
  using V = Pack;
  Block<T>& b;
  int frame;

  SL_INLINE Vec3<Pack> pred(int64_t j) const { return load(b.p.data(), j); }
  SL_INLINE Vec3<Pack> target(int64_t j) const { return load(b.d.data(), j); }
  SL_INLINE Pack weight(int64_t j) const {
    return b.weighted ? load_pack(b.weight(j) + frame) : constant<Pack>(1);
  }
  SL_INLINE Pack valid() const { return load_pack(b.valid + kLead + frame); }
  SL_INLINE Pack own() const { return load_pack(b.own + kLead + frame); }
  SL_INLINE void add(int64_t j, const Vec3<Pack>& g) {
    double* to = b.g.data() + 3 * j * kBlock + frame;
    store_pack(to, load_pack(to) + g.x);
    store_pack(to + kBlock, load_pack(to + kBlock) + g.y);
    store_pack(to + 2 * kBlock, load_pack(to + 2 * kBlock) + g.z);
  }
  // Whether a lane differs from 0; a NaN does.
  SL_INLINE bool any(Pack x) const {
    bool found = false;
    for (int i = 0; i < kPack; ++i) found |= x[i] != 0;
    return found;
  }

 private:
  SL_INLINE Vec3<Pack> load(const T* rows, int64_t j) const {
    const T* x = rows + Block<T>::at(3 * j, frame);
    return {load_pack(x), load_pack(x + kStride), load_pack(x + 2 * kStride)};
  }
};

// ---- from and to memory -------------------------------------------------------------------------------------------

// Copies frames [from, to) of `count` rows, each `row_stride` further; frame 0 of row 0 is `source`.
template <typename T>
SL_INLINE void gather(T* rows, int64_t rows_apart, int64_t count, const T* source, int64_t frame_stride,
                      int64_t row_stride, int from, int to) {
  for (int64_t r = 0; r < count; ++r) {
    T* row = rows + r * rows_apart;
    const T* x = source + r * row_stride;
    if (to >= kBlock && from <= 0) {  // a known trip count, unrolled
      SL_UNROLL
      for (int t = 0; t < kBlock; ++t) row[t] = x[t * frame_stride];
      if (from < 0) row[-1] = x[-frame_stride];
      if (to > kBlock) row[kBlock] = x[kBlock * frame_stride];
    } else {
      for (int t = from; t < to; ++t) row[t] = x[t * frame_stride];
    }
  }
}

struct Need {
  bool pred_xy, target_xy, target_z, neighbours;
};

// Poses [T, J, 3] of one clip, frame 0 at `source`, into the rows of a block.
template <typename T>
SL_INLINE void read_poses(std::vector<T>& rows, int64_t J, const T* source, const int64_t* stride, bool xy, int from,
                          int to) {
  constexpr int L = kTile<T>;
  T* first = rows.data() + Block<T>::at(0, 0);
  if (!xy) return gather(first + 2 * kStride, 3 * kStride, J, source + 2 * stride[3], stride[1], stride[2], from, to);
  const int64_t n = 3 * J;
  if (stride[3] != 1 || stride[2] != 3 || n < L || to < kBlock) {
    for (int c = 0; c < 3; ++c)
      gather(first + c * kStride, 3 * kStride, J, source + c * stride[3], stride[1], stride[2], from, to);
    return;
  }
  // Frames are contiguous, so squares of L frames by L coordinates are turned around in registers. The last square of a
  // row overlaps the one before it.
  for (int t = 0; t < kBlock; t += L)
    for (int64_t r = 0; r < n; r += L) {
      const int64_t at = std::min(r, n - L);
      transpose(source + t * stride[1] + at, stride[1], first + at * kStride + t, kStride);
    }
  if (from < 0) gather(first, kStride, n, source, stride[1], 1, -1, 0);
  if (to > kBlock) gather(first, kStride, n, source, stride[1], 1, kBlock, to);
}

// Reads block `block` of a clip. Frames outside the clip, and joints without weight, are 0.
template <typename T>
SL_INLINE void read_block(const ObjectiveParams& q, const Need& need, int64_t clip, int64_t block, Block<T>& b) {
  const int64_t J = q.J, t0 = block * kBlock;
  b.frames = int(std::min<int64_t>(kBlock, q.T - t0));
  const int64_t *ps = q.pred_stride, *ds = q.target_stride, *ws = q.weight_stride;
  const int from = need.neighbours && t0 > 0 ? -1 : 0;
  const int to = need.neighbours && t0 + b.frames < q.T ? b.frames + 1 : b.frames;
  if (b.frames < kBlock || t0 == 0) {  // what the block before left there
    for (auto* v : {&b.p, &b.d}) std::fill(v->begin(), v->end(), T(0));
    std::fill(b.w.begin(), b.w.end(), 0.0);
  } else if (need.neighbours && to == b.frames) {
    for (auto* v : {&b.p, &b.d})
      for (int64_t r = 0; r < 3 * J; ++r) (*v)[size_t(Block<T>::at(r, kBlock))] = T(0);
    if (b.weighted)
      for (int64_t j = 0; j < J; ++j) b.w[size_t(Block<T>::at(j, kBlock))] = 0;
  }
  for (int f = -kLead; f < kBlock + kTrail; ++f) {
    b.valid[kLead + f] = f >= from && f < to ? 1.0 : 0.0;
    b.own[kLead + f] = f >= 0 && f < b.frames ? 1.0 : 0.0;
  }
  read_poses(b.p, J, static_cast<const T*>(q.pred) + clip * ps[0] + t0 * ps[1], ps, need.pred_xy, from, to);
  if (need.target_z)
    read_poses(b.d, J, static_cast<const T*>(q.target) + clip * ds[0] + t0 * ds[1], ds, need.target_xy, from, to);
  if (!b.weighted) return;
  const T* w = static_cast<const T*>(q.weight) + clip * ws[0] + t0 * ws[1];
  for (int64_t j = 0; j < J; ++j) {
    for (int t = from; t < to; ++t) {
      const T weight = w[t * ws[1] + j * ws[2]];
      b.w[size_t(Block<T>::at(j, t))] = double(weight);
      if (weight != T(0)) continue;
      for (auto* v : {&b.p, &b.d})
        for (int c = 0; c < 3; ++c) (*v)[size_t(Block<T>::at(3 * j + c, t))] = T(0);
    }
  }
}

template <typename T>
SL_INLINE void write_gradient(const ObjectiveParams& q, int64_t clip, int64_t block, const Block<T>& b) {
  constexpr int L = kTile<T>;
  const int64_t n = 3 * q.J;
  T* to = static_cast<T*>(q.grad) + (clip * q.T + block * kBlock) * n;
  int t = 0;
  if (n >= L)
    for (; t + L <= b.frames; t += L)
      for (int64_t r = 0; r < n; r += L) {
        const int64_t at = std::min(r, n - L);
        transpose(b.g.data() + at * kBlock + t, kBlock, to + t * n + at, n);
      }
  for (; t < b.frames; ++t)
    for (int64_t r = 0; r < n; ++r) to[t * n + r] = T(b.g[size_t(r * kBlock + t)]);
}

// ---- terms of one frame -------------------------------------------------------------------------------------------

// Sum of a term over the block's frames, `term` computing kPack of them.
template <typename T, typename F>
SL_INLINE double over_frames(Block<T>& b, F&& term) {
  Pack sum = {};
  for (int f = 0; f < b.frames; f += kPack) {
    PackAccess<T> a{b, f};
    sum += term(a);
  }
  return lane_total(sum);
}

// ---- terms of two neighbouring frames -----------------------------------------------------------------------------

// Weight of the step from the frame before to this one: the product of both frames', 0 where either is not of the clip.
template <typename T>
SL_INLINE Pack step_weight(const Block<T>& b, int64_t j, int f) {
  const Pack both = load_pack(b.valid + kLead + f) * load_pack(b.valid + kLead + f - 1);
  if (!b.weighted) return both;
  const double* w = b.weight(j) + f;
  return both * load_pack(w) * load_pack(w - 1);
}
// Every step is an array over the block's frames and the one after it; a frame's gradient is the difference of two.
template <typename T>
SL_INLINE double velocity_block(Block<T>& b, double scale, bool need_grad) {
  Pack sum = {};
  double step[3][kBlock + 2 * kPack];
  for (int64_t j = 0; j < b.J; ++j) {
    const int last = need_grad ? b.frames + 1 : b.frames;
    for (int f = 0; f < last; f += kPack) {
      const PackAccess<T> now{b, f}, before{b, f - 1};
      const Vec3<Pack> error = (now.pred(j) - before.pred(j)) - (now.target(j) - before.target(j));
      const Pack weight = step_weight(b, j, f), len = length(error);
      sum += now.own() * weight * len;
      const Vec3<Pack> g = (scale * weight * inverse(len)) * error;
      store_pack(step[0] + f, g.x);
      store_pack(step[1] + f, g.y);
      store_pack(step[2] + f, g.z);
    }
    if (!need_grad) continue;
    for (int f = 0; f < b.frames; f += kPack) {
      PackAccess<T> a{b, f};
      a.add(j, {load_pack(step[0] + f) - load_pack(step[0] + f + 1), load_pack(step[1] + f) - load_pack(step[1] + f + 1),
                load_pack(step[2] + f) - load_pack(step[2] + f + 1)});
    }
  }
  return lane_total(sum);
}

template <typename T>
SL_INLINE double temporal_consistency_block(Block<T>& b, const double* factors, double scale, bool need_grad) {
  Pack sum = {};
  for (int64_t j = 0; j < b.J; ++j) {
    const double factor = factors == nullptr ? 1 : factors[j];
    for (int f = 0; f < b.frames; f += kPack) {
      PackAccess<T> now{b, f};
      const PackAccess<T> before{b, f - 1}, after{b, f + 1};
      const Vec3<Pack> back = now.pred(j) - before.pred(j), on = after.pred(j) - now.pred(j);
      const Pack weight = factor * step_weight(b, j, f);
      sum += weight * dot(back, back);
      if (need_grad)
        now.add(j, (2.0 * scale * weight) * back - (2.0 * scale * factor * step_weight(b, j, f + 1)) * on);
    }
  }
  return lane_total(sum);
}

template <typename T>
SL_INLINE double bone_angle_velocity_block(Block<T>& b, const Structure& s, double scale, bool need_grad) {
  Pack sum = {};
  for (int32_t k = 0; k < s.n_angles_velocity; ++k) {
    const Angle& angle = s.angles_velocity[k];
    double weight[kStride];
    for (int f = -kPack; f < b.frames + kPack; f += kPack) {
      const PackAccess<T> a{b, f};
      store_pack(b.delta + kLead + f, predicted_angle(a, angle).angle - target_angle(a, angle));
      store_pack(weight + kLead + f, a.valid() * angle_weight(a, angle));
    }
    for (int f = 0; f < b.frames; f += kPack) {
      PackAccess<T> a{b, f};
      const Pack delta = load_pack(b.delta + kLead + f), w = load_pack(weight + kLead + f);
      const Pack back = delta - load_pack(b.delta + kLead + f - 1), on = load_pack(b.delta + kLead + f + 1) - delta;
      const Pack back_weight = w * load_pack(weight + kLead + f - 1);
      sum += a.own() * back_weight * absolute(back);
      if (!need_grad) continue;
      const Pack on_weight = w * load_pack(weight + kLead + f + 1);
      add_to_angle(a, angle, predicted_angle(a, angle), scale * (back_weight * sign(back) - on_weight * sign(on)));
    }
  }
  return lane_total(sum);
}

// ---- depth ranking over the joints --------------------------------------------------------------------------------

SL_INLINE double sum_lanes(const double* lane) {
  double sum = 0;
  for (int i = 0; i < kBlock; ++i) sum += lane[i];
  return sum;
}

// RePOSE's L_S, all frames of the block side by side.
template <typename T>
SL_INLINE double depth_ranking_joints_block(Block<T>& b, double scale, bool need_grad) {
  const int64_t J = b.J;
  const bool weighted = b.weighted;
  using Count = typename RankTraits<T>::Count;
  double mean[kBlock] = {}, total[kBlock] = {}, invalid[kBlock] = {}, sum[kBlock] = {};
  for (int64_t k = 0; k < J; ++k) {
    const T *p = b.pred_depth(k), *d = b.target_depth(k);
    for (int i = 0; i < kBlock; ++i) {
      mean[i] += double(p[i]);
      // Counts the NaNs of p and d: one takes the whole frame's row with it.
      invalid[i] += double(Count(p[i] != p[i]) + Count(d[i] != d[i]));
    }
    if (weighted) {
      const double* w = b.weight(k);
      for (int i = 0; i < kBlock; ++i) total[i] += w[i] > 0 ? 1.0 : 0.0;
    } else {
      for (int i = 0; i < kBlock; ++i) total[i] += 1.0;
    }
  }
  for (int i = 0; i < kBlock; ++i) {
    mean[i] /= total[i] > 0 ? total[i] : 1.0;
    invalid[i] = invalid[i] > 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
  }
  std::fill(b.pairs.begin(), b.pairs.end(), Count(0));
  if (weighted) std::fill(b.pairs_weighted.begin(), b.pairs_weighted.end(), 0.0);
  constexpr int kLanes = RankTraits<T>::kLanes;
  for (int i = 0; i < b.frames; i += kLanes) {
    for (int64_t j = 0; j < J; ++j) {
      const auto pj = load<T>(b.pred_depth(j) + i), dj = load<T>(b.target_depth(j) + i);
      typename RankTraits<T>::CountVec sum = {};
      for (int64_t k = j + 1; k < J; ++k) {
        const auto c = pair_count<T>(pj, load<T>(b.pred_depth(k) + i), dj, load<T>(b.target_depth(k) + i));
        if (weighted) {
          const double *wj = b.weight(j) + i, *wk = b.weight(k) + i;
          double *gj = b.pairs_weighted.data() + j * kBlock + i, *gk = b.pairs_weighted.data() + k * kBlock + i;
          for (int l = 0; l < kLanes; ++l) {
            gj[l] += double(c[l]) * wk[l];
            gk[l] -= double(c[l]) * wj[l];
          }
          continue;
        }
        typename RankTraits<T>::CountVec gk;
        Count* to = b.pairs.data() + k * kBlock + i;
        std::memcpy(&gk, to, sizeof gk);
        gk -= c;
        std::memcpy(to, &gk, sizeof gk);
        sum += c;
      }
      Count* to = b.pairs.data() + j * kBlock + i;
      for (int l = 0; l < kLanes; ++l) to[l] += sum[l];
    }
  }
  for (int64_t k = 0; k < J; ++k) {
    const T* p = b.pred_depth(k);
    double g[kBlock];
    if (weighted) {
      const double *w = b.weight(k), *c = b.pairs_weighted.data() + k * kBlock;
      // Without weight there is no gradient, not even a NaN one from a neighbour in the row.
      for (int i = 0; i < kBlock; ++i) g[i] = 0.5 * w[i] * c[i] + (w[i] == 0 ? 0.0 : invalid[i]);
    } else {
      const Count* c = b.pairs.data() + k * kBlock;
      for (int i = 0; i < kBlock; ++i) g[i] = 0.5 * double(c[i]) + invalid[i];
    }
    for (int i = 0; i < kBlock; ++i) sum[i] += (double(p[i]) - mean[i]) * g[i];
    if (!need_grad) continue;
    double* gz = b.g.data() + (3 * k + 2) * kBlock;
    for (int i = 0; i < kBlock; ++i) gz[i] += scale * g[i];
  }
  return sum_lanes(sum);
}

}  // namespace structloss

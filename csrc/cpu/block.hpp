// Frames side by side on the CPU: a block of a clip in structure-of-arrays form, and the terms on vectors of its frames.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "lane_rows.hpp"
#include "pack.hpp"
#include "rank.hpp"
#include "../terms.hpp"
#include "transpose.hpp"

namespace structloss {

// Frames per block: the arrays of a 17-joint block fit the first-level cache together.
constexpr int kBlock = 32;
// A row holds frames -kLead .. kBlock + kTrail - 1: the neighbours of the block's frames, and room to read whole vectors.
constexpr int kLead = 4, kTrail = 8;
constexpr int kStride = kLead + kBlock + kTrail;

// Depths in 16 bits: unequal codes tell the order of two depths, and twice as many fit a vector.
typedef int16_t CodeVec __attribute__((vector_size(32)));
constexpr int kCodeLanes = 16;
// The most joints of a frame that is counted in codes; more joints, weights, ties and doubles are ranked side by side.
constexpr int64_t kCountedJoints = Avx512::kCountedJoints;

// Numbers that are written before they are read: not set to 0 first.
template <typename T>
struct Unset : std::allocator<T> {
  template <typename U>
  struct rebind {
    using other = Unset<U>;
  };
  template <typename U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
};
template <typename T>
using Numbers = std::vector<T, Unset<T>>;

template <typename T>
struct Block {
  int64_t J = 0;
  int frames = 0;  // of the clip in this block; the rest is padding
  bool weighted = false;
  bool unread = true;      // p, d and w hold nothing yet
  Numbers<T> p, d;         // [3J][kStride]: x, y and z of joint 0, of joint 1, ...; d is the target
  Numbers<T> w;            // [J][kStride]
  Numbers<T> g;            // [3J][kBlock], gradient of the weighted total
  T valid[kStride];        // 1 for a frame of the clip, neighbours included
  T own[kStride];          // 1 for a frame of the block: what its sums count
  double delta[kStride];   // angle differences
  Numbers<int16_t> codes;  // [3J][kCodeLanes], of L_S: codes of p and d, g
  LaneMemory<T> lanes;         // of L_S
  RankScratch<T> row;          // of L_S, for more joints than lanes take

  void reserve(int64_t joints, bool with_weights) {
    J = joints;
    weighted = with_weights;
    for (auto* v : {&p, &d}) v->resize(size_t(3 * J) * kStride);
    g.resize(size_t(3 * J) * kBlock);
    if (J > kMostSorted) row.reserve(J, with_weights);
    if (RankTraits<T>::kHasCodes && J <= kCountedJoints) codes.resize(size_t(3 * J) * kCodeLanes);
    if (weighted) w.resize(size_t(J) * kStride);
  }
  // Where a row's frame stands.
  static int64_t at(int64_t row, int frame) { return row * kStride + kLead + frame; }
  const T* pred_depth(int64_t j) const { return p.data() + at(3 * j + 2, 0); }
  const T* target_depth(int64_t j) const { return d.data() + at(3 * j + 2, 0); }
  const T* weight(int64_t j) const { return w.data() + at(j, 0); }
};

// Frames of a block, as many as a vector `Vector` holds, from `frame` on: the access that terms.hpp asks for.
template <typename T, typename Vector>
struct Access {
  using V = Vector;
  static constexpr int kLanes = PackTraits<V>::kLanes;
  static constexpr bool kKeepsBones = true;
  Block<T>& b;
  int frame;

  SL_INLINE Vec3<V> pred(int64_t j) const { return load(b.p.data(), j); }
  SL_INLINE Vec3<V> target(int64_t j) const { return load(b.d.data(), j); }
  SL_INLINE V weight(int64_t j) const { return b.weighted ? load_as<V>(b.weight(j) + frame) : constant<V>(1); }
  SL_INLINE V valid() const { return load_as<V>(b.valid + kLead + frame); }
  SL_INLINE V own() const { return load_as<V>(b.own + kLead + frame); }
  SL_INLINE void add(int64_t j, const Vec3<V>& g) {
    T* to = b.g.data() + 3 * j * kBlock + frame;
    store_as(to, load_as<V>(to) + g.x);
    store_as(to + kBlock, load_as<V>(to + kBlock) + g.y);
    store_as(to + 2 * kBlock, load_as<V>(to + 2 * kBlock) + g.z);
  }
  // Whether a lane differs from 0; a NaN does.
  SL_INLINE bool any(V x) const { return any_lane(x != constant<V>(0)); }

 private:
  SL_INLINE Vec3<V> load(const T* rows, int64_t j) const {
    const T* x = rows + Block<T>::at(3 * j, frame);
    return {load_as<V>(x), load_as<V>(x + kStride), load_as<V>(x + 2 * kStride)};
  }
};
// In double, and in the poses' own dtype.
template <typename T>
using PackAccess = Access<T, Pack>;
template <typename T>
using NativeAccess = Access<T, typename RankTraits<T>::Vec>;

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
SL_INLINE void read_poses(Numbers<T>& rows, int64_t J, const T* source, const int64_t* stride, bool xy, int from,
                          int to) {
  constexpr int L = kTile<T>;
  T* first = rows.data() + Block<T>::at(0, 0);
  if (!xy) return gather(first + 2 * kStride, 3 * kStride, J, source + 2 * stride[3], stride[1], stride[2], from, to);
  const int64_t n = 3 * J;
  if (stride[3] != 1 || stride[2] != 3 || n < L) {
    for (int c = 0; c < 3; ++c)
      gather(first + c * kStride, 3 * kStride, J, source + c * stride[3], stride[1], stride[2], from, to);
    return;
  }
  // Frames are contiguous, so squares of L frames by L coordinates are turned around in registers. The last square of a
  // row overlaps the one before it.
  int t = 0;
  for (; t + L <= std::min(to, kBlock); t += L)
    for (int64_t r = 0; r < n; r += L) {
      const int64_t at = std::min(r, n - L);
      transpose(source + t * stride[1] + at, stride[1], first + at * kStride + t, kStride);
    }
  if (from < 0) gather(first, kStride, n, source, stride[1], 1, -1, 0);
  if (to > t) gather(first, kStride, n, source, stride[1], 1, t, to);
}

// Reads block `block` of a clip. Frames outside the clip, and joints without weight, are 0.
template <typename T>
SL_INLINE void read_block(const ObjectiveParams& q, const Need& need, int64_t clip, int64_t block, Block<T>& b) {
  const int64_t J = q.J, t0 = block * kBlock;
  b.frames = int(std::min<int64_t>(kBlock, q.T - t0));
  const int64_t *ps = q.pred_stride, *ds = q.target_stride, *ws = q.weight_stride;
  const int from = need.neighbours && t0 > 0 ? -1 : 0;
  const int to = need.neighbours && t0 + b.frames < q.T ? b.frames + 1 : b.frames;
  if (b.unread || b.frames < kBlock || t0 == 0) {  // what is there, or the block before left there
    for (auto* v : {&b.p, &b.d}) std::fill(v->begin(), v->end(), T(0));
    std::fill(b.w.begin(), b.w.end(), T(0));
    b.unread = false;
  } else if (need.neighbours && to == b.frames) {
    for (auto* v : {&b.p, &b.d})
      for (int64_t r = 0; r < 3 * J; ++r) (*v)[size_t(Block<T>::at(r, kBlock))] = T(0);
    if (b.weighted)
      for (int64_t j = 0; j < J; ++j) b.w[size_t(Block<T>::at(j, kBlock))] = 0;
  }
  for (int f = -kLead; f < kBlock + kTrail; ++f) {
    b.valid[kLead + f] = T(f >= from && f < to);
    b.own[kLead + f] = T(f >= 0 && f < b.frames);
  }
  read_poses(b.p, J, static_cast<const T*>(q.pred) + clip * ps[0] + t0 * ps[1], ps, need.pred_xy, from, to);
  if (need.target_z)
    read_poses(b.d, J, static_cast<const T*>(q.target) + clip * ds[0] + t0 * ds[1], ds, need.target_xy, from, to);
  if (!b.weighted) return;
  const T* w = static_cast<const T*>(q.weight) + clip * ws[0] + t0 * ws[1];
  for (int64_t j = 0; j < J; ++j) {
    for (int t = from; t < to; ++t) {
      const T weight = w[t * ws[1] + j * ws[2]];
      b.w[size_t(Block<T>::at(j, t))] = weight;
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
    for (int64_t r = 0; r < n; ++r) to[t * n + r] = b.g[size_t(r * kBlock + t)];
}

// ---- terms of one frame -------------------------------------------------------------------------------------------

// Sum of a term over the block's frames, `term` computing a vector of them.
template <typename A, typename T, typename F>
SL_INLINE double over_frames(Block<T>& b, F&& term) {
  double sum = 0;
  for (int f = 0; f < b.frames; f += A::kLanes) {
    A a{b, f};
    sum += lane_total(term(a));
  }
  return sum;
}

// ---- terms of two neighbouring frames -----------------------------------------------------------------------------

// Weight of the step from the frame before to this one: the product of both frames', 0 where either is not of the clip.
template <typename A>
SL_INLINE typename A::V step_weight(const A& now, int64_t j) {
  const A before{now.b, now.frame - 1};
  return now.valid() * before.valid() * now.weight(j) * before.weight(j);
}

// A frame's gradient is the difference of those of two steps: to it, and on from it.
template <typename T>
SL_INLINE double velocity_block(Block<T>& b, double scale, bool need_grad) {
  using A = NativeAccess<T>;
  using V = typename A::V;
  double sum = 0;
  for (int64_t j = 0; j < b.J; ++j) {
    const int last = need_grad ? b.frames + 1 : b.frames;
    V joint = constant<V>(0);
    Vec3<V> back{};  // of the frames before
    auto add = [&](int frame, const Vec3<V>& on) SL_INLINED {
      A a{b, frame};
      a.add(j, back - Vec3<V>{a_frame_on(back.x, on.x), a_frame_on(back.y, on.y), a_frame_on(back.z, on.z)});
    };
    int f = 0;
    for (; f < last; f += A::kLanes) {
      const A now{b, f}, before{b, f - 1};
      // Steps first: they are exact for coordinates far from the origin, where errors of position would not be.
      const Vec3<V> error = (now.pred(j) - before.pred(j)) - (now.target(j) - before.target(j));
      V sum = constant<V>(0);
      const Vec3<V> g = weighted_length(error, step_weight(now, j), constant<V>(scale), sum);
      joint += now.own() * sum;
      if (need_grad && f > 0) add(f - A::kLanes, g);
      back = g;
    }
    if (need_grad && f - A::kLanes < b.frames) add(f - A::kLanes, Vec3<V>{});
    sum += lane_total(joint);
  }
  return sum;
}

template <typename T>
SL_INLINE double temporal_consistency_block(Block<T>& b, const double* factors, double scale, bool need_grad) {
  using A = NativeAccess<T>;
  using V = typename A::V;
  double sum = 0;
  for (int64_t j = 0; j < b.J; ++j) {
    const double factor = factors == nullptr ? 1 : factors[j];
    const V twice = constant<V>(2 * scale * factor);
    V joint = constant<V>(0);
    for (int f = 0; f < b.frames; f += A::kLanes) {
      A now{b, f};
      const A before{b, f - 1}, after{b, f + 1};
      const Vec3<V> back = now.pred(j) - before.pred(j), on = after.pred(j) - now.pred(j);
      V next = constant<V>(0);  // counted with the frame after
      const Vec3<V> by_back = weighted_square(back, step_weight(now, j), twice, joint);
      const Vec3<V> by_on = weighted_square(on, step_weight(after, j), twice, next);
      if (need_grad) now.add(j, by_back - by_on);
    }
    sum += factor * lane_total(joint);
  }
  return sum;
}

template <typename T>
SL_INLINE double bone_angle_velocity_block(Block<T>& b, const Structure& s, double scale, bool need_grad) {
  Pack sum = {};
  for (int32_t k = 0; k < s.n_angles_velocity; ++k) {
    const Angle& angle = s.angles_velocity[k];
    double weight[kStride];
    for (int f = -kPack; f < b.frames + kPack; f += kPack) {
      const PackAccess<T> a{b, f};
      store_as(b.delta + kLead + f, predicted_angle(a, angle).angle - target_angle(a, angle));
      store_as(weight + kLead + f, a.valid() * angle_weight(a, angle));
    }
    for (int f = 0; f < b.frames; f += kPack) {
      PackAccess<T> a{b, f};
      const Pack delta = load_as<Pack>(b.delta + kLead + f), w = load_as<Pack>(weight + kLead + f);
      const Pack back = delta - load_as<Pack>(b.delta + kLead + f - 1), on = load_as<Pack>(b.delta + kLead + f + 1) - delta;
      const Pack back_weight = w * load_as<Pack>(weight + kLead + f - 1);
      sum += a.own() * back_weight * absolute(back);
      if (!need_grad) continue;
      const Pack on_weight = w * load_as<Pack>(weight + kLead + f + 1);
      add_to_angle(a, angle, predicted_angle(a, angle), scale * (back_weight * sign(back) - on_weight * sign(on)));
    }
  }
  return lane_total(sum);
}

// ---- depth ranking over the joints --------------------------------------------------------------------------------

// 16-bit codes of a depth row [kCodeLanes] a joint, growing with the depth, and the least depths; false if a frame that
// counts has a NaN, or no finite, positive range.
SL_INLINE bool joint_codes(const Block<float>& b, const Numbers<float>& rows, int first, int16_t* codes,
                           float* lowest) {
  using Vec = FloatPack;
  typedef int32_t Wide __attribute__((vector_size(32)));
  typedef int16_t Half __attribute__((vector_size(16)));
  Wide usable = Wide{} - 1;
  for (int h = 0; h < 2; ++h) {
    const int at = first + 8 * h;
    auto depth = [&](int64_t j) SL_INLINED { return load<float>(rows.data() + Block<float>::at(3 * j + 2, at)); };
    Vec low = depth(0), high = low;
    Wide ordered = low == low;
    for (int64_t j = 1; j < b.J; ++j) {
      const Vec x = depth(j);
      low = x < low ? x : low;
      high = x > high ? x : high;
      ordered &= x == x;
    }
    const Vec range = high - low, factor = 65000.0f / range, own = load<float>(b.own + kLead + at);
    const Wide good = ordered & (range > 0.0f) & (range < std::numeric_limits<float>::max()) & (factor < 1e30f);
    usable &= good | (own == 0.0f);
    write_vector(lowest + 8 * h, low);
    for (int64_t j = 0; j < b.J; ++j) {
      const Vec scaled = good ? (depth(j) - low) * factor : Vec{};
      const Half half = __builtin_convertvector(__builtin_convertvector(scaled, Wide) - 32500, Half);
      std::memcpy(codes + j * kCodeLanes + 8 * h, &half, sizeof half);
    }
  }
  bool all = true;
  for (int l = 0; l < 8; ++l) all &= usable[l] != 0;
  return all;
}

// g of L_S in 16 frames from `first` on [J][kCodeLanes], by counting pairs of codes, and the least depths. False where
// depths or codes of a frame tie, or have no codes.
SL_INLINE bool count_joints(Block<float>& b, int first, int16_t*& counted, float* low) {
  const int64_t J = b.J;
  int16_t *p = b.codes.data(), *d = p + J * kCodeLanes, *g = d + J * kCodeLanes;
  counted = g;
  float of_target[kCodeLanes];
  if (!joint_codes(b, b.p, first, p, low) || !joint_codes(b, b.d, first, d, of_target)) return false;
  auto row = [](const int16_t* rows, int64_t j) SL_INLINED {
    CodeVec v;
    std::memcpy(&v, rows + j * kCodeLanes, sizeof v);
    return v;
  };
  std::memset(g, 0, size_t(J) * kCodeLanes * sizeof *g);
  CodeVec ties = {};
  // Masks are -1: a pair (j, k) adds [d_j < d_k] - [p_j < p_k] to g_j, and takes it from g_k. Two j at a time, so that
  // g_k is fetched and stored half as often.
  int64_t j = 0;
  for (; j + 1 < J; j += 2) {
    const CodeVec p0 = row(p, j), p1 = row(p, j + 1), d0 = row(d, j), d1 = row(d, j + 1);
    const CodeVec between = (p0 < p1) - (d0 < d1);
    ties |= (p0 == p1) | (d0 == d1);
    CodeVec sum0 = row(g, j) + between, sum1 = row(g, j + 1) - between;
    for (int64_t k = j + 2; k < J; ++k) {
      const CodeVec pk = row(p, k), dk = row(d, k);
      const CodeVec c0 = (p0 < pk) - (d0 < dk), c1 = (p1 < pk) - (d1 < dk), gk = row(g, k) - (c0 + c1);
      ties |= (p0 == pk) | (d0 == dk) | (p1 == pk) | (d1 == dk);
      sum0 += c0;
      sum1 += c1;
      std::memcpy(g + k * kCodeLanes, &gk, sizeof gk);
    }
    std::memcpy(g + j * kCodeLanes, &sum0, sizeof sum0);
    std::memcpy(g + (j + 1) * kCodeLanes, &sum1, sizeof sum1);
  }
  bool tied = false;
  for (int l = 0; l < kCodeLanes; ++l) tied |= (ties[l] != 0) & (b.own[kLead + first + l] != 0.0f);
  return !tied;
}

// RePOSE's L_S. `Set` is the instruction set this is compiled for.
template <typename Set, typename T>
SL_INLINE double depth_ranking_joints_block(Block<T>& b, double scale, bool need_grad) {
  const int64_t J = b.J;
  double total = 0;
  int frame = 0;
  while (frame < b.frames) {
    if constexpr (RankTraits<T>::kHasCodes) {
      int16_t* g = nullptr;
      T low[kCodeLanes];
      if (!b.weighted && J <= Set::kCountedJoints && frame % kCodeLanes == 0 && count_joints(b, frame, g, low)) {
        typedef int16_t Quarter __attribute__((vector_size(2 * kPack)));
        double loss[kCodeLanes];
        for (int at = 0; at < kCodeLanes; at += kPack) {  // summed as side by side, to the same bits
          const Pack shift = load_as<Pack>(low + at);
          const Pack sum = lane_sum<Pack>(J, [&](int64_t j) SL_INLINED {
            Quarter few;
            std::memcpy(&few, g + j * kCodeLanes + at, sizeof few);
            const Pack by = __builtin_convertvector(few, Pack);
            if (need_grad) {
              typedef T Few __attribute__((vector_size(sizeof(T) * kPack)));
              T* gz = b.g.data() + (3 * j + 2) * kBlock + frame + at;
              write_vector(gz, read_vector<Few>(gz) + __builtin_convertvector(scale * by, Few));
            }
            return (load_as<Pack>(b.pred_depth(j) + frame + at) - shift) * by;
          });
          store_as(loss + at, sum);
        }
        for (int l = 0; l < std::min(kCodeLanes, b.frames - frame); ++l) total += loss[l];
        frame += kCodeLanes;
        continue;
      }
    }
    if (J > kMostSorted) {  // a body of a thousand joints: a frame at a time
      if (b.weighted)
        for (int64_t j = 0; j < J; ++j) b.row.w[size_t(j)] = double(b.weight(j)[frame]);
      total += hinge_row(
          Set{}, b.row, J, b.weighted, scale,
          [&](int which, T* to) {
            for (int64_t j = 0; j < J; ++j) to[j] = (which == 0 ? b.pred_depth(j) : b.target_depth(j))[frame];
          },
          [&](const T* from) {
            if (need_grad)
              for (int64_t j = 0; j < J; ++j) b.g[size_t((3 * j + 2) * kBlock + frame)] += from[j];
          });
      ++frame;
      continue;
    }
    // Frames side by side, one a lane; those beyond the block's end are 0, or the neighbour's.
    constexpr int kBytes = Set::kLongLaneBytes, kLanes = kBytes / int(sizeof(T));
    using Vec = typename Lanes<T, kBytes>::Vec;
    LaneMemory<T>& m = b.lanes;
    m.reserve(J);
    for (int64_t j = 0; j < J; ++j) {
      write_vector(m.p + j * kLanes, read_vector<Vec>(b.pred_depth(j) + frame));
      write_vector(m.d + j * kLanes, read_vector<Vec>(b.target_depth(j) + frame));
      if (b.weighted) write_vector(m.w + j * kLanes, read_vector<Vec>(b.weight(j) + frame));
    }
    double loss[kLanes];
    rank_rows(Set{}, VectorBytes<kBytes>{}, m, J, b.weighted, scale, loss);
    for (int l = 0; l < std::min(kLanes, b.frames - frame); ++l) total += loss[l];
    if (need_grad)
      for (int64_t j = 0; j < J; ++j) {
        T* gz = b.g.data() + (3 * j + 2) * kBlock + frame;
        write_vector(gz, read_vector<Vec>(gz) + read_vector<Vec>(m.g + j * kLanes));
      }
    frame += kLanes;
  }
  return total;
}

}  // namespace structloss

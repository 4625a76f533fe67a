// The terms of a whole frame: one thread per frame, on tiles of frames in shared memory. Their formulas are those of
// terms.hpp, which the CPU computes too.
#pragma once

#include "scales.hpp"

namespace structloss {

constexpr int kMostFrameThreads = 128;
constexpr int kFrameTerms = count_terms(GpuKernel::frames);

template <typename T>
struct FramesParams : CallParams<T> {
  Structure structure{};                             // in device memory
  const double *mean = nullptr, *freedom = nullptr;  // [B][bones], of limb_variance
  bool targets = false, neighbours = false;          // whether a term needs the target, the frames before and after
  bool add_to_grad = false;                          // grad holds the gradient of other terms
};

// Shared memory of a block: rows of frames, the two neighbours of the tile included where they are needed.
struct FramesMemory {
  int64_t row, weight_row, target, weight, grad, bytes;

  SL_BOTH FramesMemory(int joints, int frames, int item, bool targets, bool neighbours, bool weighted, bool need_grad) {
    const int64_t rows = frames + (neighbours ? 2 : 0);
    row = (3 * joints) | 1;  // odd, so that neighbouring frames lie in different banks
    weight_row = joints | 1;
    target = rows * row * item;
    weight = target * (targets ? 2 : 1);
    grad = weight + (weighted ? rows * weight_row * item : 0);
    bytes = grad + (need_grad ? frames * row * item : 0);
  }
};

// A frame of the tile; numbers are computed with in `Number`.
template <typename T, typename Number>
struct FrameAccess {
  using V = Number;
  static constexpr bool kKeepsBones = false;
  const T *p, *d, *w;
  T* g;

  SL_DEVICE Vec3<V> pred(int64_t j) const { return {V(p[3 * j]), V(p[3 * j + 1]), V(p[3 * j + 2])}; }
  SL_DEVICE Vec3<V> target(int64_t j) const { return {V(d[3 * j]), V(d[3 * j + 1]), V(d[3 * j + 2])}; }
  SL_DEVICE V weight(int64_t j) const { return w == nullptr ? V(1) : V(w[j]); }
  SL_DEVICE V valid() const { return V(1); }
  SL_DEVICE void add(int64_t j, const Vec3<V>& x) {
    g[3 * j] += T(x.x);
    g[3 * j + 1] += T(x.y);
    g[3 * j + 2] += T(x.z);
  }
  SL_DEVICE bool any(V x) const { return x != V(0); }
};

// Steps of the angles' errors from the frame before and to the one after, which lie `row` (weights: `weight_row`) away.
template <typename T>
SL_DEVICE double angle_velocity(FrameAccess<T, double>& now, int64_t row, int64_t weight_row, bool has_before,
                                bool has_after, const Structure& s, double scale, bool need_grad) {
  double sum = 0;
  for (int32_t k = 0; k < s.n_angles_velocity; ++k) {
    const Angle& angle = s.angles_velocity[k];
    double before = 0, at_now = 0, after = 0, weight_before = 0, weight_now = 0, weight_after = 0;
    SL_ROLLED
    for (int f = -1; f <= 1; ++f) {
      if ((f < 0 && !has_before) || (f > 0 && !has_after)) continue;
      const FrameAccess<T, double> a{now.p + f * row, now.d + f * row, now.w == nullptr ? nullptr : now.w + f * weight_row,
                                     nullptr};
      const double error = predicted_angle(a, angle).angle - target_angle(a, angle), weight = angle_weight(a, angle);
      // Not an array: with a running index it would not stay in registers.
      (f < 0 ? before : f == 0 ? at_now : after) = error;
      (f < 0 ? weight_before : f == 0 ? weight_now : weight_after) = weight;
    }
    const double back = at_now - before, on = after - at_now;
    const double back_weight = weight_now * weight_before, on_weight = weight_now * weight_after;
    if (has_before) sum += back_weight * absolute(back);
    if (!need_grad) continue;
    const double by_back = has_before ? back_weight * sign(back) : 0, by_on = has_after ? on_weight * sign(on) : 0;
    add_to_angle(now, angle, predicted_angle(now, angle), scale * (by_back - by_on));
  }
  return sum;
}

template <typename T>
SL_KERNEL(kMostFrameThreads) frames_kernel(FramesParams<T> q) {
  const int64_t clip = block_index() / q.tiles, t0 = block_index() % q.tiles * q.tile_frames;
  const int J = q.joints, n = int(q.frames - t0 < q.tile_frames ? q.frames - t0 : q.tile_frames);
  const bool weighted = q.weight.data != nullptr, need_grad = q.grad != nullptr;
  const FramesMemory memory(J, q.tile_frames, sizeof(T), q.targets, q.neighbours, weighted, need_grad);
  const int lead = q.neighbours ? 1 : 0;
  T* p = reinterpret_cast<T*>(shared_memory());
  T* d = q.targets ? reinterpret_cast<T*>(shared_memory() + memory.target) : nullptr;
  T* w = weighted ? reinterpret_cast<T*>(shared_memory() + memory.weight) : nullptr;
  T* g = need_grad ? reinterpret_cast<T*>(shared_memory() + memory.grad) : nullptr;

  for (int i = thread_index(); i < (n + 2 * lead) * J; i += thread_count()) {
    const int f = i / J, j = i - f * J;
    const int64_t t = t0 + f - lead;
    if (t < 0 || t >= q.frames) continue;
    const T weight = read_weight<T>(q.weight, clip, t, j);
    const Vec3<T> pred = where_seen(weight, read_joint<T>(q.pred, clip, t, j));
    T* to = p + f * memory.row + 3 * j;
    to[0] = pred.x;
    to[1] = pred.y;
    to[2] = pred.z;
    if (weighted) w[f * memory.weight_row + j] = weight;
    if (!q.targets) continue;
    const Vec3<T> target = where_seen(weight, read_joint<T>(q.target, clip, t, j));
    to = d + f * memory.row + 3 * j;
    to[0] = target.x;
    to[1] = target.y;
    to[2] = target.z;
  }
  if (need_grad)
    for (int i = thread_index(); i < n * int(memory.row); i += thread_count()) g[i] = T(0);
  sync_block();

  constexpr auto kTerms = terms_of<GpuKernel::frames>();
  double sums[kFrameTerms] = {};
  const Structure& s = q.structure;
  const FrameFacts facts{J, s, q.mean + clip * s.n_bones, q.freedom + clip * s.n_bones};
  for (int f = thread_index(); f < n; f += thread_count()) {
    const int64_t at = (f + lead) * memory.row;
    T* mine = need_grad ? g + f * memory.row : nullptr;
    const T *wf = weighted ? w + (f + lead) * memory.weight_row : nullptr, *df = q.targets ? d + at : nullptr;
    FrameAccess<T, T> native{p + at, df, wf, mine};
    FrameAccess<T, double> wide{p + at, df, wf, mine};
    over_terms([&](auto constant) {
      constexpr Term term = decltype(constant)::value;
      constexpr TermTraits about = kTraits[term];
      if constexpr (about.kernel == GpuKernel::frames && about.form == Form::frame) {
        if (!q.on[term]) return;
        const double scale = q.scale.of(term);
        if constexpr (about.wide) {
          sums[place_in_kernel(term)] += frame_share<term>(wide, facts, scale, need_grad);
        } else {
          sums[place_in_kernel(term)] += double(frame_share<term>(native, facts, scale, need_grad));
        }
      }
    });
    if (q.on[kBoneAngleVelocity])
      sums[place_in_kernel(kBoneAngleVelocity)] +=
          angle_velocity(wide, memory.row, memory.weight_row, t0 + f > 0, t0 + f + 1 < q.frames, s,
                         q.scale.of(kBoneAngleVelocity), need_grad);
  }
  sync_block();
  if (need_grad) {
    T* out = q.grad + (clip * q.frames + t0) * 3 * J;
    for (int i = thread_index(); i < n * 3 * J; i += thread_count()) {
      const int f = i / (3 * J);
      const T x = g[f * memory.row + (i - f * 3 * J)];
      out[i] = q.add_to_grad ? out[i] + x : x;
    }
  }
  write_block_sums(sums, kTerms.of, q.sums + block_index() * kTermCount);
}

// ---- bone lengths of a clip ---------------------------------------------------------------------------------------

struct LimbsParams {
  Input pred, weight;
  double *mean, *freedom;  // [B][bones]: out
  const Bone* bones;
  int64_t frames;
  int32_t n_bones;
};

constexpr int kLimbThreads = 256;

// One block per clip, one warp per bone.
template <typename T>
SL_KERNEL(kLimbThreads) limbs_kernel(LimbsParams q) {
  const int64_t clip = block_index();
  for (int k = warp_index(); k < q.n_bones; k += warp_count()) {
    const Bone bone = q.bones[k];
    double total = 0, squares = 0, lengths = 0;
    for (int64_t t = lane_index(); t < q.frames; t += kWarp) {
      const double child = read_weight<T>(q.weight, clip, t, bone.child);
      const double parent = read_weight<T>(q.weight, clip, t, bone.parent), weight = child * parent;
      total += weight;
      squares += weight * weight;
      if (weight == 0) continue;
      const Vec3<T> a = read_joint<T>(q.pred, clip, t, bone.child), b = read_joint<T>(q.pred, clip, t, bone.parent);
      const Vec3<double> v{double(a.x) - double(b.x), double(a.y) - double(b.y), double(a.z) - double(b.z)};
      lengths += weight * length(v);
    }
    total = warp_sum(total);
    squares = warp_sum(squares);
    lengths = warp_sum(lengths);
    if (lane_index() != 0) continue;
    q.mean[clip * q.n_bones + k] = total > 0 ? lengths / total : 0;
    q.freedom[clip * q.n_bones + k] = inverse_freedom(total, squares);
  }
}

}  // namespace structloss

// What each term's sum is divided by under "mean": counts, or with weights sums of products of weights.
#pragma once

#include <cstdint>
#include <vector>

#include "terms.hpp"

namespace structloss {

// Sums over the clips of what the means divide by, per term.
struct Counts {
  double of[kTermCount] = {};
};

inline Counts counts_without_weights(int64_t B, int64_t T, int64_t J, const Structure& s) {
  Counts c;
  const double clips = double(B), frames = clips * double(T), joints = frames * double(J);
  const double steps = clips * double(T > 1 ? T - 1 : 0);
  c.of[kMpjpe] = c.of[kWeightedMpjpe] = c.of[kNMpjpe] = joints;
  c.of[kVelocity] = steps * double(J);
  c.of[kTemporalConsistency] = 3 * steps * double(J);
  c.of[kDepthRankingJoints] = joints * double(J);
  c.of[kDepthRankingFrames] = joints * double(T);
  c.of[kBoneSymmetry] = c.of[kIllegalAngle] = c.of[kBoneRatio] = frames;
  c.of[kLimbLength] = frames * s.n_bones;
  c.of[kLimbVariance] = T > 1 ? clips * s.n_bones : 0;
  c.of[kBoneAngle] = frames * s.n_angles;
  c.of[kBoneAngleVelocity] = steps * s.n_angles_velocity;
  return c;
}

template <typename T>
Counts counts_of_clip(const ObjectiveParams& q, int64_t clip) {
  Counts c;
  const Structure& s = q.structure;
  const bool* active = q.active;
  const int64_t J = q.J, *ws = q.weight_stride;
  const T* w = static_cast<const T*>(q.weight) + clip * ws[0];
  std::vector<double> now(static_cast<size_t>(J)), before(now), column(now);
  std::vector<double> bone_sum(size_t(s.n_bones)), bone_squares(bone_sum), angle(size_t(s.n_angles_velocity)),
      angle_before(angle);
  auto bone = [&now](const Bone& b) { return now[size_t(b.child)] * now[size_t(b.parent)]; };
  for (int64_t t = 0; t < q.T; ++t) {
    double sum = 0, steps = 0;
    bool any = false;
    for (int64_t j = 0; j < J; ++j) {
      const double x = double(w[t * ws[1] + j * ws[2]]);
      now[size_t(j)] = x;
      sum += x;
      column[size_t(j)] += x;
      steps += x * before[size_t(j)];
      any |= x > 0;
    }
    c.of[kMpjpe] += sum;
    c.of[kDepthRankingJoints] += sum * sum;
    c.of[kBoneSymmetry] += any;
    c.of[kVelocity] += steps;
    if (active[kLimbLength])
      for (int32_t k = 0; k < s.n_bones; ++k) c.of[kLimbLength] += bone(s.bones[k]);
    if (active[kLimbVariance])
      for (int32_t k = 0; k < s.n_bones; ++k) {
        const double x = bone(s.bones[k]);
        bone_sum[size_t(k)] += x;
        bone_squares[size_t(k)] += x * x;
      }
    for (int32_t k = 0; k < s.n_angles; ++k)
      c.of[kBoneAngle] += bone(s.angles[k].first) * now[size_t(s.angles[k].other)];
    for (int32_t k = 0; k < s.n_angles_velocity; ++k) {
      angle[size_t(k)] = bone(s.angles_velocity[k].first) * now[size_t(s.angles_velocity[k].other)];
      c.of[kBoneAngleVelocity] += angle[size_t(k)] * angle_before[size_t(k)];
    }
    now.swap(before);
    angle.swap(angle_before);
  }
  for (double x : column) c.of[kDepthRankingFrames] += x * x;
  if (active[kLimbVariance])
    for (int32_t k = 0; k < s.n_bones; ++k)
      c.of[kLimbVariance] += inverse_freedom(bone_sum[size_t(k)], bone_squares[size_t(k)]) > 0;
  c.of[kWeightedMpjpe] = double(q.T) * double(J);
  c.of[kNMpjpe] = c.of[kMpjpe];
  c.of[kTemporalConsistency] = 3 * c.of[kVelocity];
  c.of[kIllegalAngle] = c.of[kBoneRatio] = c.of[kBoneSymmetry];
  return c;
}

}  // namespace structloss

// What each kind of mean divides by: counts, or with weights sums of products of weights.
#pragma once

#include <cstdint>
#include <vector>

#include "terms.hpp"

namespace structloss {

// Sums over the clips of what the means divide by, per kind of denominator.
struct Counts {
  double of[kDenominatorCount] = {};

  double& operator[](Denominator kind) { return of[int(kind)]; }
  double operator[](Denominator kind) const { return of[int(kind)]; }
};

inline Counts counts_without_weights(int64_t B, int64_t T, int64_t J, const Structure& s) {
  using D = Denominator;
  Counts c;
  const double clips = double(B), frames = clips * double(T), joints = frames * double(J);
  const double steps = clips * double(T > 1 ? T - 1 : 0);
  c[D::joint_weights] = c[D::joints] = joints;
  c[D::steps] = steps * double(J);
  c[D::step_coordinates] = 3 * steps * double(J);
  c[D::joint_pairs] = joints * double(J);
  c[D::frame_pairs] = joints * double(T);
  c[D::frames] = frames;
  c[D::bones] = frames * s.n_bones;
  c[D::varying_bones] = T > 1 ? clips * s.n_bones : 0;
  c[D::angles] = frames * s.n_angles;
  c[D::angle_steps] = steps * s.n_angles_velocity;
  return c;
}

template <typename T>
Counts counts_of_clip(const ObjectiveParams& q, int64_t clip) {
  using D = Denominator;
  Counts c;
  const Structure& s = q.structure;
  const bool of_bones = divides_by(q.active, D::bones), of_varying = divides_by(q.active, D::varying_bones);
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
    c[D::joint_weights] += sum;
    c[D::joint_pairs] += sum * sum;
    c[D::frames] += any;
    c[D::steps] += steps;
    if (of_bones)
      for (int32_t k = 0; k < s.n_bones; ++k) c[D::bones] += bone(s.bones[k]);
    if (of_varying)
      for (int32_t k = 0; k < s.n_bones; ++k) {
        const double x = bone(s.bones[k]);
        bone_sum[size_t(k)] += x;
        bone_squares[size_t(k)] += x * x;
      }
    for (int32_t k = 0; k < s.n_angles; ++k)
      c[D::angles] += bone(s.angles[k].first) * now[size_t(s.angles[k].other)];
    for (int32_t k = 0; k < s.n_angles_velocity; ++k) {
      angle[size_t(k)] = bone(s.angles_velocity[k].first) * now[size_t(s.angles_velocity[k].other)];
      c[D::angle_steps] += angle[size_t(k)] * angle_before[size_t(k)];
    }
    now.swap(before);
    angle.swap(angle_before);
  }
  for (double x : column) c[D::frame_pairs] += x * x;
  if (of_varying)
    for (int32_t k = 0; k < s.n_bones; ++k)
      c[D::varying_bones] += inverse_freedom(bone_sum[size_t(k)], bone_squares[size_t(k)]) > 0;
  c[D::joints] = double(q.T) * double(J);
  c[D::step_coordinates] = 3 * c[D::steps];
  return c;
}

}  // namespace structloss

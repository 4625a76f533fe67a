// The local terms: what a frame (or a step between two) adds to each loss, and its gradient.
//
// One source for every processor. `A` gives access to a frame, or to several side by side:
//
//   A::V                    a number, or a vector of numbers, one per frame; constant<V>(), root(), exponential() and
//                           arc_cosine() of it are declared before this file is included
//   a.pred(j), a.target(j)  joint j; what has no weight is 0
//   a.weight(j)             its weight
//   a.valid()               1 for a frame of the clip, 0 for padding
//   a.add(j, g)             adds to the gradient of joint j
//   a.any(x)                whether x is not 0, in any of the frames
//   A::kKeepsBones          whether it is worth keeping a group of bones in local arrays
//
// Every function returns the sum's unscaled share of the frame and adds scale * d(share)/d(pred). Lengths have no slope
// at 0: there, and for |x| at 0, the gradient is 0.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "params.h"

#if defined(__CUDACC__)
#define SL_FUNCTION __device__ __forceinline__
#define SL_ANYWHERE __host__ __device__ __forceinline__
#else
#define SL_FUNCTION inline __attribute__((always_inline))
#define SL_ANYWHERE SL_FUNCTION
#endif

namespace structloss {

// Beyond this, u exp(u) continues as its tangent: poses in millimetres would overflow it.
constexpr double kLinearFrom = 20.0;
// As published: shorter bones count as this long in a cosine, and cosines stay this far from 1.
constexpr double kShortest = 1e-8;
constexpr double kCosineMargin = 1e-7;
// The degrees of freedom of a bone's variance that are more than rounding, as a share of its weight.
constexpr double kLeastFreedom = 1e-12;

template <class V>
struct Vec3 {
  V x, y, z;
};
template <class V>
SL_FUNCTION Vec3<V> operator-(const Vec3<V>& a, const Vec3<V>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <class V>
SL_FUNCTION Vec3<V> operator+(const Vec3<V>& a, const Vec3<V>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}
template <class V>
SL_FUNCTION Vec3<V> operator*(const V& s, const Vec3<V>& a) {
  return {s * a.x, s * a.y, s * a.z};
}
template <class V>
SL_FUNCTION Vec3<V> operator-(const Vec3<V>& a) {
  return {-a.x, -a.y, -a.z};
}
template <class V>
SL_FUNCTION V dot(const Vec3<V>& a, const Vec3<V>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class V>
SL_FUNCTION Vec3<V> cross(const Vec3<V>& a, const Vec3<V>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
template <class V>
SL_FUNCTION V length(const Vec3<V>& a) {
  return root(dot(a, a));
}
// 1 / x, and 0 for 0.
template <class V>
SL_FUNCTION V inverse(const V& x) {
  const V zero = constant<V>(0);
  return x == zero ? zero : constant<V>(1) / x;
}
template <class V>
SL_FUNCTION V absolute(const V& x) {
  return x < constant<V>(0) ? -x : x;
}
// -1, 0 or 1
template <class V>
SL_FUNCTION V sign(const V& x) {
  const V zero = constant<V>(0);
  return x > zero ? constant<V>(1) : (x < zero ? constant<V>(-1) : zero);
}

template <class A>
SL_FUNCTION Vec3<typename A::V> bone_vector(const A& a, const Bone& b) {
  return a.pred(b.child) - a.pred(b.parent);
}
template <class A>
SL_FUNCTION Vec3<typename A::V> target_bone_vector(const A& a, const Bone& b) {
  return a.target(b.child) - a.target(b.parent);
}
template <class A>
SL_FUNCTION typename A::V bone_weight(const A& a, const Bone& b) {
  return a.weight(b.child) * a.weight(b.parent);
}
template <class A>
SL_FUNCTION void add_to_bone(A& a, const Bone& b, const Vec3<typename A::V>& g) {
  a.add(b.child, g);
  a.add(b.parent, -g);
}

// Adds weight |x| to `sum`; returns the gradient of scale weight |x|.
template <class V>
SL_FUNCTION Vec3<V> weighted_length(const Vec3<V>& x, const V& weight, const V& scale, V& sum) {
  const V len = length(x);
  sum += weight * len;
  return (scale * weight * inverse(len)) * x;
}
// Adds weight |x|^2 to `sum`; returns the gradient, `twice` being 2 scale.
template <class V>
SL_FUNCTION Vec3<V> weighted_square(const Vec3<V>& x, const V& weight, const V& twice, V& sum) {
  sum += weight * dot(x, x);
  return (twice * weight) * x;
}

// ---- positions ----------------------------------------------------------------------------------------------------

// MPJPE, and weighted MPJPE with `factors` [J].
template <class A>
SL_FUNCTION typename A::V position_error(A& a, int64_t J, const double* factors, double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  for (int64_t j = 0; j < J; ++j) {
    V weight = a.weight(j);
    if (factors != nullptr) weight = weight * constant<V>(factors[j]);
    const Vec3<V> g = weighted_length(a.pred(j) - a.target(j), weight, constant<V>(scale), sum);
    if (need_grad) a.add(j, g);
  }
  return sum;
}

template <class A>
SL_FUNCTION typename A::V n_mpjpe(A& a, int64_t J, double scale, bool need_grad) {
  using V = typename A::V;
  V square = constant<V>(0), product = constant<V>(0), sum = constant<V>(0), by_scale = constant<V>(0);
  for (int64_t j = 0; j < J; ++j) {
    const Vec3<V> p = a.pred(j);
    const V weight = a.weight(j);
    square += weight * dot(p, p);
    product += weight * dot(p, a.target(j));
  }
  const V zero = constant<V>(0), one = constant<V>(1);
  // Divided rather than multiplied by the inverse: the scale of a perfect prediction is exactly 1.
  const V inv = inverse(square), s = square == zero ? zero : product / (square == zero ? one : square);
  for (int64_t j = 0; j < J; ++j) {
    const Vec3<V> p = a.pred(j), difference = s * p - a.target(j);
    const V error = length(difference), weight = a.weight(j);
    sum += weight * error;
    by_scale += weight * inverse(error) * dot(difference, p);
  }
  if (!need_grad) return sum;
  for (int64_t j = 0; j < J; ++j) {
    const Vec3<V> p = a.pred(j), g = a.target(j), difference = s * p - g;
    const V weight = a.weight(j), direct = s * weight * inverse(length(difference));
    // The scale depends on every joint of the frame.
    a.add(j, (scale * direct) * difference + (scale * by_scale * inv * weight) * (g - (2.0 * s) * p));
  }
  return sum;
}

// ---- anatomy ------------------------------------------------------------------------------------------------------

template <class A>
SL_FUNCTION typename A::V bone_symmetry(A& a, const Structure& s, double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  for (int32_t k = 0; k < s.n_symmetric; ++k) {
    const Mirrored& m = s.symmetric[k];
    const Vec3<V> right = bone_vector(a, m.right), left = bone_vector(a, m.left);
    const V right_length = length(right), left_length = length(left), difference = right_length - left_length;
    const V weight = bone_weight(a, m.right) * bone_weight(a, m.left);
    V slope;
    if (s.symmetric_squared) {
      sum += weight * difference * difference;
      slope = constant<V>(2) * weight * difference;
    } else {
      sum += weight * absolute(difference);
      slope = weight * sign(difference);
    }
    if (!need_grad) continue;
    slope = constant<V>(scale) * slope;
    add_to_bone(a, m.right, (slope * inverse(right_length)) * right);
    add_to_bone(a, m.left, (-slope * inverse(left_length)) * left);
  }
  return sum;
}

template <class A>
SL_FUNCTION typename A::V illegal_angle(A& a, const Structure& s, double scale, bool need_grad) {
  using V = typename A::V;
  const V zero = constant<V>(0), most = constant<V>(kLinearFrom);
  V sum = zero;
  for (int32_t k = 0; k < s.n_hinges; ++k) {
    const HingeChain& h = s.hinges[k];
    const Vec3<V> A0 = a.pred(h.a), B = a.pred(h.b), C = a.pred(h.c), D = a.pred(h.d);
    Vec3<V> v1 = B - A0, v2 = C - B, v3 = D - C;
    V i1 = zero, i2 = zero, i3 = zero;
    if (s.hinge_unit_bones) {
      i1 = inverse(length(v1));
      i2 = inverse(length(v2));
      i3 = inverse(length(v3));
      v1 = i1 * v1;
      v2 = i2 * v2;
      v3 = i3 * v3;
    }
    const V factor = constant<V>(h.sign * s.hinge_scale);
    const Vec3<V> normal = cross(v1, v2);
    const V over = factor * dot(normal, v3) - constant<V>(s.hinge_tolerance);
    const V u = over <= zero ? zero : over;  // keeps a NaN
    if (!a.any(u)) continue;
    const V weight = a.weight(h.a) * a.weight(h.b) * a.weight(h.c) * a.weight(h.d);
    const V bounded = u > most ? most : u, power = exponential(bounded);
    const V slope = (constant<V>(1) + bounded) * power;
    sum += weight * (bounded * power + (u - bounded) * slope);
    if (!need_grad) continue;
    const V g = constant<V>(scale) * factor * weight * (u == zero ? zero : slope);
    Vec3<V> g1 = g * cross(v2, v3), g2 = g * cross(v3, v1), g3 = g * normal;
    if (s.hinge_unit_bones) {  // only what turns a bone counts, and a bone of no length turns nowhere
      g1 = i1 * (g1 - dot(g1, v1) * v1);
      g2 = i2 * (g2 - dot(g2, v2) * v2);
      g3 = i3 * (g3 - dot(g3, v3) * v3);
    }
    a.add(h.a, -g1);
    a.add(h.b, g1 - g2);
    a.add(h.c, g2 - g3);
    a.add(h.d, g3);
  }
  return sum;
}

template <class A>
SL_FUNCTION typename A::V bone_ratio(A& a, const Structure& s, double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  int32_t begin = 0;
  for (int32_t group = 0; group < s.n_groups; begin = s.group_end[group++]) {
    const RatioBone* bones = s.ratio_bones + begin;
    const int32_t n = s.group_end[group] - begin;
    // Kept between the two passes, unless that would take a GPU's registers.
    Vec3<V> vectors[A::kKeepsBones ? kMostGroupBones : 1];
    V lengths[A::kKeepsBones ? kMostGroupBones : 1];
    V count = constant<V>(0), total = constant<V>(0), squares = constant<V>(0);
    for (int32_t k = 0; k < n; ++k) {
      const Vec3<V> vector = bone_vector(a, bones[k].bone);
      const V len = length(vector), weight = bone_weight(a, bones[k].bone);
      if (A::kKeepsBones) {
        vectors[k] = vector;
        lengths[k] = len;
      }
      count += weight;
      total += weight * constant<V>(bones[k].factor) * len;
    }
    const V inv = inverse(count), mean = total * inv;
    for (int32_t k = 0; k < n; ++k) {
      const Vec3<V> vector = A::kKeepsBones ? vectors[k] : bone_vector(a, bones[k].bone);
      const V len = A::kKeepsBones ? lengths[k] : length(vector);
      const V deviation = constant<V>(bones[k].factor) * len - mean;
      const V weighted = bone_weight(a, bones[k].bone) * deviation;
      squares += weighted * deviation;
      // The slope through the mean cancels.
      if (need_grad)
        add_to_bone(a, bones[k].bone, (constant<V>(2 * scale * bones[k].factor) * weighted * inv * inverse(len)) * vector);
    }
    sum += squares * inv;
  }
  return sum;
}

// ---- bones and angles ---------------------------------------------------------------------------------------------

template <class A>
SL_FUNCTION typename A::V limb_length(A& a, const Structure& s, double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  for (int32_t k = 0; k < s.n_bones; ++k) {
    const Vec3<V> vector = bone_vector(a, s.bones[k]);
    const V len = length(vector), difference = len - length(target_bone_vector(a, s.bones[k]));
    const V weight = bone_weight(a, s.bones[k]);
    sum += weight * absolute(difference);
    if (need_grad) add_to_bone(a, s.bones[k], (scale * weight * sign(difference) * inverse(len)) * vector);
  }
  return sum;
}

// 1 / degrees of freedom of a weighted variance from sums of the weights and their squares; 0 if it has none.
SL_ANYWHERE double inverse_freedom(double total, double squares) {
  if (!(total > 0)) return 0;
  const double freedom = total - squares / total;
  return freedom > kLeastFreedom * total ? 1 / freedom : 0;
}

// `mean` and `freedom` [bones] are those of the clip: mean length, 1 / degrees of freedom (0: no variance).
template <class A>
SL_FUNCTION typename A::V limb_variance(A& a, const Structure& s, const double* mean, const double* freedom,
                                        double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  for (int32_t k = 0; k < s.n_bones; ++k) {
    const Vec3<V> vector = bone_vector(a, s.bones[k]);
    const V len = length(vector), deviation = len - mean[k];
    const V weight = a.valid() * bone_weight(a, s.bones[k]) * freedom[k];
    sum += weight * deviation * deviation;
    if (need_grad) add_to_bone(a, s.bones[k], (2.0 * scale * weight * deviation * inverse(len)) * vector);
  }
  return sum;
}

// Angle between two bones and what its gradient needs.
template <class V>
struct AngleValue {
  Vec3<V> u, v;  // unit vectors
  V inv_u, inv_v, cosine, angle, slope;  // slope of the angle over the cosine, 0 where it has none
};
template <class V>
SL_FUNCTION AngleValue<V> angle_between(const Vec3<V>& first, const Vec3<V>& second) {
  AngleValue<V> r;
  const V zero = constant<V>(0), one = constant<V>(1), shortest = constant<V>(kShortest);
  const V limit = constant<V>(1 - kCosineMargin);
  const V lu = length(first), lv = length(second);
  r.inv_u = one / (lu < shortest ? shortest : lu);
  r.inv_v = one / (lv < shortest ? shortest : lv);
  r.u = r.inv_u * first;
  r.v = r.inv_v * second;
  r.cosine = dot(r.u, r.v);
  const V clamped = r.cosine > limit ? limit : (r.cosine < -limit ? -limit : r.cosine);
  r.angle = arc_cosine(clamped);
  const auto flat = (absolute(r.cosine) > limit) | (lu <= shortest) | (lv <= shortest);
  r.slope = flat ? zero : -one / root(one - clamped * clamped);
  return r;
}
template <class A>
SL_FUNCTION AngleValue<typename A::V> predicted_angle(const A& a, const Angle& k) {
  return angle_between(bone_vector(a, k.first), bone_vector(a, k.second));
}
template <class A>
SL_FUNCTION typename A::V target_angle(const A& a, const Angle& k) {
  return angle_between(target_bone_vector(a, k.first), target_bone_vector(a, k.second)).angle;
}
template <class A>
SL_FUNCTION typename A::V angle_weight(const A& a, const Angle& k) {
  return bone_weight(a, k.first) * a.weight(k.other);
}
// Adds `g`, the gradient of an angle, to that of its joints.
template <class A>
SL_FUNCTION void add_to_angle(A& a, const Angle& k, const AngleValue<typename A::V>& at, const typename A::V& g) {
  const auto slope = g * at.slope;
  add_to_bone(a, k.first, (slope * at.inv_u) * (at.v - at.cosine * at.u));
  add_to_bone(a, k.second, (slope * at.inv_v) * (at.u - at.cosine * at.v));
}

template <class A>
SL_FUNCTION typename A::V bone_angle(A& a, const Structure& s, double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  for (int32_t k = 0; k < s.n_angles; ++k) {
    const AngleValue<V> at = predicted_angle(a, s.angles[k]);
    const V difference = at.angle - target_angle(a, s.angles[k]), weight = angle_weight(a, s.angles[k]);
    sum += weight * absolute(difference);
    if (need_grad) add_to_angle(a, s.angles[k], at, scale * weight * sign(difference));
  }
  return sum;
}

// ---- all of them by number ----------------------------------------------------------------------------------------

// What the formulas are told besides a frame's joints.
struct FrameFacts {
  int64_t J;
  const Structure& s;
  const double *limb_mean, *limb_freedom;  // [bones], of limb_variance
};

// The share of a term of Form::frame, by its formula.
template <Term kTerm, class A>
SL_FUNCTION typename A::V frame_share(A& a, const FrameFacts& facts, double scale, bool need_grad) {
  static_assert(kTraits[kTerm].form == Form::frame, "the term is no sum over single frames");
  const int64_t J = facts.J;
  const Structure& s = facts.s;
  if constexpr (kTerm == kMpjpe) {
    return position_error(a, J, nullptr, scale, need_grad);
  } else if constexpr (kTerm == kWeightedMpjpe) {
    return position_error(a, J, s.weighted_mpjpe_joints, scale, need_grad);
  } else if constexpr (kTerm == kNMpjpe) {
    return n_mpjpe(a, J, scale, need_grad);
  } else if constexpr (kTerm == kBoneSymmetry) {
    return bone_symmetry(a, s, scale, need_grad);
  } else if constexpr (kTerm == kIllegalAngle) {
    return illegal_angle(a, s, scale, need_grad);
  } else if constexpr (kTerm == kBoneRatio) {
    return bone_ratio(a, s, scale, need_grad);
  } else if constexpr (kTerm == kLimbLength) {
    return limb_length(a, s, scale, need_grad);
  } else if constexpr (kTerm == kLimbVariance) {
    return limb_variance(a, s, facts.limb_mean, facts.limb_freedom, scale, need_grad);
  } else if constexpr (kTerm == kBoneAngle) {
    return bone_angle(a, s, scale, need_grad);
  } else {
    static_assert(kTerm == kTermCount, "a term of Form::frame has no formula here");
  }
}

// Calls f(std::integral_constant<Term, ...>) for every term, in order.
template <typename F, int... kTerms>
SL_FUNCTION void over_terms(std::integer_sequence<int, kTerms...>, F&& f) {
  (f(std::integral_constant<Term, Term(kTerms)>{}), ...);
}
template <typename F>
SL_FUNCTION void over_terms(F&& f) {
  over_terms(std::make_integer_sequence<int, kTermCount>{}, f);
}

}  // namespace structloss

// The bridge between Python and the kernels: plain integers, pointers and sizes. Nothing here knows torch.
#pragma once

#include <cstdint>

namespace structloss {

enum class DType : int32_t { f32 = 0, f64 = 1 };

// Terms this core computes, in the order of structloss/terms.py; Python asks for `term_traits()` and never repeats the
// numbering.
enum Term : int32_t {
  kMpjpe = 0,
  kWeightedMpjpe,
  kNMpjpe,
  kVelocity,
  kTemporalConsistency,
  kDepthRankingJoints,
  kDepthRankingFrames,
  kBoneSymmetry,
  kIllegalAngle,
  kBoneRatio,
  kLimbLength,
  kLimbVariance,
  kBoneAngle,
  kBoneAngleVelocity,
  kTermCount
};

// What a term's mean divides by: a count of these, or with weights a sum of products of weights. denominators.hpp says
// how much that is.
enum class Denominator : int32_t {
  joint_weights = 0,  // of joints
  joints,             // whatever their weights
  steps,              // of joints, from one frame to the next
  step_coordinates,   // three per step
  joint_pairs,        // ordered pairs of joints of a frame
  frame_pairs,        // ordered pairs of frames of a joint
  frames,             // with a joint that has weight
  bones,
  varying_bones,  // of clips, if seen in two frames or more
  angles,
  angle_steps,
  count
};
constexpr int kDenominatorCount = int(Denominator::count);

inline const char* denominator_name(Denominator denominator) {
  constexpr const char* names[kDenominatorCount] = {"joint_weights", "joints",      "steps",  "step_coordinates",
                                                    "joint_pairs",   "frame_pairs", "frames", "bones",
                                                    "varying_bones", "angles",      "angle_steps"};
  return names[int(denominator)];
}

// How a term is put together.
enum class Form : int32_t {
  frame,    // a sum over frames, each by itself: `frame_share` in terms.hpp, and nothing else
  steps,    // needs the frames before and after
  ranking,  // of depths
};

// The GPU kernel that computes a term: one thread per joint or row, or one per frame.
enum class GpuKernel : int32_t { clips, frames };

struct TermTraits {
  Term term;
  const char* name;
  bool needs_target;
  bool needs_xy;  // and not depths alone
  Form form;
  bool wide;  // computed in double whatever the poses' dtype: sums and scales of whole frames, angles
  GpuKernel kernel;
  Denominator denominator;
};

// The table of the terms: what is read, the kernels of a call and its denominators follow from it. A row's place is its
// term's number. tests/test_backends.py compares it with the table in Python.
constexpr TermTraits kTraits[kTermCount] = {
    // term, name, target, xy, form, wide, GPU kernel, denominator
    {kMpjpe, "mpjpe", true, true, Form::frame, false, GpuKernel::clips, Denominator::joint_weights},
    {kWeightedMpjpe, "weighted_mpjpe", true, true, Form::frame, false, GpuKernel::clips, Denominator::joints},
    {kNMpjpe, "n_mpjpe", true, true, Form::frame, true, GpuKernel::frames, Denominator::joint_weights},
    {kVelocity, "velocity", true, true, Form::steps, false, GpuKernel::clips, Denominator::steps},
    {kTemporalConsistency, "temporal_consistency", false, true, Form::steps, false, GpuKernel::clips,
     Denominator::step_coordinates},
    {kDepthRankingJoints, "depth_ranking_joints", true, false, Form::ranking, false, GpuKernel::clips,
     Denominator::joint_pairs},
    {kDepthRankingFrames, "depth_ranking_frames", true, false, Form::ranking, false, GpuKernel::clips,
     Denominator::frame_pairs},
    {kBoneSymmetry, "bone_symmetry", false, true, Form::frame, false, GpuKernel::frames, Denominator::frames},
    {kIllegalAngle, "illegal_angle", false, true, Form::frame, false, GpuKernel::frames, Denominator::frames},
    {kBoneRatio, "bone_ratio", false, true, Form::frame, false, GpuKernel::frames, Denominator::frames},
    {kLimbLength, "limb_length", true, true, Form::frame, true, GpuKernel::frames, Denominator::bones},
    {kLimbVariance, "limb_variance", false, true, Form::frame, true, GpuKernel::frames, Denominator::varying_bones},
    {kBoneAngle, "bone_angle", true, true, Form::frame, true, GpuKernel::frames, Denominator::angles},
    {kBoneAngleVelocity, "bone_angle_velocity", true, true, Form::steps, true, GpuKernel::frames,
     Denominator::angle_steps},
};

constexpr bool traits_in_order() {
  for (int k = 0; k < kTermCount; ++k)
    if (kTraits[k].term != k || kTraits[k].name == nullptr) return false;
  return true;
}
static_assert(traits_in_order(), "a term's row in kTraits is missing or in another place than its number");

inline const char* term_name(int term) { return kTraits[term].name; }

// Whether an active term has what `has` asks of its traits.
template <typename F>
bool any_term(const bool* active, F&& has) {
  for (const TermTraits& traits : kTraits)
    if (active[traits.term] && has(traits)) return true;
  return false;
}
inline bool divides_by(const bool* active, Denominator denominator) {
  return any_term(active, [denominator](const TermTraits& t) { return t.denominator == denominator; });
}

enum class Reduction : int32_t { mean = 0, sum = 1 };

// Signature of the C symbol `torch_parallel_for` (libtorch, torch >= 2.10): torch's own pool, handed in as a pointer.
using ParallelBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, ParallelBody body, void* context);

struct Threads {
  ParallelFor parallel_for = nullptr;  // null: serial
  int64_t count = 1;
};

struct Bone {
  int32_t child, parent;
};

// Two bones that meet in a joint; `other` is the joint of the second that isn't one of the first.
struct Angle {
  Bone first, second;
  int32_t other;
};

struct Mirrored {
  Bone right, left;
};

// Chain A-B-C-D; `sign` makes the triple product of an illegal bend positive.
struct HingeChain {
  int32_t a, b, c, d;
  double sign;
};

// Bones of a group whose length ratios are compared, at most.
constexpr int kMostGroupBones = 8;

struct RatioBone {
  Bone bone;
  double factor;
};

// Skeleton and options, as structloss.ops.structure resolves them; empty where no active term needs them.
struct Structure {
  const Bone* bones = nullptr;
  const Angle* angles = nullptr;
  const Angle* angles_velocity = nullptr;
  const Mirrored* symmetric = nullptr;
  const HingeChain* hinges = nullptr;
  const RatioBone* ratio_bones = nullptr;  // of all groups, one after the other
  const int32_t* group_end = nullptr;      // [groups], ends in ratio_bones
  const double* weighted_mpjpe_joints = nullptr;        // [J], null: 1
  const double* temporal_consistency_joints = nullptr;  // [J], null: 1
  int32_t n_bones = 0, n_angles = 0, n_angles_velocity = 0, n_symmetric = 0, n_hinges = 0, n_groups = 0;
  bool symmetric_squared = false, hinge_unit_bones = false;
  double hinge_scale = 1, hinge_tolerance = 0;
};

// Poses [B, T, J, 3] and weights [B, T, J] of any strides (in elements); grad is contiguous [B, T, J, 3].
struct ObjectiveParams {
  DType dtype;
  const void* pred;
  const void* target;  // null: no active term needs it
  const void* weight;  // null: every weight is 1
  void* grad;          // null: no gradient
  double* values;      // [kTermCount], unweighted value of each active term
  int64_t B, T, J;
  int64_t pred_stride[4];
  int64_t target_stride[4];
  int64_t weight_stride[3];
  bool active[kTermCount];
  double lambda[kTermCount];
  Structure structure;
  Reduction reduction;
};

// Rows [R, N] with a row and an element stride; grad is contiguous [R, N].
struct RankingParams {
  DType dtype;
  const void* pred;
  const void* target;
  const void* weight;  // null: every weight is 1
  void* grad;          // null: no gradient
  double* value;       // [1]
  int64_t R, N;
  int64_t pred_stride[2];
  int64_t target_stride[2];
  int64_t weight_stride[2];
  Reduction reduction;
};

void objective(const ObjectiveParams& params, const Threads& threads);
void ranking_hinge(const RankingParams& params, const Threads& threads);

}  // namespace structloss

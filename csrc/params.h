// The bridge between Python and the kernels: plain integers, pointers and sizes. Nothing here knows torch.
#pragma once

#include <cstdint>

namespace structloss {

enum class DType : int32_t { f32 = 0, f64 = 1 };

// Terms this core computes. Python asks for `term_names()` and never repeats the numbering.
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

inline const char* term_name(int term) {
  constexpr const char* names[kTermCount] = {
      "mpjpe",         "weighted_mpjpe", "n_mpjpe",    "velocity",    "temporal_consistency", "depth_ranking_joints",
      "depth_ranking_frames", "bone_symmetry",  "illegal_angle", "bone_ratio", "limb_length", "limb_variance",
      "bone_angle",    "bone_angle_velocity"};
  return names[term];
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

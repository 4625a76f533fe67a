// The bridge between Python and the kernels: plain integers, pointers and sizes. Nothing here knows torch.
#pragma once

#include <cstdint>

namespace structloss {

enum class DType : int32_t { f32 = 0, f64 = 1 };

// Terms this core computes. Python asks for `term_names()` and never repeats the numbering.
enum Term : int32_t { kMpjpe = 0, kDepthRankingJoints = 1, kDepthRankingFrames = 2, kTermCount = 3 };

inline const char* term_name(int term) {
  constexpr const char* names[kTermCount] = {"mpjpe", "depth_ranking_joints", "depth_ranking_frames"};
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

// Poses [B, T, J, 3] and weights [B, T, J] of any strides (in elements); grad is contiguous [B, T, J, 3].
struct ObjectiveParams {
  DType dtype;
  const void* pred;
  const void* target;
  const void* weight;  // null: every weight is 1
  void* grad;          // null: no gradient
  double* values;      // [kTermCount], unweighted value of each active term
  int64_t B, T, J;
  int64_t pred_stride[4];
  int64_t target_stride[4];
  int64_t weight_stride[3];
  bool active[kTermCount];
  double lambda[kTermCount];
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

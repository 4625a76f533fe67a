// What Python asks of the GPU library: plain integers, pointers and sizes, mirrored in structloss/ops/cuda_call.py and, for parts,
// structloss/ops/parts/cuda_impl.py.
#pragma once

#include <cstdint>

#include "../params.h"

namespace structloss {

struct TensorRequest {
  const void* data;  // null: absent
  int64_t stride[4];
  int32_t type;   // InputType
  int32_t packed;  // contiguous and aligned to 16 bytes
};

// Tables of the skeleton, one after the other in host memory, and where each begins (bytes).
struct TablesRequest {
  const void* data;
  int64_t bytes;
  int32_t bones, angles, angles_velocity, symmetric, hinges, ratio_bones, group_end;
  int32_t weighted_mpjpe_joints, temporal_consistency_joints;  // -1: absent
  int32_t n_bones, n_angles, n_angles_velocity, n_symmetric, n_hinges, n_groups;
  int32_t symmetric_squared, hinge_unit_bones, unused;
  double hinge_scale, hinge_tolerance;
};

struct ObjectiveRequest {
  void* stream;
  int32_t device;
  int32_t dtype;  // DType: what is computed in, and the type of the results
  TensorRequest pred, target, weight;
  void *grad, *total, *values;  // grad null: no gradient
  void* workspace;
  int64_t B, T, J;
  const void* lambdas;  // [n_terms] in device memory, or null
  double lambda[kTermCount];
  int32_t term[kTermCount];
  int32_t n_terms;
  int32_t reduction;  // Reduction
  TablesRequest tables;
};

// Rows [R, N]; of the strides the first two count.
struct RankingRequest {
  void* stream;
  int32_t device;
  int32_t dtype;
  TensorRequest pred, target, weight;
  void *grad, *value;
  void* workspace;
  int64_t R, N;
  int64_t reduction;
};

// Parts of a shape template: drawn, or with `grad` the gradient of their matrices.
struct PartsRequest {
  void* stream;
  int32_t device;
  int32_t dtype;
  const void* matrices;   // [parts][2][3]
  const void* templates;  // [template_parts][6]
  const void* grad;       // [parts / template_parts][template_parts][size][size], or null
  int64_t grad_stride[4];
  void* out;  // [parts][size][size], or [parts][2][3]
  void* workspace;
  int64_t parts, template_parts, size;
};

}  // namespace structloss

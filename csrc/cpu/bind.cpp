// Python module `structloss.kernels._cpu`: pointers and sizes in, GIL released while the kernels run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../params.h"
#include "instruction_sets.hpp"
#include "parts.hpp"

namespace py = pybind11;
using namespace structloss;

namespace {

DType dtype_of(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "float64") return DType::f64;
  throw py::value_error("dtype is '" + name + "', expected 'float32' or 'float64'.");
}

Reduction reduction_of(const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  throw py::value_error("reduction is '" + name + "', expected 'mean' or 'sum'.");
}

Threads threads_of(uintptr_t parallel_for, int64_t count) {
  return {reinterpret_cast<ParallelFor>(parallel_for), count};
}

const void* pointer(uintptr_t p) { return reinterpret_cast<const void*>(p); }

void store(DType dtype, uintptr_t out, double value) {
  if (dtype == DType::f32) {
    *reinterpret_cast<float*>(out) = float(value);
  } else {
    *reinterpret_cast<double*>(out) = value;
  }
}

// Name, whether it needs a target, and denominator of each term, in the order of their numbers.
std::vector<std::tuple<std::string, bool, std::string>> term_traits() {
  std::vector<std::tuple<std::string, bool, std::string>> rows;
  for (const TermTraits& t : kTraits) rows.emplace_back(t.name, t.needs_target, denominator_name(t.denominator));
  return rows;
}

std::vector<std::string> denominators() {
  std::vector<std::string> names;
  for (int k = 0; k < kDenominatorCount; ++k) names.emplace_back(denominator_name(Denominator(k)));
  return names;
}

// The arrays behind a Structure; made once for a skeleton and its options.
class PyStructure {
 public:
  using Pair = std::array<int32_t, 2>;
  PyStructure(const std::vector<Pair>& bones, const std::vector<Pair>& angles, const std::vector<Pair>& angles_velocity,
              const std::vector<std::array<Pair, 2>>& symmetric, bool symmetric_squared,
              const std::vector<std::pair<std::array<int32_t, 4>, double>>& hinges, double hinge_scale,
              double hinge_tolerance, bool hinge_unit_bones,
              const std::vector<std::vector<std::pair<Pair, double>>>& groups,
              const std::vector<double>& weighted_mpjpe_joints, const std::vector<double>& temporal_consistency_joints)
      : weighted_mpjpe_joints_(weighted_mpjpe_joints), temporal_consistency_joints_(temporal_consistency_joints) {
    for (const Pair& b : bones) bones_.push_back(bone(b));
    for (const Pair& k : angles) angles_.push_back(angle(k));
    for (const Pair& k : angles_velocity) angles_velocity_.push_back(angle(k));
    for (const auto& [right, left] : symmetric) symmetric_.push_back({bone(right), bone(left)});
    for (const auto& [joints, sign] : hinges) {
      for (int32_t j : joints) use(j);
      hinges_.push_back({joints[0], joints[1], joints[2], joints[3], sign});
    }
    for (const auto& group : groups) {
      if (group.size() > size_t(kMostGroupBones)) throw py::value_error("a group has too many bones.");
      for (const auto& [b, factor] : group) ratio_bones_.push_back({bone(b), factor});
      group_end_.push_back(int32_t(ratio_bones_.size()));
    }
    symmetric_squared_ = symmetric_squared;
    hinge_scale_ = hinge_scale;
    hinge_tolerance_ = hinge_tolerance;
    hinge_unit_bones_ = hinge_unit_bones;
  }

  Structure get(int64_t J) const {
    if (highest_ >= J) throw py::value_error("the structure has a joint beyond the poses' last one.");
    for (const auto* factors : {&weighted_mpjpe_joints_, &temporal_consistency_joints_})
      if (!factors->empty() && int64_t(factors->size()) != J) throw py::value_error("joint factors are not J numbers.");
    Structure s;
    s.bones = bones_.data();
    s.n_bones = int32_t(bones_.size());
    s.angles = angles_.data();
    s.n_angles = int32_t(angles_.size());
    s.angles_velocity = angles_velocity_.data();
    s.n_angles_velocity = int32_t(angles_velocity_.size());
    s.symmetric = symmetric_.data();
    s.n_symmetric = int32_t(symmetric_.size());
    s.symmetric_squared = symmetric_squared_;
    s.hinges = hinges_.data();
    s.n_hinges = int32_t(hinges_.size());
    s.hinge_scale = hinge_scale_;
    s.hinge_tolerance = hinge_tolerance_;
    s.hinge_unit_bones = hinge_unit_bones_;
    s.ratio_bones = ratio_bones_.data();
    s.group_end = group_end_.data();
    s.n_groups = int32_t(group_end_.size());
    s.weighted_mpjpe_joints = weighted_mpjpe_joints_.empty() ? nullptr : weighted_mpjpe_joints_.data();
    s.temporal_consistency_joints = temporal_consistency_joints_.empty() ? nullptr : temporal_consistency_joints_.data();
    return s;
  }

 private:
  void use(int32_t joint) {
    if (joint < 0) throw py::value_error("a joint's index is negative.");
    highest_ = std::max<int64_t>(highest_, joint);
  }
  Bone bone(const Pair& b) {
    use(b[0]);
    use(b[1]);
    return {b[0], b[1]};
  }
  Angle angle(const Pair& k) {
    const Bone first = bones_.at(size_t(k[0])), second = bones_.at(size_t(k[1]));
    const bool child_is_shared = second.child == first.child || second.child == first.parent;
    return {first, second, child_is_shared ? second.parent : second.child};
  }

  std::vector<Bone> bones_;
  std::vector<Angle> angles_, angles_velocity_;
  std::vector<Mirrored> symmetric_;
  std::vector<HingeChain> hinges_;
  std::vector<RatioBone> ratio_bones_;
  std::vector<int32_t> group_end_;
  std::vector<double> weighted_mpjpe_joints_, temporal_consistency_joints_;
  bool symmetric_squared_ = false, hinge_unit_bones_ = false;
  double hinge_scale_ = 1, hinge_tolerance_ = 0;
  int64_t highest_ = -1;
};

// Everything about calls of one layout that does not change from one to the next: sizes, strides, terms, structure. What
// a call adds is where the tensors are, what the terms weigh and how many threads there are.
class Plan {
 public:
  // `terms` are numbers, places in term_traits(). Strides are None for a tensor that there is none of.
  Plan(const std::string& dtype, std::array<int64_t, 3> size, std::array<int64_t, 4> pred_stride,
       std::optional<std::array<int64_t, 4>> target_stride, std::optional<std::array<int64_t, 3>> weight_stride,
       std::vector<int> terms, std::shared_ptr<PyStructure> structure, const std::string& reduction,
       uintptr_t parallel_for)
      : terms_(std::move(terms)), structure_(std::move(structure)), parallel_for_(parallel_for) {
    params_.dtype = dtype_of(dtype);
    params_.reduction = reduction_of(reduction);
    params_.B = size[0];
    params_.T = size[1];
    params_.J = size[2];
    std::copy(pred_stride.begin(), pred_stride.end(), params_.pred_stride);
    has_target_ = target_stride.has_value();
    if (has_target_) std::copy(target_stride->begin(), target_stride->end(), params_.target_stride);
    has_weight_ = weight_stride.has_value();
    if (has_weight_) std::copy(weight_stride->begin(), weight_stride->end(), params_.weight_stride);
    params_.structure = structure_->get(params_.J);
    for (int term : terms_) {
      if (term < 0 || term >= kTermCount) throw py::value_error("a term's number is out of range.");
      params_.active[term] = true;
    }
  }

  // Writes the weighted sum of the terms to `total`, each term to a place in `values`, unless there are none, and the
  // gradient of the sum to `grad`, unless that is 0; all in the plan's dtype.
  void run(uintptr_t pred, uintptr_t target, uintptr_t weight, uintptr_t grad, const std::vector<double>& lambdas,
           uintptr_t total_out, const std::vector<uintptr_t>& values_out, int64_t threads) const {
    if (!values_out.empty() && terms_.size() != values_out.size())
      throw py::value_error("terms and values differ in length.");
    if (terms_.size() != lambdas.size()) throw py::value_error("terms and lambdas differ in length.");
    ObjectiveParams q = params_;  // the plan itself serves other threads
    double values[kTermCount] = {};
    q.pred = pointer(pred);
    q.target = has_target_ ? pointer(target) : nullptr;
    q.weight = has_weight_ ? pointer(weight) : nullptr;
    q.grad = reinterpret_cast<void*>(grad);
    q.values = values;
    for (size_t i = 0; i < terms_.size(); ++i) q.lambda[terms_[i]] = lambdas[i];
    {
      py::gil_scoped_release release;
      objective(q, threads_of(parallel_for_, threads));
    }
    double total = 0;
    for (size_t i = 0; i < terms_.size(); ++i) {
      total += lambdas[i] * values[terms_[i]];
      if (!values_out.empty()) store(q.dtype, values_out[i], values[terms_[i]]);
    }
    store(q.dtype, total_out, total);
  }

 private:
  ObjectiveParams params_{};
  std::vector<int> terms_;
  std::shared_ptr<PyStructure> structure_;  // what params_.structure points into
  uintptr_t parallel_for_;
  bool has_target_ = false, has_weight_ = false;
};

// The same for rows.
class RankingPlan {
 public:
  RankingPlan(const std::string& dtype, std::array<int64_t, 2> size, std::array<int64_t, 2> pred_stride,
              std::array<int64_t, 2> target_stride, std::optional<std::array<int64_t, 2>> weight_stride,
              const std::string& reduction, uintptr_t parallel_for)
      : parallel_for_(parallel_for) {
    params_.dtype = dtype_of(dtype);
    params_.reduction = reduction_of(reduction);
    params_.R = size[0];
    params_.N = size[1];
    std::copy(pred_stride.begin(), pred_stride.end(), params_.pred_stride);
    std::copy(target_stride.begin(), target_stride.end(), params_.target_stride);
    has_weight_ = weight_stride.has_value();
    if (has_weight_) std::copy(weight_stride->begin(), weight_stride->end(), params_.weight_stride);
  }

  void run(uintptr_t pred, uintptr_t target, uintptr_t weight, uintptr_t grad, uintptr_t out, int64_t threads) const {
    RankingParams q = params_;
    double value = 0;
    q.pred = pointer(pred);
    q.target = pointer(target);
    q.weight = has_weight_ ? pointer(weight) : nullptr;
    q.grad = reinterpret_cast<void*>(grad);
    q.value = &value;
    {
      py::gil_scoped_release release;
      ranking_hinge(q, threads_of(parallel_for_, threads));
    }
    store(q.dtype, out, value);
  }

 private:
  RankingParams params_{};
  uintptr_t parallel_for_;
  bool has_weight_ = false;
};

PartsParams parts_of(const std::string& dtype, std::array<int64_t, 3> size, uintptr_t matrices, uintptr_t parts) {
  return {dtype_of(dtype), size[0], size[1], size[2], pointer(matrices), pointer(parts)};
}

// Images [N, P, size, size] of parts, of N, P and size; contiguous all.
void render_parts_forward(const std::string& dtype, std::array<int64_t, 3> size, uintptr_t matrices, uintptr_t parts,
                          uintptr_t image, bool holds_zeros, uintptr_t parallel_for, int64_t threads) {
  const PartsParams q = parts_of(dtype, size, matrices, parts);
  py::gil_scoped_release release;
  render_parts(q, reinterpret_cast<void*>(image), holds_zeros, threads_of(parallel_for, threads));
}

void render_parts_gradient(const std::string& dtype, std::array<int64_t, 3> size, uintptr_t matrices, uintptr_t parts,
                           uintptr_t image_gradient, std::array<int64_t, 4> strides, uintptr_t gradient,
                           uintptr_t parallel_for, int64_t threads) {
  const PartsParams q = parts_of(dtype, size, matrices, parts);
  py::gil_scoped_release release;
  render_parts_backward(q, pointer(image_gradient), strides.data(), reinterpret_cast<void*>(gradient),
                        threads_of(parallel_for, threads));
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of structloss; called through structloss.ops, which checks everything first.";
  py::class_<PyStructure, std::shared_ptr<PyStructure>>(m, "Structure")
      .def(py::init<const std::vector<PyStructure::Pair>&, const std::vector<PyStructure::Pair>&,
                    const std::vector<PyStructure::Pair>&, const std::vector<std::array<PyStructure::Pair, 2>>&, bool,
                    const std::vector<std::pair<std::array<int32_t, 4>, double>>&, double, double, bool,
                    const std::vector<std::vector<std::pair<PyStructure::Pair, double>>>&, const std::vector<double>&,
                    const std::vector<double>&>());
  m.def("term_traits", &term_traits);
  m.def("instruction_set", [] {
    switch (instruction_set()) {
      case InstructionSet::avx512: return "AVX-512";
      case InstructionSet::avx2: return "AVX2";
      default: return "no particular instruction set";
    }
  });
  m.def("denominators", &denominators);
  py::class_<Plan>(m, "Plan")
      .def(py::init<const std::string&, std::array<int64_t, 3>, std::array<int64_t, 4>,
                    std::optional<std::array<int64_t, 4>>, std::optional<std::array<int64_t, 3>>, std::vector<int>,
                    std::shared_ptr<PyStructure>, const std::string&, uintptr_t>())
      .def("run", &Plan::run);
  py::class_<RankingPlan>(m, "RankingPlan")
      .def(py::init<const std::string&, std::array<int64_t, 2>, std::array<int64_t, 2>, std::array<int64_t, 2>,
                    std::optional<std::array<int64_t, 2>>, const std::string&, uintptr_t>())
      .def("run", &RankingPlan::run);
  m.def("render_parts", &render_parts_forward);
  m.def("render_parts_backward", &render_parts_gradient);
}

// Python module `structloss.kernels._cpu`: pointers and sizes in, GIL released while the kernels run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "params.h"

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

void store(DType dtype, uintptr_t out, size_t i, double value) {
  if (dtype == DType::f32) {
    reinterpret_cast<float*>(out)[i] = float(value);
  } else {
    reinterpret_cast<double*>(out)[i] = value;
  }
}

std::vector<std::string> term_names() {
  std::vector<std::string> names;
  for (int k = 0; k < kTermCount; ++k) names.emplace_back(term_name(k));
  return names;
}

// `terms` are numbers as in term_names(); `total` and `values` (in that order) are where the results go.
void py_objective(const std::string& dtype, uintptr_t pred, std::array<int64_t, 4> pred_stride,
                                 uintptr_t target, std::array<int64_t, 4> target_stride, uintptr_t weight,
                                 std::array<int64_t, 3> weight_stride, uintptr_t grad, std::array<int64_t, 3> size,
                                 const std::vector<int>& terms, const std::vector<double>& lambdas,
                                 const std::string& reduction, uintptr_t total_out, uintptr_t values_out,
                                 uintptr_t parallel_for, int64_t threads) {
  ObjectiveParams q{};
  double values[kTermCount] = {};
  q.dtype = dtype_of(dtype);
  q.pred = pointer(pred);
  q.target = pointer(target);
  q.weight = pointer(weight);
  q.grad = reinterpret_cast<void*>(grad);
  q.values = values;
  q.B = size[0];
  q.T = size[1];
  q.J = size[2];
  std::copy(pred_stride.begin(), pred_stride.end(), q.pred_stride);
  std::copy(target_stride.begin(), target_stride.end(), q.target_stride);
  std::copy(weight_stride.begin(), weight_stride.end(), q.weight_stride);
  q.reduction = reduction_of(reduction);
  if (terms.size() != lambdas.size()) throw py::value_error("terms and lambdas differ in length.");
  for (size_t i = 0; i < terms.size(); ++i) {
    if (terms[i] < 0 || terms[i] >= kTermCount) throw py::value_error("a term's number is out of range.");
    q.active[terms[i]] = true;
    q.lambda[terms[i]] = lambdas[i];
  }
  {
    py::gil_scoped_release release;
    objective(q, threads_of(parallel_for, threads));
  }
  double total = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    total += lambdas[i] * values[terms[i]];
    store(q.dtype, values_out, i, values[terms[i]]);
  }
  store(q.dtype, total_out, 0, total);
}

void py_ranking_hinge(const std::string& dtype, uintptr_t pred, std::array<int64_t, 2> pred_stride, uintptr_t target,
                        std::array<int64_t, 2> target_stride, uintptr_t weight, std::array<int64_t, 2> weight_stride,
                        uintptr_t grad, std::array<int64_t, 2> size, const std::string& reduction,
                        uintptr_t out, uintptr_t parallel_for, int64_t threads) {
  RankingParams q{};
  double value = 0;
  q.dtype = dtype_of(dtype);
  q.pred = pointer(pred);
  q.target = pointer(target);
  q.weight = pointer(weight);
  q.grad = reinterpret_cast<void*>(grad);
  q.value = &value;
  q.R = size[0];
  q.N = size[1];
  std::copy(pred_stride.begin(), pred_stride.end(), q.pred_stride);
  std::copy(target_stride.begin(), target_stride.end(), q.target_stride);
  std::copy(weight_stride.begin(), weight_stride.end(), q.weight_stride);
  q.reduction = reduction_of(reduction);
  {
    py::gil_scoped_release release;
    ranking_hinge(q, threads_of(parallel_for, threads));
  }
  store(q.dtype, out, 0, value);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of structloss; called through structloss.ops, which checks everything first.";
  m.def("term_names", &term_names);
  m.def("objective", &py_objective);
  m.def("ranking_hinge", &py_ranking_hinge);
}

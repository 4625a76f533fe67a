// The fused objective on the CPU: blocks of frames for the local terms and the spatial ranking, then one row a joint for
// the temporal ranking. Partial sums have one slot a block and a row and are added in index order, so the result does
// not depend on the number of threads, bit for bit.
#include <algorithm>
#include <stdexcept>

#include "params.h"
#include "terms.hpp"

// One binary for every x86-64 machine: the compiler makes a version per instruction set and the loader picks.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define SL_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SL_MULTIVERSION
#endif

#if defined(__clang__)
#define SL_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SL_UNROLL _Pragma("GCC unroll 32")
#else
#define SL_UNROLL
#endif

namespace structloss {
namespace {

template <typename F>
void run(const Threads& threads, int64_t tasks, int64_t grain, F&& body) {
  if (tasks <= 0) return;
  if (threads.parallel_for == nullptr || threads.count <= 1 || tasks <= grain) {
    body(int64_t(0), tasks);
    return;
  }
  struct Context {
    F* body;
    bool failed;
  } context{&body, false};
  const int32_t error = threads.parallel_for(
      0, tasks, grain,
      [](int64_t begin, int64_t end, void* c) {
        auto* context = static_cast<Context*>(c);
        try {  // an exception must not cross the C boundary of the pool
          (*context->body)(begin, end);
        } catch (...) {
          context->failed = true;
        }
      },
      &context);
  if (error != 0 || context.failed) throw std::runtime_error("a worker of the CPU kernel failed (out of memory?)");
}

// Depths (predicted or target) that a thread keeps of a clip: 128 kB in float32, well within the second-level cache.
constexpr int64_t kKeptDepths = 32768;

struct Scales {
  double value[kTermCount];  // 1 / denominator, 0 where there is nothing to average
  double grad[kTermCount];   // lambda / denominator
};

template <typename T>
SL_INLINE void frames_task(const ObjectiveParams& q, const Scales& scales, int64_t clip, int64_t block, Block<T>& b,
                           double* partial) {
  const int64_t J = q.J, t0 = block * kBlock, frames = std::min<int64_t>(kBlock, q.T - t0);
  const bool weighted = q.weight != nullptr, need_grad = q.grad != nullptr;
  const int64_t *ps = q.pred_stride, *ds = q.target_stride, *ws = q.weight_stride;
  const T* p0 = static_cast<const T*>(q.pred) + clip * ps[0] + t0 * ps[1];
  const T* d0 = static_cast<const T*>(q.target) + clip * ds[0] + t0 * ds[1];
  const T* w0 = weighted ? static_cast<const T*>(q.weight) + clip * ws[0] + t0 * ws[1] : nullptr;
  const bool all = q.active[kMpjpe];  // the ranking reads nothing but depth
  if (frames < kBlock) {
    for (auto* v : {&b.px, &b.py, &b.dx, &b.dy}) std::fill(v->begin(), v->end(), T(0));
    for (int64_t j = 0; j < J; ++j) {
      std::fill_n(b.pz + j * b.z_stride, kBlock, T(0));
      std::fill_n(b.dz + j * b.z_stride, kBlock, T(0));
    }
    if (weighted) std::fill(b.w.begin(), b.w.end(), 0.0);
  }
  auto gather = [frames, J](T* to, int64_t to_stride, const T* from, int64_t frame_stride, int64_t joint_stride) {
    for (int64_t j = 0; j < J; ++j) {
      T* row = to + j * to_stride;
      const T* x = from + j * joint_stride;
      if (frames == kBlock) {  // a known trip count, unrolled: this copy is half of a small objective's time
        SL_UNROLL
        for (int t = 0; t < kBlock; ++t) row[t] = x[t * frame_stride];
      } else {
        for (int64_t t = 0; t < frames; ++t) row[t] = x[t * frame_stride];
      }
    }
  };
  gather(b.pz, b.z_stride, p0 + 2 * ps[3], ps[1], ps[2]);
  gather(b.dz, b.z_stride, d0 + 2 * ds[3], ds[1], ds[2]);
  if (all) {
    gather(b.px.data(), kBlock, p0, ps[1], ps[2]);
    gather(b.py.data(), kBlock, p0 + ps[3], ps[1], ps[2]);
    gather(b.dx.data(), kBlock, d0, ds[1], ds[2]);
    gather(b.dy.data(), kBlock, d0 + ds[3], ds[1], ds[2]);
  }
  if (weighted) {
    for (int64_t j = 0; j < J; ++j) {
      for (int64_t t = 0; t < frames; ++t) {
        const int64_t o = j * kBlock + t;
        const T w = w0[t * ws[1] + j * ws[2]];
        b.w[o] = double(w);
        if (w == T(0)) {
          b.px[o] = b.py[o] = b.dx[o] = b.dy[o] = T(0);
          b.pz[j * b.z_stride + t] = b.dz[j * b.z_stride + t] = T(0);
        }
      }
    }
  }
  if (need_grad)
    for (auto* v : {&b.gx, &b.gy, &b.gz}) std::fill(v->begin(), v->end(), T(0));
  if (q.active[kMpjpe]) partial[kMpjpe] = mpjpe_block(b, J, weighted, scales.grad[kMpjpe], need_grad);
  if (q.active[kDepthRankingJoints])
    partial[kDepthRankingJoints] =
        depth_ranking_joints_block(b, J, weighted, scales.grad[kDepthRankingJoints], need_grad);
  if (!need_grad) return;
  T* g = static_cast<T*>(q.grad) + (clip * q.T + t0) * J * 3;
  for (int64_t j = 0; j < J; ++j, g += 3) {
    const T *gx = b.gx.data() + j * kBlock, *gy = b.gy.data() + j * kBlock, *gz = b.gz.data() + j * kBlock;
    for (int64_t t = 0; t < frames; ++t) {
      T* to = g + t * J * 3;
      to[0] = gx[t];
      to[1] = gy[t];
      to[2] = gz[t];
    }
  }
}

template <typename T>
SL_INLINE void row_task(const ObjectiveParams& q, const Scales& scales, int64_t clip, int64_t joint, const T* pz,
                        const T* dz, RankScratch<T>& s, double* partial) {
  const int64_t T_ = q.T;
  const bool weighted = q.weight != nullptr;
  const int64_t *ps = q.pred_stride, *ds = q.target_stride, *ws = q.weight_stride;
  if (pz != nullptr) {  // gathered already
    std::memcpy(s.p.data(), pz, size_t(T_) * sizeof(T));
    std::memcpy(s.d.data(), dz, size_t(T_) * sizeof(T));
  } else {
    const T* p = static_cast<const T*>(q.pred) + clip * ps[0] + joint * ps[2] + 2 * ps[3];
    const T* d = static_cast<const T*>(q.target) + clip * ds[0] + joint * ds[2] + 2 * ds[3];
    for (int64_t t = 0; t < T_; ++t) {
      s.p[t] = p[t * ps[1]];
      s.d[t] = d[t * ds[1]];
    }
  }
  if (weighted) {
    const T* w = static_cast<const T*>(q.weight) + clip * ws[0] + joint * ws[2];
    for (int64_t t = 0; t < T_; ++t) s.w[t] = double(w[t * ws[1]]);
  }
  *partial = hinge_row(s, T_, weighted);
  if (q.grad == nullptr) return;
  const double scale = scales.grad[kDepthRankingFrames];
  T* g = static_cast<T*>(q.grad) + clip * T_ * q.J * 3 + joint * 3 + 2;
  for (int64_t t = 0; t < T_; ++t) g[t * q.J * 3] += T(scale * s.g[t]);
}

template <typename T>
SL_INLINE void rows_task(const RankingParams& q, double scale, int64_t row, RankScratch<T>& s, double* partial) {
  const bool weighted = q.weight != nullptr;
  const T* p = static_cast<const T*>(q.pred) + row * q.pred_stride[0];
  const T* d = static_cast<const T*>(q.target) + row * q.target_stride[0];
  for (int64_t i = 0; i < q.N; ++i) {
    s.p[i] = p[i * q.pred_stride[1]];
    s.d[i] = d[i * q.target_stride[1]];
  }
  if (weighted) {
    const T* w = static_cast<const T*>(q.weight) + row * q.weight_stride[0];
    for (int64_t i = 0; i < q.N; ++i) s.w[i] = double(w[i * q.weight_stride[1]]);
  }
  *partial += hinge_row(s, q.N, weighted);
  if (q.grad == nullptr) return;
  T* g = static_cast<T*>(q.grad) + row * q.N;
  for (int64_t i = 0; i < q.N; ++i) g[i] = T(scale * s.g[i]);
}

}  // namespace

// Concrete functions, since function multiversioning wants no templates; everything above is inlined into them.
#define SL_DEFINE_TASKS(NAME, TYPE)                                                                                  \
  SL_MULTIVERSION void frames_##NAME(const ObjectiveParams& q, const Scales& s, int64_t clip, int64_t block,          \
                                     Block<TYPE>& b, double* partial) {                                               \
    frames_task<TYPE>(q, s, clip, block, b, partial);                                                                 \
  }                                                                                                                   \
  SL_MULTIVERSION void row_##NAME(const ObjectiveParams& q, const Scales& s, int64_t clip, int64_t joint,             \
                                  const TYPE* pz, const TYPE* dz, RankScratch<TYPE>& scratch, double* partial) {      \
    row_task<TYPE>(q, s, clip, joint, pz, dz, scratch, partial);                                                      \
  }                                                                                                                   \
  SL_MULTIVERSION void rows_##NAME(const RankingParams& q, double scale, int64_t row, RankScratch<TYPE>& scratch,     \
                                   double* partial) {                                                                 \
    rows_task<TYPE>(q, scale, row, scratch, partial);                                                                 \
  }
SL_DEFINE_TASKS(f32, float)
SL_DEFINE_TASKS(f64, double)
#undef SL_DEFINE_TASKS

namespace {

void frames(const ObjectiveParams& q, const Scales& s, int64_t clip, int64_t block, Block<float>& b, double* o) {
  frames_f32(q, s, clip, block, b, o);
}
void frames(const ObjectiveParams& q, const Scales& s, int64_t clip, int64_t block, Block<double>& b, double* o) {
  frames_f64(q, s, clip, block, b, o);
}
void row(const ObjectiveParams& q, const Scales& s, int64_t clip, int64_t joint, const float* pz, const float* dz,
         RankScratch<float>& r, double* o) {
  row_f32(q, s, clip, joint, pz, dz, r, o);
}
void row(const ObjectiveParams& q, const Scales& s, int64_t clip, int64_t joint, const double* pz, const double* dz,
         RankScratch<double>& r, double* o) {
  row_f64(q, s, clip, joint, pz, dz, r, o);
}
void rows(const RankingParams& q, double scale, int64_t i, RankScratch<float>& r, double* o) {
  rows_f32(q, scale, i, r, o);
}
void rows(const RankingParams& q, double scale, int64_t i, RankScratch<double>& r, double* o) {
  rows_f64(q, scale, i, r, o);
}

// What each term's sum is divided by under "mean": joints for MPJPE, ordered pairs (diagonal included) for the hinges.
template <typename T>
void denominators(const ObjectiveParams& q, const Threads& threads, double* out) {
  for (int k = 0; k < kTermCount; ++k) out[k] = 1;
  if (q.reduction == Reduction::sum) return;
  if (q.weight == nullptr) {
    const double n = double(q.B) * double(q.T) * double(q.J);
    out[kMpjpe] = n;
    out[kDepthRankingJoints] = n * double(q.J);
    out[kDepthRankingFrames] = n * double(q.T);
    return;
  }
  std::vector<double> partial(size_t(q.B) * 3, 0.0);
  run(threads, q.B, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, q.T * q.J)), [&](int64_t begin, int64_t end) {
    std::vector<double> column(size_t(q.J));
    for (int64_t clip = begin; clip < end; ++clip) {
      const T* w = static_cast<const T*>(q.weight) + clip * q.weight_stride[0];
      std::fill(column.begin(), column.end(), 0.0);
      double all = 0, joints = 0, frames = 0;
      for (int64_t t = 0; t < q.T; ++t) {
        double sum = 0;
        for (int64_t j = 0; j < q.J; ++j) {
          const double x = double(w[t * q.weight_stride[1] + j * q.weight_stride[2]]);
          sum += x;
          column[size_t(j)] += x;
        }
        all += sum;
        joints += sum * sum;
      }
      for (double c : column) frames += c * c;
      partial[size_t(clip) * 3] = all;
      partial[size_t(clip) * 3 + 1] = joints;
      partial[size_t(clip) * 3 + 2] = frames;
    }
  });
  double sums[3] = {0, 0, 0};
  for (size_t i = 0; i < partial.size(); ++i) sums[i % 3] += partial[i];
  out[kMpjpe] = sums[0];
  out[kDepthRankingJoints] = sums[1];
  out[kDepthRankingFrames] = sums[2];
}

template <typename T>
void objective_typed(const ObjectiveParams& q, const Threads& threads) {
  Scales scales;
  double denominator[kTermCount];
  denominators<T>(q, threads, denominator);
  for (int k = 0; k < kTermCount; ++k) {
    scales.value[k] = denominator[k] == 0 ? 0 : 1 / denominator[k];
    scales.grad[k] = q.lambda[k] * scales.value[k];
  }
  const bool weighted = q.weight != nullptr;
  const bool temporal = q.active[kDepthRankingFrames];
  const int64_t blocks = (q.T + kBlock - 1) / kBlock;
  std::vector<double> frame_sums(size_t(q.B * blocks * kTermCount), 0.0);
  std::vector<double> row_sums(temporal ? size_t(q.B * q.J) : 0, 0.0);

  auto do_frames = [&](int64_t begin, int64_t end, Block<T>& b) {
    for (int64_t i = begin; i < end; ++i)
      frames(q, scales, i / blocks, i % blocks, b, frame_sums.data() + i * kTermCount);
  };
  const T* nothing = nullptr;
  if (q.B >= 2 * threads.count) {  // a clip at a time: it stays in the cache between its two passes
    run(threads, q.B, 1, [&](int64_t begin, int64_t end) {
      Block<T> b;
      RankScratch<T> s;
      b.reserve(q.J, weighted);
      if (temporal) s.reserve(q.T, weighted);
      // The depths of a clip, joint after joint, for both passes; long clips are gathered twice rather than kept twice.
      const int64_t length = blocks * kBlock;
      const bool keep = temporal && q.J * length <= kKeptDepths;
      std::vector<T> depths(keep ? size_t(2 * q.J * length) : 0);
      T *pz = depths.data(), *dz = pz + q.J * length;
      if (keep) b.z_stride = length;
      for (int64_t clip = begin; clip < end; ++clip) {
        for (int64_t k = 0; k < blocks; ++k) {
          if (keep) {
            b.pz = pz + k * kBlock;
            b.dz = dz + k * kBlock;
          }
          do_frames(clip * blocks + k, clip * blocks + k + 1, b);
        }
        if (!temporal) continue;
        for (int64_t j = 0; j < q.J; ++j)
          row(q, scales, clip, j, keep ? pz + j * length : nothing, keep ? dz + j * length : nothing, s,
              row_sums.data() + clip * q.J + j);
      }
    });
  } else {  // few clips: spread each over the threads
    run(threads, q.B * blocks, 2, [&](int64_t begin, int64_t end) {
      Block<T> b;
      b.reserve(q.J, weighted);
      do_frames(begin, end, b);
    });
    if (temporal)
      run(threads, q.B * q.J, 4, [&](int64_t begin, int64_t end) {
        RankScratch<T> s;
        s.reserve(q.T, weighted);
        for (int64_t i = begin; i < end; ++i)
          row(q, scales, i / q.J, i % q.J, nothing, nothing, s, row_sums.data() + i);
      });
  }
  double sums[kTermCount] = {};
  for (size_t i = 0; i < frame_sums.size(); ++i) sums[i % kTermCount] += frame_sums[i];
  for (double x : row_sums) sums[kDepthRankingFrames] += x;
  for (int k = 0; k < kTermCount; ++k) q.values[k] = sums[k] * scales.value[k];
}

template <typename T>
void ranking_typed(const RankingParams& q, const Threads& threads) {
  constexpr int64_t kRows = 16;  // rows that share a partial sum, so that a million short rows need little memory
  const int64_t chunks = (q.R + kRows - 1) / kRows;
  const bool weighted = q.weight != nullptr;
  double denominator = 1;
  if (q.reduction == Reduction::mean) {
    denominator = double(q.R) * double(q.N) * double(q.N);
    if (weighted) {
      denominator = 0;
      for (int64_t r = 0; r < q.R; ++r) {
        const T* w = static_cast<const T*>(q.weight) + r * q.weight_stride[0];
        double sum = 0;
        for (int64_t i = 0; i < q.N; ++i) sum += double(w[i * q.weight_stride[1]]);
        denominator += sum * sum;
      }
    }
  }
  const double scale = denominator == 0 ? 0 : 1 / denominator;
  std::vector<double> partial(size_t(chunks), 0.0);
  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, q.N * kRows));
  run(threads, chunks, grain, [&](int64_t begin, int64_t end) {
    RankScratch<T> s;
    s.reserve(q.N, weighted);
    for (int64_t c = begin; c < end; ++c)
      for (int64_t r = c * kRows; r < std::min(q.R, (c + 1) * kRows); ++r) rows(q, scale, r, s, &partial[size_t(c)]);
  });
  double sum = 0;
  for (double x : partial) sum += x;
  *q.value = sum * scale;
}

}  // namespace

void objective(const ObjectiveParams& q, const Threads& threads) {
  if (q.dtype == DType::f32) {
    objective_typed<float>(q, threads);
  } else {
    objective_typed<double>(q, threads);
  }
}

void ranking_hinge(const RankingParams& q, const Threads& threads) {
  if (q.dtype == DType::f32) {
    ranking_typed<float>(q, threads);
  } else {
    ranking_typed<double>(q, threads);
  }
}

}  // namespace structloss

// The fused objective on the CPU: blocks of frames for the local terms and the spatial ranking, then one row per joint
// for the temporal ranking. Partial sums have one slot per chunk of blocks and per row and are added in index order, so
// that the result does not depend on the number of threads, bit for bit.
#include <algorithm>
#include <stdexcept>

#include "block.hpp"
#include "lane_rows.hpp"
#include "../denominators.hpp"

namespace structloss {
namespace {

template <typename F>
void run(const Threads& threads, int64_t tasks, int64_t grain, F&& body) {
  if (tasks <= 0) return;
  grain = std::max(grain, (tasks + threads.count - 1) / std::max<int64_t>(1, threads.count));
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

// Nanoseconds of work that are worth another thread: to wake one, and to wait for it, takes up to as long.
constexpr double kPerThread = 4e4;

// Threads for so much work.
Threads worth(const Threads& threads, double nanoseconds) {
  const double count = std::min(double(threads.count), std::max(1.0, nanoseconds / kPerThread));
  return {threads.parallel_for, int64_t(count)};
}

// What a call takes on one thread, roughly, as measured with AVX2: nanoseconds, for each joint of each frame.
double work(const ObjectiveParams& q) {
  double each = 2;  // to read poses and to write the gradient
  for (const TermTraits& traits : kTraits)
    if (q.active[traits.term]) each += traits.form == Form::ranking ? 5 : traits.wide ? 8 : 2;
  if (q.dtype == DType::f64 || q.weight != nullptr) each *= 2;
  return each * double(q.B) * double(q.T) * double(q.J);
}

// A clip's blocks are added up in at most twice this many chunks, so that partial sums of long clips need no memory.
constexpr int64_t kChunks = 64;

struct Scales {
  double value[kTermCount];  // 1 / denominator, 0 where there is nothing to average
  double grad[kTermCount];   // lambda / denominator
};

// Mean length of each bone over a clip and 1 / degrees of freedom of its variance.
struct LimbStatistics {
  std::vector<double> mean, freedom;
};

// Whether rows of this length are ranked side by side (lane_rows.hpp); longer ones one at a time (rank.hpp).
constexpr bool side_by_side(int64_t n) { return n <= kMostSorted; }

// Where the gradient of L_T waits for that of the other terms, a block of frames after the other. This memory is the
// clip's part of the gradient's buffer, which has room for three numbers per joint; a block is read before it is
// overwritten. Rows ranked side by side leave [frames][J]. Those ranked one at a time first find their depths there:
// [2J][frames] of depths (pred and target of each joint), then the first row of each pair is the gradient.
template <typename T>
struct Stage {
  T* memory;         // of one clip
  int64_t per_block; // elements from one block to the next
  int64_t frames;    // of the clip

  SL_INLINE T* block(int64_t block) const { return memory + block * per_block; }
  SL_INLINE T* row(int64_t block, int64_t row) const {
    return memory + block * per_block + row * std::min<int64_t>(kBlock, frames - block * kBlock);
  }
};

Need need_of(const ObjectiveParams& q) {
  auto any = [&q](auto has) { return any_term(q.active, has); };
  Need need;
  need.target_xy = any([](const TermTraits& t) { return t.needs_target && t.needs_xy; });
  need.target_z = any([](const TermTraits& t) { return t.needs_target; });
  need.pred_xy = any([](const TermTraits& t) { return t.needs_xy; });
  need.neighbours = any([](const TermTraits& t) { return t.form == Form::steps; });
  return need;
}

// Adds the values of a block's terms to `sums` and writes its gradient, that of L_T on the stage included.
template <typename Set, typename T>
SL_INLINE void frames_task(const ObjectiveParams& q, const Scales& scales, const Need& need, int64_t clip,
                           int64_t block, const LimbStatistics& limbs, const Stage<T>& stage, Block<T>& b,
                           double* sums) {
  const bool need_grad = q.grad != nullptr;
  const bool* on = q.active;
  const Structure& s = q.structure;
  read_block(q, need, clip, block, b);
  if (need_grad) {
    std::fill(b.g.begin(), b.g.end(), T(0));
    if (on[kDepthRankingFrames]) {
      T* z = b.g.data() + 2 * kBlock;
      if (side_by_side(q.T)) {
        turn_rows(stage.block(block), q.J, b.frames, z, 3 * kBlock);
      } else {
        for (int64_t j = 0; j < q.J; ++j)
          std::memcpy(z + 3 * j * kBlock, stage.row(block, 2 * j), size_t(b.frames) * sizeof(T));
      }
    }
  }
  // Terms of single frames.
  const FrameFacts facts{q.J, s, limbs.mean.data(), limbs.freedom.data()};
  over_terms([&](auto constant) SL_INLINED {
    constexpr Term term = decltype(constant)::value;
    if constexpr (kTraits[term].form == Form::frame) {
      using A = std::conditional_t<kTraits[term].wide, PackAccess<T>, NativeAccess<T>>;
      if (!on[term]) return;
      sums[term] += over_frames<A>(
          b, [&](A& a) SL_INLINED { return frame_share<term>(a, facts, scales.grad[term], need_grad); });
    }
  });
  // Terms of neighbouring frames, and of all joints of a frame at once.
  const double* scale = scales.grad;
  if (on[kVelocity]) sums[kVelocity] += velocity_block(b, scale[kVelocity], need_grad);
  if (on[kTemporalConsistency])
    sums[kTemporalConsistency] +=
        temporal_consistency_block(b, s.temporal_consistency_joints, scale[kTemporalConsistency], need_grad);
  if (on[kBoneAngleVelocity])
    sums[kBoneAngleVelocity] += bone_angle_velocity_block(b, s, scale[kBoneAngleVelocity], need_grad);
  if (on[kDepthRankingJoints])
    sums[kDepthRankingJoints] += depth_ranking_joints_block<Set>(b, scale[kDepthRankingJoints], need_grad);
  if (need_grad) write_gradient(q, clip, block, b);
}

// Adds a block's sums of weight, squared weight and weighted length of each bone to `sums` [3][bones].
template <typename T>
SL_INLINE void limbs_task(const ObjectiveParams& q, int64_t clip, int64_t block, Block<T>& b, double* sums) {
  const Structure& s = q.structure;
  read_block(q, Need{true, false, false, false}, clip, block, b);
  for (int32_t k = 0; k < s.n_bones; ++k) {
    Pack total = {}, squares = {}, lengths = {};
    for (int f = 0; f < b.frames; f += kPack) {
      const PackAccess<T> a{b, f};
      const Pack weight = a.valid() * bone_weight(a, s.bones[k]);
      total += weight;
      squares += weight * weight;
      lengths += weight * length(bone_vector(a, s.bones[k]));
    }
    sums[k] += lane_total(total);
    sums[s.n_bones + k] += lane_total(squares);
    sums[2 * s.n_bones + k] += lane_total(lengths);
  }
}

// Puts the depths of a block on the stage.
template <typename T>
SL_INLINE void stage_task(const ObjectiveParams& q, const Stage<T>& stage, int64_t clip, int64_t block) {
  const int64_t *ps = q.pred_stride, *ds = q.target_stride;
  const int frames = int(std::min<int64_t>(kBlock, q.T - block * kBlock));
  const T* p = static_cast<const T*>(q.pred) + clip * ps[0] + block * kBlock * ps[1] + 2 * ps[3];
  const T* d = static_cast<const T*>(q.target) + clip * ds[0] + block * kBlock * ds[1] + 2 * ds[3];
  gather(stage.row(block, 0), 2 * frames, q.J, p, ps[1], ps[2], 0, frames);
  gather(stage.row(block, 1), 2 * frames, q.J, d, ds[1], ds[2], 0, frames);
}

// One joint's row: its depths from the stage, the scaled gradient back to it.
template <typename Set, typename T>
SL_INLINE void row_task(const ObjectiveParams& q, const Scales& scales, const Stage<T>& stage, int64_t clip,
                        int64_t joint, RankScratch<T>& s, double* partial) {
  const bool weighted = q.weight != nullptr;
  if (weighted) {
    const int64_t* ws = q.weight_stride;
    const T* w = static_cast<const T*>(q.weight) + clip * ws[0] + joint * ws[2];
    for (int64_t t = 0; t < q.T; ++t) s.w[t] = double(w[t * ws[1]]);
  }
  const int64_t blocks = (q.T + kBlock - 1) / kBlock;
  auto part = [&](int64_t block) { return size_t(std::min<int64_t>(kBlock, q.T - block * kBlock)) * sizeof(T); };
  // A row's parts are kilobytes apart, too far for the processor to foresee.
  auto ahead = [&](int64_t block, int64_t row) {
    if (block + 8 < blocks)
      for (size_t at = 0; at < kBlock * sizeof(T); at += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(stage.row(block + 8, row)) + at);
  };
  *partial = hinge_row(
      Set{}, s, q.T, weighted, scales.grad[kDepthRankingFrames],
      [&](int which, T* to) {
        for (int64_t k = 0; k < blocks; ++k) {
          ahead(k, 2 * joint + which);
          std::memcpy(to + k * kBlock, stage.row(k, 2 * joint + which), part(k));
        }
      },
      [&](const T* from) {
        for (int64_t k = 0; k < blocks; ++k) {
          ahead(k, 2 * joint);
          std::memcpy(stage.row(k, 2 * joint), from + k * kBlock, part(k));
        }
      });
}

// Rows side by side that lie alike in memory: the joints of a clip, or the rows of a matrix.
template <typename T>
struct RowRun {
  int count;             // rows
  const T *p, *d, *w;    // first element of the first; w is null without weights
  T* g;                  // null: no gradient
};
// How all rows of a group lie: numbers from one element to the next, and from one row to the next; whether they are the
// depths of contiguous poses.
struct RowStrides {
  int64_t p[2], d[2], w[2];
  bool poses_p, poses_d;
};

// Every third number from the third on of 3 kCount in a row: depths of as many joints.
#if defined(SL_HAS_SHUFFLE)
SL_INLINE Lanes<float, 64>::Vec depths_of(const float* x, Lanes<float, 64>::Vec) {
  using V = Lanes<float, 64>::Vec;
  const V a = read_vector<V>(x), b = read_vector<V>(x + 16), c = read_vector<V>(x + 32);
  const V ab = __builtin_shufflevector(a, b, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, -1, -1, -1, -1, -1, -1);
  return __builtin_shufflevector(ab, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31);
}
SL_INLINE Lanes<float, 32>::Vec depths_of(const float* x, Lanes<float, 32>::Vec) {
  using V = Lanes<float, 32>::Vec;
  const V a = read_vector<V>(x), b = read_vector<V>(x + 8), c = read_vector<V>(x + 16);
  const V ab = __builtin_shufflevector(a, b, 2, 5, 8, 11, 14, -1, -1, -1);
  return __builtin_shufflevector(ab, c, 0, 1, 2, 3, 4, 9, 12, 15);
}
#endif

// Copies the rows of `runs` to lanes [n][kCount], from the first on. Depths of contiguous poses (`poses`) are copied
// kCount at a time; what follows a run's own is overwritten by the next run's, or by the next elements.
template <int kCount, typename T>
SL_INLINE void gather_rows(const RowRun<T>* runs, int n_runs, const T* RowRun<T>::*source, const int64_t* stride,
                           bool poses, int64_t n, T* to) {
  const int64_t by_element = stride[0], by_row = stride[1];
  int64_t i = 0;
#if defined(SL_HAS_SHUFFLE)
  using V = typename Lanes<T, kCount * int(sizeof(T))>::Vec;
  if constexpr (std::is_same_v<T, float> && sizeof(V) >= 32) {
    if (poses)
      for (const int64_t last = n - 1 - 3 * kCount / by_element; i < last; ++i) {  // not beyond the clip
        T* lane = to + i * kCount;
        for (int r = 0; r < n_runs; lane += runs[r++].count)
          write_vector(lane, depths_of(runs[r].*source - 2 + i * by_element, V{}));
      }
  }
#endif
  for (; i < n; ++i) {
    T* lane = to + i * kCount;
    for (int r = 0; r < n_runs; lane += runs[r++].count)
      for (int l = 0; l < runs[r].count; ++l) lane[l] = (runs[r].*source)[i * by_element + l * by_row];
  }
}
// Copies a few numbers.
template <typename T>
SL_INLINE void copy_few(const T* from, int count, T* to) {
  for (int size = 16; size > 0; size /= 2)
    if (count & size) {
      std::memcpy(to, from, size_t(size) * sizeof(T));
      from += size, to += size;
    }
}

// Rows that are ranked together, at most, and the lanes that so many take: wide vectors for few rows, long ones, or
// weights (GCC takes their selects apart) would be slower than narrow ones.
template <typename Set, typename T>
constexpr int64_t most_together(int64_t n, bool weighted) {
  return (n <= kWideUpTo && !weighted ? Set::kLaneBytes : Set::kLongLaneBytes) / int(sizeof(T));
}
template <typename Set, typename T>
constexpr int64_t lanes_for(int64_t n, int64_t rows, bool weighted) {
  const int64_t narrow = Set::kLongLaneBytes / int(sizeof(T));
  return rows <= narrow ? narrow : most_together<Set, T>(n, weighted);
}

// Ranks the rows of `runs`; `place(run, i)` is where the gradients of a run's i-th elements go, one after the other.
// `loss` gets one number per row.
template <int kCount, typename Set, typename T, typename Place>
SL_INLINE void group_in(const RowRun<T>* runs, int n_runs, const RowStrides& strides, int64_t n, bool weighted,
                        double scale, LaneMemory<T>& m, double* loss, Place&& place) {
  int rows = 0;
  for (int r = 0; r < n_runs; ++r) rows += runs[r].count;
  gather_rows<kCount>(runs, n_runs, &RowRun<T>::p, strides.p, strides.poses_p, n, m.p);
  gather_rows<kCount>(runs, n_runs, &RowRun<T>::d, strides.d, strides.poses_d, n, m.d);
  if (weighted) gather_rows<kCount>(runs, n_runs, &RowRun<T>::w, strides.w, false, n, m.w);
  for (int lane = rows; lane < kCount; ++lane)  // lanes to spare
    for (int64_t i = 0; i < n; ++i) {
      m.p[i * kCount + lane] = m.d[i * kCount + lane] = T(i);
      if (weighted) m.w[i * kCount + lane] = T(1);
    }
  double all[kCount];
  rank_rows(Set{}, VectorBytes<kCount * int(sizeof(T))>{}, m, n, weighted, scale, all);
  std::copy_n(all, rows, loss);
  int lane = 0;
  for (int r = 0; r < n_runs; lane += runs[r++].count) {
    if (runs[r].g == nullptr) continue;
    if (runs[r].count == kCount) {
      for (int64_t i = 0; i < n; ++i) std::memcpy(place(runs[r], i), m.g + i * kCount, sizeof(T) * kCount);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        copy_few(m.g + i * kCount + lane, runs[r].count, place(runs[r], i));
      }
    }
  }
}
template <typename Set, typename T, typename Place>
SL_INLINE void group_task(const RowRun<T>* runs, int n_runs, int64_t rows, const RowStrides& strides, int64_t n,
                          bool weighted, double scale, LaneMemory<T>& m, double* loss, Place&& place) {
  constexpr int kWide = Set::kLaneBytes / int(sizeof(T)), kNarrow = Set::kLongLaneBytes / int(sizeof(T));
  if (lanes_for<Set, T>(n, rows, weighted) == kWide) {
    group_in<kWide, Set>(runs, n_runs, strides, n, weighted, scale, m, loss, place);
  } else {
    group_in<kNarrow, Set>(runs, n_runs, strides, n, weighted, scale, m, loss, place);
  }
}

// Whether the frames of a clip follow each other without gaps.
SL_INLINE bool contiguous_frames(const int64_t* stride, int64_t J) {
  return stride[3] == 1 && stride[2] == 3 && stride[1] == 3 * J;
}

// Rows `begin` to `end` of all joints of all clips, clip after clip: L_T, side by side.
template <typename Set, typename T>
SL_INLINE void joints_task(const ObjectiveParams& q, const Scales& scales, const Stage<T>& stage, int64_t begin,
                           int64_t end, LaneMemory<T>& m, double* row_sums) {
  const RowStrides strides{{q.pred_stride[1], q.pred_stride[2]},
                           {q.target_stride[1], q.target_stride[2]},
                           {q.weight_stride[1], q.weight_stride[2]},
                           contiguous_frames(q.pred_stride, q.J),
                           contiguous_frames(q.target_stride, q.J)};
  const int64_t J = q.J, lanes = most_together<Set, T>(q.T, q.weight != nullptr);
  for (int64_t row = begin; row < end;) {
    RowRun<T> runs[kMostLanes<T>];
    int n_runs = 0;
    const int64_t first = row, last = std::min(end, row + lanes);
    while (row < last) {
      const int64_t clip = row / J, joint = row % J;
      RowRun<T>& run = runs[n_runs++];
      run.count = int(std::min(last - row, J - joint));
      run.p = static_cast<const T*>(q.pred) + clip * q.pred_stride[0] + joint * q.pred_stride[2] + 2 * q.pred_stride[3];
      run.d = static_cast<const T*>(q.target) + clip * q.target_stride[0] + joint * q.target_stride[2] +
              2 * q.target_stride[3];
      run.w = q.weight == nullptr ? nullptr
                                  : static_cast<const T*>(q.weight) + clip * q.weight_stride[0] + joint * q.weight_stride[2];
      run.g = stage.memory == nullptr ? nullptr : stage.memory + clip * q.T * 3 * J + joint;
      row += run.count;
    }
    group_task<Set>(runs, n_runs, last - first, strides, q.T, q.weight != nullptr, scales.grad[kDepthRankingFrames], m,
                    row_sums + first,
                    [&](const RowRun<T>& run, int64_t i) SL_INLINED {
                      return run.g + i / kBlock * stage.per_block + i % kBlock * J;
                    });
  }
}

// Rows `begin` to `end` of a matrix; adds their losses to `partial`.
template <typename Set, typename T>
SL_INLINE void rows_task(const RankingParams& q, double scale, int64_t begin, int64_t end, RankScratch<T>& s,
                         LaneMemory<T>& m, double* partial) {
  const T *p = static_cast<const T*>(q.pred), *d = static_cast<const T*>(q.target), *w = static_cast<const T*>(q.weight);
  T* grad = static_cast<T*>(q.grad);
  if (side_by_side(q.N)) {
    const RowStrides strides{{q.pred_stride[1], q.pred_stride[0]},
                             {q.target_stride[1], q.target_stride[0]},
                             {q.weight_stride[1], q.weight_stride[0]},
                             false,
                             false};
    const int64_t lanes = most_together<Set, T>(q.N, w != nullptr);
    for (int64_t row = begin; row < end; row += lanes) {
      double loss[kMostLanes<T>];
      const int count = int(std::min(lanes, end - row));
      const RowRun<T> run{count, p + row * q.pred_stride[0], d + row * q.target_stride[0],
                          w == nullptr ? nullptr : w + row * q.weight_stride[0], nullptr};
      group_task<Set>(&run, 1, count, strides, q.N, w != nullptr, scale, m, loss, [](const RowRun<T>& run, int64_t) SL_INLINED { return run.g; });
      for (int l = 0; l < count; ++l) *partial += loss[l];
      if (grad == nullptr) continue;
      const int64_t in_use = lanes_for<Set, T>(q.N, count, w != nullptr);
      for (int l = 0; l < count; ++l)
        for (int64_t i = 0; i < q.N; ++i) grad[(row + l) * q.N + i] = m.g[i * in_use + l];
    }
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    if (w != nullptr)
      for (int64_t i = 0; i < q.N; ++i) s.w[i] = double(w[row * q.weight_stride[0] + i * q.weight_stride[1]]);
    *partial += hinge_row(
        Set{}, s, q.N, w != nullptr, scale,
        [&](int which, T* to) {
          const T* from = which == 0 ? p + row * q.pred_stride[0] : d + row * q.target_stride[0];
          const int64_t stride = which == 0 ? q.pred_stride[1] : q.target_stride[1];
          for (int64_t i = 0; i < q.N; ++i) to[i] = from[i * stride];
        },
        [&](const T* from) {
          if (grad != nullptr) std::memcpy(grad + row * q.N, from, size_t(q.N) * sizeof(T));
        });
  }
}

// What is compiled per instruction set, for one type of number.
template <typename T>
struct Tasks {
  void (*frames)(const ObjectiveParams& q, const Scales& s, const Need& need, int64_t clip, int64_t block,
                 const LimbStatistics& limbs, const Stage<T>& stage, Block<T>& b, double* sums);
  void (*limbs)(const ObjectiveParams& q, int64_t clip, int64_t block, Block<T>& b, double* sums);
  void (*stage)(const ObjectiveParams& q, const Stage<T>& stage, int64_t clip, int64_t block);
  void (*row)(const ObjectiveParams& q, const Scales& s, const Stage<T>& stage, int64_t clip, int64_t joint,
              RankScratch<T>& scratch, double* partial);
  void (*joints)(const ObjectiveParams& q, const Scales& s, const Stage<T>& stage, int64_t begin, int64_t end,
                 LaneMemory<T>& m, double* row_sums);
  void (*rows)(const RankingParams& q, double scale, int64_t begin, int64_t end, RankScratch<T>& s, LaneMemory<T>& m,
               double* partial);
};

// Functions of their own for the compiler to aim at an instruction set; everything above is inlined into them.
template <typename Set, typename T>
struct Compiled;
#define SL_DEFINE_TASKS(SET, TYPE, TARGET)                                                                             \
  template <>                                                                                                          \
  struct Compiled<SET, TYPE> {                                                                                         \
    TARGET static void frames(const ObjectiveParams& q, const Scales& s, const Need& need, int64_t clip, int64_t block, \
                              const LimbStatistics& limbs, const Stage<TYPE>& stage, Block<TYPE>& b, double* sums) {   \
      frames_task<SET>(q, s, need, clip, block, limbs, stage, b, sums);                                               \
    }                                                                                                                  \
    TARGET static void limbs(const ObjectiveParams& q, int64_t clip, int64_t block, Block<TYPE>& b, double* sums) {    \
      limbs_task<TYPE>(q, clip, block, b, sums);                                                                       \
    }                                                                                                                  \
    TARGET static void stage(const ObjectiveParams& q, const Stage<TYPE>& stage, int64_t clip, int64_t block) {        \
      stage_task<TYPE>(q, stage, clip, block);                                                                         \
    }                                                                                                                  \
    TARGET static void row(const ObjectiveParams& q, const Scales& s, const Stage<TYPE>& stage, int64_t clip,          \
                           int64_t joint, RankScratch<TYPE>& scratch, double* partial) {                               \
      row_task<SET>(q, s, stage, clip, joint, scratch, partial);                                                      \
    }                                                                                                                  \
    TARGET static void joints(const ObjectiveParams& q, const Scales& s, const Stage<TYPE>& stage, int64_t begin,      \
                              int64_t end, LaneMemory<TYPE>& m, double* row_sums) {                                    \
      joints_task<SET>(q, s, stage, begin, end, m, row_sums);                                                          \
    }                                                                                                                  \
    TARGET static void rows(const RankingParams& q, double scale, int64_t begin, int64_t end, RankScratch<TYPE>& s,    \
                            LaneMemory<TYPE>& m, double* partial) {                                                    \
      rows_task<SET>(q, scale, begin, end, s, m, partial);                                                             \
    }                                                                                                                  \
  };
SL_DEFINE_TASKS(Plain, float, )
SL_DEFINE_TASKS(Plain, double, )
#if SL_HAS_X86
SL_DEFINE_TASKS(Avx2, float, SL_TARGET_AVX2)
SL_DEFINE_TASKS(Avx2, double, SL_TARGET_AVX2)
SL_DEFINE_TASKS(Avx512, float, SL_TARGET_AVX512)
SL_DEFINE_TASKS(Avx512, double, SL_TARGET_AVX512)
#endif
#undef SL_DEFINE_TASKS

template <typename Set, typename T>
constexpr Tasks<T> tasks_for() {
  using C = Compiled<Set, T>;
  return {C::frames, C::limbs, C::stage, C::row, C::joints, C::rows};
}
template <typename T>
const Tasks<T>& tasks() {
  static const Tasks<T> chosen = [] {
    switch (instruction_set()) {
#if SL_HAS_X86
      case InstructionSet::avx512: return tasks_for<Avx512, T>();
      case InstructionSet::avx2: return tasks_for<Avx2, T>();
#endif
      default: return tasks_for<Plain, T>();
    }
  }();
  return chosen;
}

template <typename T>
Counts denominators(const ObjectiveParams& q, const Threads& threads) {
  if (q.weight == nullptr) return counts_without_weights(q.B, q.T, q.J, q.structure);
  std::vector<Counts> clips{size_t(q.B)};
  run(threads, q.B, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, q.T * q.J)), [&](int64_t begin, int64_t end) {
    for (int64_t clip = begin; clip < end; ++clip) clips[size_t(clip)] = counts_of_clip<T>(q, clip);
  });
  Counts all;
  for (const Counts& c : clips)
    for (int k = 0; k < kDenominatorCount; ++k) all.of[k] += c.of[k];
  return all;
}

// How a clip's blocks are cut: the same for any number of threads, so that the sums are.
struct Chunks {
  int64_t blocks, length, count;  // a chunk is `length` blocks
  explicit Chunks(int64_t T) {
    blocks = (T + kBlock - 1) / kBlock;
    length = std::max<int64_t>(1, blocks / kChunks);
    count = blocks == 0 ? 0 : (blocks + length - 1) / length;
  }
  int64_t begin(int64_t chunk) const { return chunk * length; }
  int64_t end(int64_t chunk) const { return std::min(blocks, (chunk + 1) * length); }
};

// Adds `count` rows of partial sums [count][width] to `out` [width], in order.
void add_rows(const double* rows, int64_t count, int64_t width, double* out) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < width; ++k) out[k] += rows[i * width + k];
}

LimbStatistics limb_statistics(const Structure& s, const double* sums) {
  LimbStatistics limbs;
  limbs.mean.resize(size_t(s.n_bones));
  limbs.freedom.resize(size_t(s.n_bones));
  for (int32_t k = 0; k < s.n_bones; ++k) {
    const double total = sums[k];
    limbs.mean[size_t(k)] = total > 0 ? sums[2 * s.n_bones + k] / total : 0;
    limbs.freedom[size_t(k)] = inverse_freedom(total, sums[s.n_bones + k]);
  }
  return limbs;
}

// Where the temporal ranking of a call takes place: in the gradient's memory or, without one, in its own.
template <typename T>
struct Stages {
  std::vector<T> own;
  T* memory = nullptr;
  int64_t per_frame, frames;

  // `clips` are on the stage at a time, if it has its own memory. Rows side by side need it for the gradient only.
  Stages(const ObjectiveParams& q, int64_t clips) : per_frame((q.grad != nullptr ? 3 : 2) * q.J), frames(q.T) {
    if (!q.active[kDepthRankingFrames]) return;
    if (q.grad == nullptr && !side_by_side(q.T)) own.resize(size_t(clips * q.T * per_frame));
    memory = q.grad != nullptr ? static_cast<T*>(q.grad) : own.empty() ? nullptr : own.data();
  }
  Stage<T> of(int64_t clip) const {
    return {memory == nullptr ? nullptr : memory + clip * frames * per_frame, kBlock * per_frame, frames};
  }
};

// Bytes of poses and gradients that a thread works on between its passes over them: what a second-level cache holds.
constexpr int64_t kInCache = 1 << 20;

// Clips apart, a thread each: a few clips at a time, which stay in the cache between the passes over them.
template <typename T>
void clips_apart(const ObjectiveParams& q, const Scales& scales, const Need& need, const Threads& threads,
                 double* clip_sums, double* row_sums) {
  const Chunks chunks(q.T);
  const Structure& s = q.structure;
  const Tasks<T>& task = tasks<T>();
  const bool weighted = q.weight != nullptr, temporal = q.active[kDepthRankingFrames];
  const bool together = temporal && side_by_side(q.T);
  // Clips whose rows are ranked together.
  const int64_t clip_bytes = q.T * q.J * 9 * int64_t(sizeof(T));
  const int64_t at_a_time = together ? std::clamp<int64_t>(kInCache / clip_bytes, 1, kMostLanes<T>) : 1;
  run(threads, q.B, 1, [&](int64_t begin, int64_t end) {
    Block<T> b;
    RankScratch<T> scratch;
    LaneMemory<T> lanes;
    b.reserve(q.J, weighted);
    if (temporal && !together) scratch.reserve(q.T, weighted);
    if (together) lanes.reserve(q.T);
    const Stages<T> stages(q, 1);
    LimbStatistics limbs;
    std::vector<double> chunk_sums;
    // Runs step(block, sums) over a clip's blocks and adds its sums [width] to `out`.
    auto over_chunks = [&](int64_t width, auto step, double* out) {
      chunk_sums.assign(size_t(chunks.count * width), 0.0);
      for (int64_t c = 0; c < chunks.count; ++c)
        for (int64_t k = chunks.begin(c); k < chunks.end(c); ++k) step(k, chunk_sums.data() + c * width);
      add_rows(chunk_sums.data(), chunks.count, width, out);
    };
    for (int64_t clip = begin; clip < end; ++clip) {
      const Stage<T> stage = stages.of(q.grad != nullptr ? clip : 0);
      if (together) {
        if ((clip - begin) % at_a_time == 0)
          task.joints(q, scales, stages.of(0), clip * q.J, std::min(end, clip + at_a_time) * q.J, lanes, row_sums);
      } else if (temporal) {
        for (int64_t k = 0; k < chunks.blocks; ++k) task.stage(q, stage, clip, k);
        for (int64_t j = 0; j < q.J; ++j) task.row(q, scales, stage, clip, j, scratch, row_sums + clip * q.J + j);
      }
      if (q.active[kLimbVariance]) {
        std::vector<double> sums(size_t(3 * s.n_bones), 0.0);
        over_chunks(3 * s.n_bones, [&](int64_t k, double* to) { task.limbs(q, clip, k, b, to); }, sums.data());
        limbs = limb_statistics(s, sums.data());
      }
      over_chunks(
          kTermCount, [&](int64_t k, double* to) { task.frames(q, scales, need, clip, k, limbs, stage, b, to); },
          clip_sums + clip * kTermCount);
    }
  });
}

// Few clips: the threads share each of them.
template <typename T>
void clips_together(const ObjectiveParams& q, const Scales& scales, const Need& need, const Threads& threads,
                    double* clip_sums, double* row_sums) {
  const Chunks chunks(q.T);
  const Structure& s = q.structure;
  const bool weighted = q.weight != nullptr;
  const int64_t grain = chunks.length == 1 ? 2 : 1;
  const Stages<T> stages(q, q.B);
  std::vector<LimbStatistics> limbs(static_cast<size_t>(q.B));
  // Runs task(clip, block, block memory, sums) over all blocks; sums are added up to [clips][width].
  auto over_chunks = [&](int64_t width, auto task, double* out) {
    std::vector<double> sums(size_t(q.B * chunks.count * width), 0.0);
    run(threads, q.B * chunks.count, grain, [&](int64_t begin, int64_t end) {
      Block<T> b;
      b.reserve(q.J, weighted);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t k = chunks.begin(i % chunks.count); k < chunks.end(i % chunks.count); ++k)
          task(i / chunks.count, k, b, sums.data() + i * width);
    });
    for (int64_t clip = 0; clip < q.B; ++clip)
      add_rows(sums.data() + clip * chunks.count * width, chunks.count, width, out + clip * width);
  };
  if (q.active[kDepthRankingFrames] && side_by_side(q.T)) {
    const int64_t together = kMostLanes<T>, rows = q.B * q.J;
    run(threads, (rows + together - 1) / together, 1, [&](int64_t begin, int64_t end) {
      LaneMemory<T> lanes;
      lanes.reserve(q.T);
      tasks<T>().joints(q, scales, stages.of(0), begin * together, std::min(rows, end * together), lanes, row_sums);
    });
  } else if (q.active[kDepthRankingFrames]) {
    run(threads, q.B * chunks.blocks, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        tasks<T>().stage(q, stages.of(i / chunks.blocks), i / chunks.blocks, i % chunks.blocks);
    });
    run(threads, q.B * q.J, 1, [&](int64_t begin, int64_t end) {
      RankScratch<T> scratch;
      scratch.reserve(q.T, weighted);
      for (int64_t i = begin; i < end; ++i)
        tasks<T>().row(q, scales, stages.of(i / q.J), i / q.J, i % q.J, scratch, row_sums + i);
    });
  }
  if (q.active[kLimbVariance]) {
    const int64_t width = 3 * s.n_bones;
    std::vector<double> sums(size_t(q.B * width), 0.0);
    over_chunks(
        width, [&](int64_t clip, int64_t k, Block<T>& b, double* to) { tasks<T>().limbs(q, clip, k, b, to); },
        sums.data());
    for (int64_t clip = 0; clip < q.B; ++clip) limbs[size_t(clip)] = limb_statistics(s, sums.data() + clip * width);
  }
  over_chunks(
      kTermCount,
      [&](int64_t clip, int64_t k, Block<T>& b, double* to) {
        tasks<T>().frames(q, scales, need, clip, k, limbs[size_t(clip)], stages.of(clip), b, to);
      },
      clip_sums);
}

template <typename T>
void objective_typed(const ObjectiveParams& q, const Threads& most) {
  std::fill_n(q.values, int(kTermCount), 0.0);
  if (q.B == 0 || q.T == 0 || q.J == 0) return;
  const Threads threads = worth(most, work(q));
  Scales scales;
  Counts counts;
  if (q.reduction == Reduction::mean) {
    counts = denominators<T>(q, threads);
  } else {
    std::fill_n(counts.of, kDenominatorCount, 1.0);
  }
  for (const TermTraits& traits : kTraits) {
    const double count = counts[traits.denominator];
    scales.value[traits.term] = count > 0 ? 1 / count : 0;
    scales.grad[traits.term] = q.lambda[traits.term] * scales.value[traits.term];
  }
  const Need need = need_of(q);
  std::vector<double> clip_sums(size_t(q.B * kTermCount), 0.0);
  std::vector<double> row_sums(q.active[kDepthRankingFrames] ? size_t(q.B * q.J) : 0, 0.0);
  if (q.B >= 2 * threads.count) {
    clips_apart<T>(q, scales, need, threads, clip_sums.data(), row_sums.data());
  } else {
    clips_together<T>(q, scales, need, threads, clip_sums.data(), row_sums.data());
  }
  double sums[kTermCount] = {};
  add_rows(clip_sums.data(), q.B, kTermCount, sums);
  for (double x : row_sums) sums[kDepthRankingFrames] += x;
  for (int k = 0; k < kTermCount; ++k) q.values[k] = sums[k] * scales.value[k];
}

template <typename T>
void ranking_typed(const RankingParams& q, const Threads& most) {
  const Threads threads = worth(most, 10.0 * double(q.R) * double(q.N));
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
  run(threads, chunks, 1, [&](int64_t begin, int64_t end) {
    RankScratch<T> s;
    LaneMemory<T> lanes;
    if (side_by_side(q.N)) {
      lanes.reserve(q.N);
    } else {
      s.reserve(q.N, weighted);
    }
    for (int64_t c = begin; c < end; ++c)
      tasks<T>().rows(q, scale, c * kRows, std::min(q.R, (c + 1) * kRows), s, lanes, &partial[size_t(c)]);
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

// The fused objective on the CPU: blocks of frames for the local terms and the spatial ranking, then one row per joint
// for the temporal ranking. Partial sums have one slot per chunk of blocks and per row and are added in index order, so
// that the result does not depend on the number of threads, bit for bit.
#include <algorithm>
#include <stdexcept>

#include "block.hpp"
#include "../denominators.hpp"

// One binary for every x86-64 machine: the compiler makes a version per instruction set and the loader picks.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define SL_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SL_MULTIVERSION
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

// The depths of a clip on their way to the temporal ranking and back, a block after the other: [2J][frames] of depths
// (pred and target of each joint), then the first row of each pair is the gradient of L_T. With a gradient this memory is
// the clip's part of its buffer, which has three rows per joint; a block is read before it is overwritten.
template <typename T>
struct Stage {
  T* memory;         // of one clip
  int64_t per_block; // elements from one block to the next
  int64_t frames;    // of the clip

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
template <typename T>
SL_INLINE void frames_task(const ObjectiveParams& q, const Scales& scales, const Need& need, int64_t clip,
                           int64_t block, const LimbStatistics& limbs, const Stage<T>& stage, Block<T>& b,
                           double* sums) {
  const bool need_grad = q.grad != nullptr;
  const bool* on = q.active;
  const Structure& s = q.structure;
  read_block(q, need, clip, block, b);
  if (need_grad) {
    std::fill(b.g.begin(), b.g.end(), T(0));
    if (on[kDepthRankingFrames])
      for (int64_t j = 0; j < q.J; ++j) {
        const T* g = stage.row(block, 2 * j);
        std::memcpy(b.g.data() + (3 * j + 2) * kBlock, g, size_t(b.frames) * sizeof(T));
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
    sums[kDepthRankingJoints] += depth_ranking_joints_block(b, scale[kDepthRankingJoints], need_grad);
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
template <typename T>
SL_INLINE void row_task(const ObjectiveParams& q, const Scales& scales, const Stage<T>& stage, int64_t clip,
                        int64_t joint, RankScratch<T>& s, double* partial) {
  const bool weighted = q.weight != nullptr;
  if (weighted) {
    const int64_t* ws = q.weight_stride;
    const T* w = static_cast<const T*>(q.weight) + clip * ws[0] + joint * ws[2];
    for (int64_t t = 0; t < q.T; ++t) s.w[t] = double(w[t * ws[1]]);
  }
  const int64_t blocks = (q.T + kBlock - 1) / kBlock;
  auto part = [&](int64_t block) SL_INLINED { return size_t(std::min<int64_t>(kBlock, q.T - block * kBlock)) * sizeof(T); };
  // A row's parts are kilobytes apart, too far for the processor to foresee.
  auto ahead = [&](int64_t block, int64_t row) SL_INLINED {
    if (block + 8 < blocks)
      for (size_t at = 0; at < kBlock * sizeof(T); at += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(stage.row(block + 8, row)) + at);
  };
  *partial = hinge_row(
      s, q.T, weighted, scales.grad[kDepthRankingFrames],
      [&](int which, T* to) SL_INLINED {
        for (int64_t k = 0; k < blocks; ++k) {
          ahead(k, 2 * joint + which);
          std::memcpy(to + k * kBlock, stage.row(k, 2 * joint + which), part(k));
        }
      },
      [&](const T* from) SL_INLINED {
        for (int64_t k = 0; k < blocks; ++k) {
          ahead(k, 2 * joint);
          std::memcpy(stage.row(k, 2 * joint), from + k * kBlock, part(k));
        }
      });
}

template <typename T>
SL_INLINE void rows_task(const RankingParams& q, double scale, int64_t row, RankScratch<T>& s, double* partial) {
  const bool weighted = q.weight != nullptr;
  const T* p = static_cast<const T*>(q.pred) + row * q.pred_stride[0];
  const T* d = static_cast<const T*>(q.target) + row * q.target_stride[0];
  T* grad = q.grad == nullptr ? nullptr : static_cast<T*>(q.grad) + row * q.N;
  if (weighted) {
    const T* w = static_cast<const T*>(q.weight) + row * q.weight_stride[0];
    for (int64_t i = 0; i < q.N; ++i) s.w[i] = double(w[i * q.weight_stride[1]]);
  }
  *partial += hinge_row(
      s, q.N, weighted, scale,
      [&](int which, T* to) SL_INLINED {
        const T* from = which == 0 ? p : d;
        const int64_t stride = which == 0 ? q.pred_stride[1] : q.target_stride[1];
        for (int64_t i = 0; i < q.N; ++i) to[i] = from[i * stride];
      },
      [&](const T* from) SL_INLINED {
        if (grad != nullptr) std::memcpy(grad, from, size_t(q.N) * sizeof(T));
      });
}

}  // namespace

// Concrete functions, since function multiversioning wants no templates; everything above is inlined into them.
#define SL_DEFINE_TASKS(NAME, TYPE)                                                                                  \
  SL_MULTIVERSION void frames_##NAME(const ObjectiveParams& q, const Scales& s, const Need& need, int64_t clip,       \
                                     int64_t block, const LimbStatistics& limbs, const Stage<TYPE>& stage,            \
                                     Block<TYPE>& b, double* sums) {                                                  \
    frames_task<TYPE>(q, s, need, clip, block, limbs, stage, b, sums);                                                \
  }                                                                                                                   \
  SL_MULTIVERSION void limbs_##NAME(const ObjectiveParams& q, int64_t clip, int64_t block, Block<TYPE>& b,            \
                                    double* sums) {                                                                   \
    limbs_task<TYPE>(q, clip, block, b, sums);                                                                        \
  }                                                                                                                   \
  SL_MULTIVERSION void stage_##NAME(const ObjectiveParams& q, const Stage<TYPE>& stage, int64_t clip,                 \
                                    int64_t block) {                                                                  \
    stage_task<TYPE>(q, stage, clip, block);                                                                          \
  }                                                                                                                   \
  SL_MULTIVERSION void row_##NAME(const ObjectiveParams& q, const Scales& s, const Stage<TYPE>& stage, int64_t clip,  \
                                  int64_t joint, RankScratch<TYPE>& scratch, double* partial) {                       \
    row_task<TYPE>(q, s, stage, clip, joint, scratch, partial);                                                       \
  }                                                                                                                   \
  SL_MULTIVERSION void rows_##NAME(const RankingParams& q, double scale, int64_t row, RankScratch<TYPE>& scratch,     \
                                   double* partial) {                                                                 \
    rows_task<TYPE>(q, scale, row, scratch, partial);                                                                 \
  }
SL_DEFINE_TASKS(f32, float)
SL_DEFINE_TASKS(f64, double)
#undef SL_DEFINE_TASKS

namespace {

template <typename T>
struct Tasks;
template <>
struct Tasks<float> {
  static constexpr auto frames = frames_f32;
  static constexpr auto limbs = limbs_f32;
  static constexpr auto stage = stage_f32;
  static constexpr auto row = row_f32;
  static constexpr auto rows = rows_f32;
};
template <>
struct Tasks<double> {
  static constexpr auto frames = frames_f64;
  static constexpr auto limbs = limbs_f64;
  static constexpr auto stage = stage_f64;
  static constexpr auto row = row_f64;
  static constexpr auto rows = rows_f64;
};

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

  // `clips` are on the stage at a time, if it has its own memory.
  Stages(const ObjectiveParams& q, int64_t clips) : per_frame((q.grad != nullptr ? 3 : 2) * q.J), frames(q.T) {
    if (!q.active[kDepthRankingFrames]) return;
    if (q.grad == nullptr) own.resize(size_t(clips * q.T * per_frame));
    memory = q.grad != nullptr ? static_cast<T*>(q.grad) : own.data();
  }
  Stage<T> of(int64_t clip) const {
    return {memory == nullptr ? nullptr : memory + clip * frames * per_frame, kBlock * per_frame, frames};
  }
};

// One clip after the other, a thread each: a clip stays in the cache between its passes.
template <typename T>
void clips_apart(const ObjectiveParams& q, const Scales& scales, const Need& need, const Threads& threads,
                 double* clip_sums, double* row_sums) {
  const Chunks chunks(q.T);
  const Structure& s = q.structure;
  const bool weighted = q.weight != nullptr, temporal = q.active[kDepthRankingFrames];
  run(threads, q.B, 1, [&](int64_t begin, int64_t end) {
    Block<T> b;
    RankScratch<T> scratch;
    b.reserve(q.J, weighted);
    if (temporal) scratch.reserve(q.T, weighted);
    const Stages<T> stages(q, 1);
    LimbStatistics limbs;
    std::vector<double> chunk_sums;
    // Runs task(block, sums) over a clip's blocks and adds its sums [width] to `out`.
    auto over_chunks = [&](int64_t width, auto task, double* out) {
      chunk_sums.assign(size_t(chunks.count * width), 0.0);
      for (int64_t c = 0; c < chunks.count; ++c)
        for (int64_t k = chunks.begin(c); k < chunks.end(c); ++k) task(k, chunk_sums.data() + c * width);
      add_rows(chunk_sums.data(), chunks.count, width, out);
    };
    for (int64_t clip = begin; clip < end; ++clip) {
      const Stage<T> stage = stages.of(q.grad != nullptr ? clip : 0);
      if (temporal) {
        for (int64_t k = 0; k < chunks.blocks; ++k) Tasks<T>::stage(q, stage, clip, k);
        for (int64_t j = 0; j < q.J; ++j)
          Tasks<T>::row(q, scales, stage, clip, j, scratch, row_sums + clip * q.J + j);
      }
      if (q.active[kLimbVariance]) {
        std::vector<double> sums(size_t(3 * s.n_bones), 0.0);
        over_chunks(
            3 * s.n_bones, [&](int64_t k, double* to) { Tasks<T>::limbs(q, clip, k, b, to); }, sums.data());
        limbs = limb_statistics(s, sums.data());
      }
      over_chunks(
          kTermCount,
          [&](int64_t k, double* to) { Tasks<T>::frames(q, scales, need, clip, k, limbs, stage, b, to); },
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
  if (q.active[kDepthRankingFrames]) {
    run(threads, q.B * chunks.blocks, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        Tasks<T>::stage(q, stages.of(i / chunks.blocks), i / chunks.blocks, i % chunks.blocks);
    });
    run(threads, q.B * q.J, q.T < 1024 ? 4 : 1, [&](int64_t begin, int64_t end) {
      RankScratch<T> scratch;
      scratch.reserve(q.T, weighted);
      for (int64_t i = begin; i < end; ++i)
        Tasks<T>::row(q, scales, stages.of(i / q.J), i / q.J, i % q.J, scratch, row_sums + i);
    });
  }
  if (q.active[kLimbVariance]) {
    const int64_t width = 3 * s.n_bones;
    std::vector<double> sums(size_t(q.B * width), 0.0);
    over_chunks(
        width, [&](int64_t clip, int64_t k, Block<T>& b, double* to) { Tasks<T>::limbs(q, clip, k, b, to); },
        sums.data());
    for (int64_t clip = 0; clip < q.B; ++clip) limbs[size_t(clip)] = limb_statistics(s, sums.data() + clip * width);
  }
  over_chunks(
      kTermCount,
      [&](int64_t clip, int64_t k, Block<T>& b, double* to) {
        Tasks<T>::frames(q, scales, need, clip, k, limbs[size_t(clip)], stages.of(clip), b, to);
      },
      clip_sums);
}

template <typename T>
void objective_typed(const ObjectiveParams& q, const Threads& threads) {
  std::fill_n(q.values, int(kTermCount), 0.0);
  if (q.B == 0 || q.T == 0 || q.J == 0) return;
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
      for (int64_t r = c * kRows; r < std::min(q.R, (c + 1) * kRows); ++r)
        Tasks<T>::rows(q, scale, r, s, &partial[size_t(c)]);
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

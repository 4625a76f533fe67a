// The objective on the GPU: which kernels run for a call, on which memory. No torch here, and no host synchronisation:
// everything is queued on the caller's stream, in memory that the caller brings.
//
// Without a CUDA compiler this file is C++, and the kernels run on the CPU (emulate.hpp).
#include <algorithm>

#include "clip.hpp"
#include "export.h"
#include "request.h"
#include "row_kernels.hpp"
#include "sums.hpp"
// After the numbers that terms.hpp is compiled for.
#include "../denominators.hpp"

namespace structloss {
namespace {

constexpr int kInvalidRequest = 1;  // cudaErrorInvalidValue

// Long rows are sorted so many bytes of workspace at a time (at least one row).
constexpr int64_t kSortBytes = int64_t(256) << 20;

// Hands out parts of the workspace; without one it only counts.
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  template <typename V>
  V* take(int64_t count) {
    used_ = (used_ + 15) / 16 * 16;
    V* part = memory_ == nullptr ? nullptr : reinterpret_cast<V*>(memory_ + used_);
    used_ += count * int64_t(sizeof(V));
    return part;
  }
  bool counting() const { return memory_ == nullptr; }
  int64_t used() const { return used_; }

 private:
  unsigned char* memory_;
  int64_t used_ = 0;
};

// Queues kernels until one fails; with a counting arena, none.
class Queue {
 public:
  Queue(const Arena& arena, Stream stream) : dry_(arena.counting()), stream_(stream) {}
  template <typename Params>
  void run(void (*kernel)(Params), int64_t blocks, int threads, int64_t shared_bytes, const Params& params) {
    if (!dry_ && error == 0) error = launch(kernel, blocks, threads, shared_bytes, stream_, params);
  }
  int error = 0;

 private:
  bool dry_;
  Stream stream_;
};

Input input_of(const TensorRequest& x) {
  Input input;
  input.data = x.data;
  std::copy(x.stride, x.stride + 4, input.stride);
  input.type = InputType(x.type);
  input.packed = x.packed != 0;
  return input;
}

int64_t pieces(int64_t size, int64_t each) { return (size + each - 1) / each; }

// Rows of sums, reduced until one block can add them up.
struct SumRows {
  double* rows;
  int64_t count;
};
SumRows reduced(SumRows sums, Arena& arena, Queue& queue) {
  while (sums.count > kSumRows) {
    const int64_t blocks = pieces(sums.count, kSumRows);
    SumParams p{sums.rows, arena.take<double>(blocks * kTermCount), sums.count};
    queue.run(sum_kernel, blocks, kSumThreads, kSumBytes, p);
    sums = {p.out, blocks};
  }
  return sums;
}

Structure upload(const TablesRequest& tables, Arena& arena, Queue& queue) {
  Structure s;
  unsigned char* to = arena.take<unsigned char>(tables.bytes);
  for (int64_t begin = 0; begin < tables.bytes; begin += UploadParams::kBytes) {
    UploadParams p;
    p.count = int32_t(std::min<int64_t>(tables.bytes - begin, UploadParams::kBytes));
    std::copy_n(static_cast<const unsigned char*>(tables.data) + begin, p.count, p.bytes);
    p.to = to == nullptr ? nullptr : to + begin;
    queue.run(upload_kernel, 1, kSumThreads, 0, p);
  }
  auto at = [&](int32_t offset) { return to == nullptr || offset < 0 ? nullptr : to + offset; };
  s.bones = reinterpret_cast<const Bone*>(at(tables.bones));
  s.angles = reinterpret_cast<const Angle*>(at(tables.angles));
  s.angles_velocity = reinterpret_cast<const Angle*>(at(tables.angles_velocity));
  s.symmetric = reinterpret_cast<const Mirrored*>(at(tables.symmetric));
  s.hinges = reinterpret_cast<const HingeChain*>(at(tables.hinges));
  s.ratio_bones = reinterpret_cast<const RatioBone*>(at(tables.ratio_bones));
  s.group_end = reinterpret_cast<const int32_t*>(at(tables.group_end));
  s.weighted_mpjpe_joints = reinterpret_cast<const double*>(at(tables.weighted_mpjpe_joints));
  s.temporal_consistency_joints = reinterpret_cast<const double*>(at(tables.temporal_consistency_joints));
  s.n_bones = tables.n_bones;
  s.n_angles = tables.n_angles;
  s.n_angles_velocity = tables.n_angles_velocity;
  s.n_symmetric = tables.n_symmetric;
  s.n_hinges = tables.n_hinges;
  s.n_groups = tables.n_groups;
  s.symmetric_squared = tables.symmetric_squared != 0;
  s.hinge_unit_bones = tables.hinge_unit_bones != 0;
  s.hinge_scale = tables.hinge_scale;
  s.hinge_tolerance = tables.hinge_tolerance;
  return s;
}

// ---- rows ---------------------------------------------------------------------------------------------------------

// Whether short rows have kernels of their own: without weights, in float32. The others are sorted as longer ones.
template <typename T>
constexpr bool lean(bool weighted) {
  return sizeof(T) == sizeof(float) && !weighted;
}

// How rows of n are ranked: the 32 E elements they are sorted as in a warp (0: in device memory), warps of a block, and
// how many blocks leave a row of sums.
struct RowPlan {
  int elements, warps;
  int64_t blocks;
};
template <typename T>
RowPlan row_plan(int64_t rows, int64_t n, bool weighted, int64_t most_bytes) {
  if (n > kMostRowElements) return {0, 0, rows * pieces(n, kEachThreads)};
  const int elements = lean<T>(weighted) && n <= 128 ? (n <= 32 ? 1 : 4) : n <= 256 ? 8 : 16;
  int warps = kRowWarps;
  while (warps > 1 && warps * row_bytes<T>(kWarp * elements, weighted) > most_bytes) warps /= 2;
  return {elements, warps, row_blocks(rows, warps)};
}

template <typename T, int E>
void run_rows(const RowsParams<T>& q, const RowPlan& plan, Queue& queue) {
  const bool weighted = q.weight.data != nullptr;
  const int64_t bytes = plan.warps * row_bytes<T>(kWarp * E, weighted);
  auto kernel = rows_kernel<T, E, false>;
  if constexpr (E >= 8) kernel = weighted ? rows_kernel<T, E, true> : kernel;
  queue.run(kernel, plan.blocks, plan.warps * kWarp, bytes, q);
}

template <typename T>
void run_long_rows(const RowsParams<T>& q, Arena& arena, Queue& queue) {
  const bool weighted = q.weight.data != nullptr;
  const int64_t n = q.frames, each = 2 * sizeof(Entry<T>) + 4 + (weighted ? 16 : 0);
  const int64_t together = std::min<int64_t>(q.rows, std::max<int64_t>(1, kSortBytes / (n * each)));
  LongParams<T> x;
  x.q = q;
  Entry<T>* buffers[2] = {arena.take<Entry<T>>(together * n), arena.take<Entry<T>>(together * n)};
  x.rank = arena.take<int32_t>(together * n);
  x.before = weighted ? arena.take<double>(together * n) : nullptr;
  x.mass = weighted ? arena.take<double>(together * n) : nullptr;
  for (x.first_row = 0; x.first_row < q.rows; x.first_row += together) {
    x.rows = std::min(together, q.rows - x.first_row);
    for (const bool by_target : {false, true}) {
      x.by_target = by_target;
      int current = 0;
      x.out = buffers[current];
      queue.run(sort_tiles_kernel<T>, x.rows * pieces(n, kTile), kTileThreads, kTile * sizeof(Entry<T>), x);
      for (x.run = kTile; x.run < n; x.run *= 2, current = 1 - current) {
        x.in = buffers[current];
        x.out = buffers[1 - current];
        queue.run(merge_kernel<T>, x.rows * pieces(n, kEachThreads), kEachThreads, 0, x);
      }
      x.in = buffers[current];
      if (weighted) queue.run(scan_kernel<T>, x.rows, kScanThreads, kScanThreads / kWarp * 8, x);
      queue.run(ranks_kernel<T>, x.rows * pieces(n, kEachThreads), kEachThreads,
                block_sums_bytes(kEachThreads, 1), x);
    }
  }
}

template <typename T>
void run_any_rows(const RowsParams<T>& q, const RowPlan& plan, Arena& arena, Queue& queue) {
  if (plan.elements == 0) run_long_rows(q, arena, queue);
  if constexpr (lean<T>(false)) {
    if (plan.elements == 1) run_rows<T, 1>(q, plan, queue);
    if (plan.elements == 4) run_rows<T, 4>(q, plan, queue);
  }
  if (plan.elements == 8) run_rows<T, 8>(q, plan, queue);
  if (plan.elements == 16) run_rows<T, 16>(q, plan, queue);
}

// ---- clips --------------------------------------------------------------------------------------------------------

// Warps of a block that ranks J rows: two rows per warp, if there are enough, so that few wait for the last one.
int clip_warps(int64_t J) {
  return int(std::min<int64_t>(kMostClipThreads / kWarp, std::max<int64_t>(4, pieces(J, 2))));
}

// The 32 E elements that rows of n are sorted as in a fused clip; 0 if they are too long for it.
template <typename T>
int fused_elements(int64_t n, bool weighted) {
  if (!lean<T>(weighted)) return n <= 256 ? 8 : 0;
  return n <= 32 ? 1 : n <= 128 ? 4 : n <= 256 ? 8 : n <= 512 ? 16 : 0;
}

int64_t clip_bytes(const ClipMemory& memory, int warps) {
  return std::max<int64_t>(memory.bytes, block_sums_bytes(warps * kWarp, kClipTerms));
}

template <typename T, int E>
void run_clips(const ClipParams<T>& q, int64_t blocks, int warps, Queue& queue) {
  const bool weighted = q.weight.data != nullptr;
  const bool depths = q.on[kDepthRankingJoints] || (E > 0 && q.on[kDepthRankingFrames]);
  const ClipMemory memory(q.joints, q.tile_frames, sizeof(T), warps, kWarp * E, weighted, depths);
  auto kernel = clip_kernel<T, E, false>;
  if constexpr (E == 0 || E == 8) kernel = weighted ? clip_kernel<T, E, true> : kernel;
  queue.run(kernel, blocks, warps * kWarp, clip_bytes(memory, warps), q);
}

template <typename T>
void run_any_clips(const ClipParams<T>& q, int E, int64_t blocks, int warps, Queue& queue) {
  if (E == 0) run_clips<T, 0>(q, blocks, warps, queue);
  if constexpr (lean<T>(false)) {
    if (E == 1) run_clips<T, 1>(q, blocks, warps, queue);
    if (E == 4) run_clips<T, 4>(q, blocks, warps, queue);
    if (E == 16) run_clips<T, 16>(q, blocks, warps, queue);
  }
  if (E == 8) run_clips<T, 8>(q, blocks, warps, queue);
}

// Frames whose shared memory fits, a power of two: so many that they hold `most`, or fewer; 0 if one does not fit.
template <typename Bytes>
int frames_that_fit(int most, int64_t limit, Bytes&& bytes) {
  int frames = 1;
  while (frames < most) frames *= 2;
  while (frames > 0 && bytes(frames) > limit) frames /= 2;
  return frames;
}

// ---- the objective ------------------------------------------------------------------------------------------------

// Factors of the gradients and of the values: known here, unless weights or lambdas are only on the device.
template <typename T>
Scales factors(const ObjectiveRequest& r, const Wanted& wanted, const Input& weight, const Structure& structure,
               const double* limb_freedom, Arena& arena, Queue& queue, FinishParams& finish) {
  const bool mean = Reduction(r.reduction) == Reduction::mean, from_weights = mean && weight.data != nullptr;
  Scales scales;
  ScalesParams p{};
  p.wanted = wanted;
  if (from_weights) {
    const int64_t tiles = pieces(r.T, kCountThreads), blocks = r.B * tiles;
    CountsParams c{weight, structure, limb_freedom, arena.take<double>((blocks + r.B) * kTermCount), r.T, int32_t(r.J),
                   int32_t(tiles)};
    SumRows sums{c.sums, blocks + r.B};
    queue.run(counts_kernel, blocks, kCountThreads, block_sums_bytes(kCountThreads, kFrameCounts), c);
    c.sums += blocks * kTermCount;
    queue.run(clip_counts_kernel, r.B, kCountThreads, block_sums_bytes(kCountThreads, kClipCounts), c);
    sums = reduced(sums, arena, queue);
    p.rows = sums.rows;
    p.count = sums.count;
    p.joints = double(r.B) * double(r.T) * double(r.J);
  } else {
    const Counts counts = counts_without_weights(r.B, r.T, r.J, structure);
    for (int k = 0; k < kDenominatorCount; ++k) p.counts[k] = mean ? counts.of[k] : 1;
    for (const TermTraits& traits : kTraits) {
      const double count = p.counts[int(traits.denominator)];
      finish.known[traits.term] = count > 0 ? 1 / count : 0;
    }
    for (int i = 0; i < r.n_terms; ++i) scales.value[r.term[i]] = r.lambda[i] * finish.known[r.term[i]];
  }
  if (from_weights || r.lambdas != nullptr) {
    p.inverse = arena.take<double>(kTermCount);
    p.scales = arena.take<double>(kTermCount);
    queue.run(scales_kernel<T>, 1, kSumThreads, kSumBytes, p);
    scales.device = p.scales;
    finish.inverse = p.inverse;
  }
  return scales;
}

// Which kernels have work, and how it is cut.
struct Plan {
  RowPlan rows{0, 0, 0};     // of the ranking over time, where it is not fused
  bool separate_rows, clips, frames, frames_target, frames_neighbours;
  int fused = 0, warps = 8;  // 32 * fused elements per row in a fused clip, 0: none is; warps of a clip's block
  int clip_tile = 1, frames_tile = 1;  // frames of a block; 0 if not even one fits
  int64_t clip_tiles, clip_blocks, frames_tiles, frames_blocks;
};

template <typename T>
int64_t frames_bytes(const ObjectiveRequest& r, const Plan& plan, int frames) {
  const FramesMemory memory(int(r.J), frames, sizeof(T), plan.frames_target, plan.frames_neighbours,
                            r.weight.data != nullptr, r.grad != nullptr);
  return std::max<int64_t>(memory.bytes, block_sums_bytes(kMostFrameThreads, kFrameTerms));
}

template <typename T>
Plan plan_of(const ObjectiveRequest& r, const bool* on, int64_t most_bytes) {
  Plan plan;
  const int64_t B = r.B, N = r.T, J = r.J;
  const bool weighted = r.weight.data != nullptr, over_time = on[kDepthRankingFrames];
  auto bytes_of_clip = [&](int frames, int warps, int elements) {
    return clip_bytes(ClipMemory(int(J), frames, sizeof(T), warps, kWarp * elements, weighted, true), warps);
  };
  if (over_time) {
    const int elements = fused_elements<T>(N, weighted);
    if (elements != 0 && bytes_of_clip(int(N), clip_warps(J), elements) <= most_bytes) {
      plan.fused = elements;
      plan.warps = clip_warps(J);
    }
  }
  plan.separate_rows = over_time && plan.fused == 0;
  if (plan.separate_rows) plan.rows = row_plan<T>(B * J, N, weighted, most_bytes);
  // The ranking over time, where it is not fused, asks for clip_kernel only to have its gradient added up.
  plan.clips = plan.fused != 0 || (plan.separate_rows && r.grad != nullptr) || any_term(on, [](const TermTraits& t) {
                 return t.kernel == GpuKernel::clips && t.term != kDepthRankingFrames;
               });
  plan.clip_tile = plan.fused != 0 ? int(N) : int(std::min<int64_t>(N, 256));
  if (plan.fused == 0 && on[kDepthRankingJoints])
    plan.clip_tile = frames_that_fit(plan.clip_tile, std::min<int64_t>(most_bytes, 64 * 1024),
                                     [&](int frames) { return bytes_of_clip(frames, plan.warps, 0); });
  auto in_frames = [&](auto has) {
    return any_term(on, [&](const TermTraits& t) { return t.kernel == GpuKernel::frames && has(t); });
  };
  plan.frames = in_frames([](const TermTraits&) { return true; });
  plan.frames_target = in_frames([](const TermTraits& t) { return t.needs_target; });
  plan.frames_neighbours = in_frames([](const TermTraits& t) { return t.form == Form::steps; });
  if (plan.frames) {
    // Small tiles, so that several blocks share a multiprocessor; large skeletons take what there is.
    auto bytes = [&](int frames) { return frames_bytes<T>(r, plan, frames); };
    plan.frames_tile = frames_that_fit(int(std::min<int64_t>(N, kMostFrameThreads)),
                                       std::min<int64_t>(most_bytes, 44 * 1024), bytes);
    if (plan.frames_tile < kWarp) plan.frames_tile = frames_that_fit(kWarp / 2, most_bytes, bytes);
  }
  plan.clip_tiles = pieces(N, std::max(plan.clip_tile, 1));
  plan.clip_blocks = plan.clips ? B * plan.clip_tiles : 0;
  plan.frames_tiles = pieces(N, std::max(plan.frames_tile, 1));
  plan.frames_blocks = plan.frames ? B * plan.frames_tiles : 0;
  return plan;
}

template <typename T>
int objective_typed(const ObjectiveRequest& r, int64_t most_bytes, Arena& arena) {
  Queue queue(arena, static_cast<Stream>(r.stream));
  bool on[kTermCount] = {};
  Wanted wanted;
  wanted.count = r.n_terms;
  wanted.lambdas = r.lambdas;
  for (int i = 0; i < r.n_terms; ++i) {
    on[r.term[i]] = true;
    wanted.term[i] = r.term[i];
    wanted.denominator[i] = kTraits[r.term[i]].denominator;
    wanted.lambda[i] = r.lambda[i];
  }
  FinishParams finish{wanted, nullptr, 0, {}, nullptr, r.total, r.values};
  if (r.B == 0 || r.T == 0 || r.J == 0) {
    queue.run(finish_kernel<T>, 1, kSumThreads, kSumBytes, finish);
    return queue.error;
  }
  const Plan plan = plan_of<T>(r, on, most_bytes);
  if (plan.clip_tile == 0 || plan.frames_tile == 0) return kInvalidRequest;  // not with 256 joints on a supported GPU
  const Structure structure = upload(r.tables, arena, queue);

  CallParams<T> call;
  call.pred = input_of(r.pred);
  call.target = input_of(r.target);
  call.weight = input_of(r.weight);
  call.grad = static_cast<T*>(r.grad);
  call.frames = r.T;
  call.joints = int32_t(r.J);
  std::copy(on, on + kTermCount, call.on);

  double *limb_mean = nullptr, *limb_freedom = nullptr;
  if (on[kLimbVariance]) {
    limb_mean = arena.take<double>(r.B * structure.n_bones);
    limb_freedom = arena.take<double>(r.B * structure.n_bones);
    LimbsParams p{call.pred, call.weight, limb_mean, limb_freedom, structure.bones, r.T, structure.n_bones};
    queue.run(limbs_kernel<T>, r.B, kLimbThreads, 0, p);
  }
  call.scale = factors<T>(r, wanted, call.weight, structure, limb_freedom, arena, queue, finish);

  // Each kernel leaves its sums behind those of the one before.
  const int64_t blocks = plan.rows.blocks + plan.clip_blocks + plan.frames_blocks;
  SumRows sums{arena.take<double>(blocks * kTermCount), blocks};
  call.sums = sums.rows;
  if (plan.separate_rows) {
    RowsParams<T> q{call};
    q.rows = r.B * r.J;
    q.grad_step = 3;
    q.grad_offset = 2;
    run_any_rows(q, plan.rows, arena, queue);
    call.sums += plan.rows.blocks * kTermCount;
  }
  if (plan.clips) {
    ClipParams<T> q{call};
    q.tiles = int32_t(plan.clip_tiles);
    q.tile_frames = plan.clip_tile;
    q.weighted_joints = structure.weighted_mpjpe_joints;
    q.consistency_joints = structure.temporal_consistency_joints;
    q.packed = call.pred.packed && (call.target.data == nullptr || call.target.packed);
    q.ranks_in_grad = plan.separate_rows && r.grad != nullptr;
    run_any_clips(q, plan.fused, plan.clip_blocks, plan.warps, queue);
    call.sums += plan.clip_blocks * kTermCount;
  }
  if (plan.frames) {
    FramesParams<T> q{call};
    q.tiles = int32_t(plan.frames_tiles);
    q.tile_frames = plan.frames_tile;
    q.structure = structure;
    q.mean = limb_mean;
    q.freedom = limb_freedom;
    q.targets = plan.frames_target;
    q.neighbours = plan.frames_neighbours;
    q.add_to_grad = plan.clips;
    const int64_t bytes = frames_bytes<T>(r, plan, plan.frames_tile);
    queue.run(frames_kernel<T>, plan.frames_blocks, std::max(plan.frames_tile, kWarp), bytes, q);
  }
  sums = reduced(sums, arena, queue);
  finish.rows = sums.rows;
  finish.count = sums.count;
  queue.run(finish_kernel<T>, 1, kSumThreads, kSumBytes, finish);
  return queue.error;
}

template <typename T>
int ranking_typed(const RankingRequest& r, int64_t most_bytes, Arena& arena) {
  Queue queue(arena, static_cast<Stream>(r.stream));
  Wanted wanted;
  wanted.count = 1;
  wanted.term[0] = kDepthRankingFrames;
  wanted.denominator[0] = Denominator::frame_pairs;
  wanted.lambda[0] = 1;
  T* values = arena.take<T>(1);
  FinishParams finish{wanted, nullptr, 0, {}, nullptr, r.value, values};
  if (r.R == 0 || r.N == 0) {
    queue.run(finish_kernel<T>, 1, kSumThreads, kSumBytes, finish);
    return queue.error;
  }
  // A row is a clip of one joint whose coordinates are all in one place.
  auto rows_of = [](const TensorRequest& x) {
    Input input = input_of(x);
    input.stride[2] = input.stride[3] = 0;
    return input;
  };
  RowsParams<T> q;
  q.pred = rows_of(r.pred);
  q.target = rows_of(r.target);
  q.weight = rows_of(r.weight);
  q.grad = static_cast<T*>(r.grad);
  q.rows = r.R;
  q.frames = r.N;
  q.joints = 1;
  const bool weighted = r.weight.data != nullptr, mean = Reduction(r.reduction) == Reduction::mean;
  if (mean && weighted) {
    CountsParams c{q.weight, {}, nullptr, arena.take<double>(r.R * kTermCount), r.N, 1, 1};
    queue.run(clip_counts_kernel, r.R, kCountThreads, block_sums_bytes(kCountThreads, kClipCounts), c);
    const SumRows counts = reduced({c.sums, r.R}, arena, queue);
    ScalesParams p{};
    p.wanted = wanted;
    p.rows = counts.rows;
    p.count = counts.count;
    p.inverse = arena.take<double>(kTermCount);
    p.scales = arena.take<double>(kTermCount);
    queue.run(scales_kernel<T>, 1, kSumThreads, kSumBytes, p);
    q.scale.device = p.scales;
    finish.inverse = p.inverse;
  } else {
    finish.known[kDepthRankingFrames] = mean ? 1 / (double(r.R) * double(r.N) * double(r.N)) : 1;
    q.scale.value[kDepthRankingFrames] = finish.known[kDepthRankingFrames];
  }
  const RowPlan plan = row_plan<T>(r.R, r.N, weighted, most_bytes);
  q.sums = arena.take<double>(plan.blocks * kTermCount);
  run_any_rows(q, plan, arena, queue);
  const SumRows sums = reduced({q.sums, plan.blocks}, arena, queue);
  finish.rows = sums.rows;
  finish.count = sums.count;
  queue.run(finish_kernel<T>, 1, kSumThreads, kSumBytes, finish);
  return queue.error;
}

int run(const ObjectiveRequest& r, int64_t most_bytes, Arena& arena) {
  return DType(r.dtype) == DType::f32 ? objective_typed<float>(r, most_bytes, arena)
                                      : objective_typed<double>(r, most_bytes, arena);
}
int run(const RankingRequest& r, int64_t most_bytes, Arena& arena) {
  return DType(r.dtype) == DType::f32 ? ranking_typed<float>(r, most_bytes, arena)
                                      : ranking_typed<double>(r, most_bytes, arena);
}

// Without `bytes` runs the request in its workspace, otherwise says how large that has to be.
template <typename Request>
int serve(const Request& request, int64_t* bytes) {
  const DeviceGuard guard(request.device);
  if (guard.error() != 0) return guard.error();
  int64_t most_bytes = 0;
  if (const int error = most_shared_bytes(request.device, &most_bytes)) return error;
  Arena arena(bytes == nullptr ? request.workspace : nullptr);
  const int error = run(request, most_bytes, arena);
  if (bytes != nullptr) *bytes = arena.used();
  return error;
}

}  // namespace
}  // namespace structloss

using namespace structloss;

// All of them return 0, or an error for structloss_cuda_error.
SL_EXPORT int structloss_cuda_objective(const ObjectiveRequest* request) { return serve(*request, nullptr); }
SL_EXPORT int structloss_cuda_objective_bytes(const ObjectiveRequest* request, int64_t* bytes) {
  return serve(*request, bytes);
}
SL_EXPORT int structloss_cuda_ranking(const RankingRequest* request) { return serve(*request, nullptr); }
SL_EXPORT int structloss_cuda_ranking_bytes(const RankingRequest* request, int64_t* bytes) {
  return serve(*request, bytes);
}
// grad *= by, both of `dtype`; `by` is one number in device memory.
SL_EXPORT int structloss_cuda_scale(void* stream, int32_t device, int32_t dtype, void* grad, const void* by,
                                    int64_t count) {
  const DeviceGuard guard(device);
  if (guard.error() != 0) return guard.error();
  const auto kernel = DType(dtype) == DType::f32 ? scale_kernel<float> : scale_kernel<double>;
  const int64_t blocks = std::min(pieces(count, kSumThreads), kMostScaleBlocks);
  return launch(kernel, blocks, kSumThreads, 0, static_cast<Stream>(stream), ScaleParams{grad, by, count, blocks});
}
// Whether this device and its driver can run the kernels.
SL_EXPORT int structloss_cuda_probe(int32_t device) {
  const DeviceGuard guard(device);
  return guard.error() != 0 ? guard.error() : probe(clip_kernel<float, 8, false>);
}
SL_EXPORT const char* structloss_cuda_error(int error) { return error_text(error); }
SL_EXPORT const char* structloss_cuda_term(int term) { return term < kTermCount ? term_name(term) : nullptr; }
// Sizes of the requests as compiled, for Python to compare with its own.
SL_EXPORT int64_t structloss_cuda_sizes(int which) {
  return which == 0 ? sizeof(ObjectiveRequest) : which == 1 ? sizeof(RankingRequest) : sizeof(TablesRequest);
}
#if !defined(__CUDACC__)
// The build that runs on the CPU only, for tests: order of the threads (0: as they come), which barrier of a block to
// leave out (-1: none), shared memory of a block.
SL_EXPORT void structloss_emulation_seed(uint64_t seed) { emulation::Block::one().seed = seed; }
SL_EXPORT void structloss_emulation_leave_out(int32_t barrier) { emulation::Block::one().left_out = barrier; }
SL_EXPORT void structloss_emulation_shared_bytes(int64_t bytes) { emulated_shared_bytes() = bytes; }
#endif

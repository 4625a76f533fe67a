// Parts of a shape template on the GPU: which kernels run for a call. As in objective.cu there is no torch, nothing waits
// for the device, and without a CUDA compiler the kernels run on the CPU (emulate.hpp).
#include "parts.hpp"

#include <algorithm>

#include "export.h"
#include "request.h"

namespace structloss {
namespace {

template <typename T>
PartsInput<T> input_of(const PartsRequest& r) {
  return {static_cast<const T*>(r.matrices), static_cast<const T*>(r.templates), r.parts, r.template_parts,
          int32_t(r.size)};
}

int32_t splits_of(const PartsRequest& r) { return int32_t((r.size + kSplitRows - 1) / kSplitRows); }

template <typename T>
int draw(const PartsRequest& r) {
  DrawParams<T> q{input_of<T>(r), static_cast<T*>(r.out), 0, 0};
  q.tile_rows = int32_t(std::max<int64_t>(kTilePixels / r.size, 1));
  q.tiles = int32_t((r.size + q.tile_rows - 1) / q.tile_rows);
  constexpr int kWidth = 16 / int(sizeof(T));
  const bool packed = r.size % kWidth == 0 && reinterpret_cast<uintptr_t>(r.out) % 16 == 0;
  return launch(packed ? draw_parts_kernel<T, kWidth> : draw_parts_kernel<T, 1>, r.parts * q.tiles, kPartThreads,
                kPlaceBytes<T>, static_cast<Stream>(r.stream), q);
}

template <typename T>
int differentiate(const PartsRequest& r) {
  const PartsInput<T> in = input_of<T>(r);
  const Stream stream = static_cast<Stream>(r.stream);
  double* sums = static_cast<double*>(r.workspace);
  PartSumParams<T> q{in, static_cast<const T*>(r.grad), {}, sums, splits_of(r)};
  std::copy(r.grad_stride, r.grad_stride + 4, q.stride);
  const int error = launch(sum_parts_kernel<T>, r.parts * q.splits, kPartThreads, kPartSumBytes<T>, stream, q);
  if (error != 0) return error;
  const ChainParams<T> c{in, sums, static_cast<T*>(r.out), q.splits};
  return launch(chain_parts_kernel<T>, (r.parts + kChainThreads - 1) / kChainThreads, kChainThreads, 0, stream, c);
}

}  // namespace
}  // namespace structloss

using namespace structloss;

// Both return 0, or an error for structloss_cuda_error. Without `grad` the parts are drawn into `out`.
SL_EXPORT int structloss_cuda_parts(const PartsRequest* request) {
  const PartsRequest& r = *request;
  const DeviceGuard guard(r.device);
  if (guard.error() != 0) return guard.error();
  const bool single = DType(r.dtype) == DType::f32;
  if (r.grad == nullptr) return single ? draw<float>(r) : draw<double>(r);
  return single ? differentiate<float>(r) : differentiate<double>(r);
}
// Bytes of `workspace`.
SL_EXPORT int64_t structloss_cuda_parts_bytes(const PartsRequest* request) {
  if (request->grad == nullptr) return 0;
  return request->parts * splits_of(*request) * kPartSums * int64_t(sizeof(double));
}
// The size of the request as compiled, for Python to compare with its own.
SL_EXPORT int64_t structloss_cuda_parts_request_bytes() { return sizeof(PartsRequest); }

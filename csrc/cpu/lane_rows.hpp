// The ranking hinge of rows side by side, one a SIMD lane: what rank.hpp computes of one row, for up to 1024 elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "instruction_sets.hpp"
#include "lane_sort.hpp"

namespace structloss {

// Wide vectors for rows up to this length: longer ones leave the first-level cache.
constexpr int64_t kWideUpTo = 512;
constexpr int kMostLaneBytes = 64;
template <typename T>
constexpr int kMostLanes = kMostLaneBytes / int(sizeof(T));

// Working memory for a group of rows of up to kMostSorted elements; one per thread.
template <typename T>
class LaneMemory {
 public:
  using Key = typename Lanes<T, 16>::Key;
  T *p = nullptr, *d = nullptr;            // [n][lanes]; what has no weight is made harmless
  T *w = nullptr;                          // [n][lanes], only with weights
  Key *by_p = nullptr, *by_d = nullptr;    // sorted keys [sorted_size(n)][lanes]
  T* g = nullptr;                          // [n][lanes]: the scaled gradient; before, g itself as keys
  double* row = nullptr;                   // [n]: g of a row that is looked at by itself
  double* places = nullptr;                // [n]: its ranks by place in the order of p

  void reserve(int64_t n) {
    // Arrays of powers of two would all begin in the same place of the cache.
    const size_t array = size_t(kMostLaneBytes) * size_t(sorted_size(n)) + 192;
    const size_t bytes = 6 * array + size_t(n) * 2 * sizeof(double) + 64;
    if (bytes > size_) {
      memory_.reset(new unsigned char[bytes]);
      size_ = bytes;
    }
    unsigned char* at = memory_.get();
    at += (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64;
    auto take = [&at](auto*& to, size_t size) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(at);
      at += size;
    };
    take(p, array), take(d, array), take(by_p, array), take(by_d, array), take(g, array), take(w, array);
    take(row, size_t(n) * sizeof(double)), take(places, size_t(n) * sizeof(double));
  }

 private:
  std::unique_ptr<unsigned char[]> memory_;
  size_t size_ = 0;
};

// Ranks rows side by side in vectors of as many bytes: m.p, m.d and (if `weighted`) m.w [n][lanes] hold them. Leaves the
// scaled gradient in m.g [n][lanes] and the unreduced loss of each row in `loss` [lanes]; what is beyond is as in
// hinge_row. Weights are for vectors of kLongLaneBytes. Every row's result is that of its own numbers alone, whatever its lane and its neighbours.
#define SL_DECLARE_RANK_ROWS(SET, BYTES)                                                                              \
  void rank_rows(SET, VectorBytes<BYTES>, LaneMemory<float>& m, int64_t n, bool weighted, double scale, double* loss); \
  void rank_rows(SET, VectorBytes<BYTES>, LaneMemory<double>& m, int64_t n, bool weighted, double scale, double* loss);
SL_DECLARE_RANK_ROWS(Plain, 16)
#if SL_HAS_X86
SL_DECLARE_RANK_ROWS(Avx2, 32)
SL_DECLARE_RANK_ROWS(Avx512, 32)
SL_DECLARE_RANK_ROWS(Avx512, 64)
#endif
#undef SL_DECLARE_RANK_ROWS

}  // namespace structloss

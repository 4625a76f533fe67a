// Terms that need one frame or its neighbour, and their gradients, on a block of frames in structure-of-arrays form.
#pragma once

#include <cmath>
#include <cstdint>

#include "rank.hpp"

namespace structloss {

// Frames per block: the arrays of a 17-joint block fit the first-level cache together.
constexpr int kBlock = 32;

// One block of `kBlock` frames (fewer at the end of a clip; the rest is padded with zeros), gathered from any strides.
// Arrays are [J][kBlock].
template <typename T>
struct Block {
  std::vector<T> px, py, pz, dx, dy, dz;  // dx, dy, dz: the target
  std::vector<T> gx, gy, gz;              // gradient of the weighted total
  std::vector<double> w;
  std::vector<typename RankTraits<T>::Count> pairs;  // spatial hinge: twice g
  std::vector<double> pairs_weighted;

  void reserve(int64_t J, bool weighted) {
    const size_t n = size_t(J) * kBlock;
    for (auto* v : {&px, &py, &pz, &dx, &dy, &dz, &gx, &gy, &gz}) v->resize(n);
    pairs.resize(n);
    if (weighted) {
      w.resize(n);
      pairs_weighted.resize(n);
    }
  }
};

// Position error |p - d| of every joint (MPJPE). Adds scale * de/dp to the gradient; zero where the error is zero.
template <typename T>
SL_INLINE double mpjpe_block(Block<T>& b, int64_t J, bool weighted, double scale, bool need_grad) {
  double sum = 0;
  const T s = T(scale);
  for (int64_t k = 0; k < J; ++k) {
    const int64_t o = k * kBlock;
    T error[kBlock], factor[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      const T x = b.px[o + i] - b.dx[o + i], y = b.py[o + i] - b.dy[o + i], z = b.pz[o + i] - b.dz[o + i];
      error[i] = std::sqrt(x * x + y * y + z * z);
    }
    if (weighted) {
      for (int i = 0; i < kBlock; ++i) sum += b.w[o + i] * double(error[i]);
    } else {
      for (int i = 0; i < kBlock; ++i) sum += double(error[i]);
    }
    if (!need_grad) continue;
    for (int i = 0; i < kBlock; ++i) factor[i] = error[i] == T(0) ? T(0) : s / error[i];
    if (weighted)
      for (int i = 0; i < kBlock; ++i) factor[i] *= T(b.w[o + i]);
    for (int i = 0; i < kBlock; ++i) {
      b.gx[o + i] += factor[i] * (b.px[o + i] - b.dx[o + i]);
      b.gy[o + i] += factor[i] * (b.py[o + i] - b.dy[o + i]);
      b.gz[o + i] += factor[i] * (b.pz[o + i] - b.dz[o + i]);
    }
  }
  return sum;
}

// Depth ranking over the joints of each frame (RePOSE's L_S), all frames of the block side by side.
template <typename T>
SL_INLINE double depth_ranking_joints_block(Block<T>& b, int64_t J, bool weighted, double scale, bool need_grad) {
  using Count = typename RankTraits<T>::Count;
  double mean[kBlock], total[kBlock], invalid[kBlock];
  for (int i = 0; i < kBlock; ++i) mean[i] = total[i] = invalid[i] = 0;
  for (int64_t k = 0; k < J; ++k) {
    const int64_t o = k * kBlock;
    for (int i = 0; i < kBlock; ++i) {
      const double w = weighted ? double(b.w[o + i] > 0) : 1.0;
      mean[i] += double(b.pz[o + i]);
      total[i] += w;
      // NaN where p or d is NaN, else 0: one NaN takes the whole frame's row with it.
      invalid[i] += (b.pz[o + i] != b.pz[o + i] || b.dz[o + i] != b.dz[o + i])
                        ? std::numeric_limits<double>::quiet_NaN()
                        : 0.0;
    }
  }
  for (int i = 0; i < kBlock; ++i) mean[i] /= total[i] > 0 ? total[i] : 1;

  double sum = 0;
  if (weighted) {
    for (auto& x : b.pairs_weighted) x = 0;
    for (int64_t j = 0; j < J; ++j) {
      for (int64_t k = j + 1; k < J; ++k) {
        const int64_t oj = j * kBlock, ok = k * kBlock;
        for (int i = 0; i < kBlock; ++i) {
          const double c = double(pair_count<T, Count>(b.pz[oj + i], b.pz[ok + i], b.dz[oj + i], b.dz[ok + i]));
          b.pairs_weighted[oj + i] += c * b.w[ok + i];
          b.pairs_weighted[ok + i] -= c * b.w[oj + i];
        }
      }
    }
  } else {
    for (auto& x : b.pairs) x = 0;
    for (int64_t j = 0; j < J; ++j) {
      for (int64_t k = j + 1; k < J; ++k) {
        const int64_t oj = j * kBlock, ok = k * kBlock;
        Count* cj = b.pairs.data() + oj;
        Count* ck = b.pairs.data() + ok;
        const T *pj = b.pz.data() + oj, *pk = b.pz.data() + ok, *dj = b.dz.data() + oj, *dk = b.dz.data() + ok;
        for (int i = 0; i < kBlock; ++i) {
          const Count c = pair_count<T, Count>(pj[i], pk[i], dj[i], dk[i]);
          cj[i] += c;
          ck[i] -= c;
        }
      }
    }
  }
  for (int64_t k = 0; k < J; ++k) {
    const int64_t o = k * kBlock;
    for (int i = 0; i < kBlock; ++i) {
      // Without weight there is no gradient, not even a NaN one from a neighbour in the row.
      const double taint = weighted && b.w[o + i] == 0 ? 0.0 : invalid[i];
      const double g =
          0.5 * (weighted ? b.w[o + i] * b.pairs_weighted[o + i] : double(b.pairs[o + i])) + taint;
      sum += (double(b.pz[o + i]) - mean[i]) * g;
      if (need_grad) b.gz[o + i] += T(scale * g);
    }
  }
  return sum;
}

}  // namespace structloss

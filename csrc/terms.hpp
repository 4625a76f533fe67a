// Terms that need one frame or its neighbour, and their gradients, on a block of frames in structure-of-arrays form.
#pragma once

#include <cmath>
#include <cstdint>

#include "rank.hpp"

namespace structloss {

// Frames per block: the arrays of a 17-joint block fit the first-level cache together.
constexpr int kBlock = 32;

// One block of `kBlock` frames (fewer at the end of a clip; the rest is padded with zeros), gathered from any strides.
// Arrays are [J][kBlock], but for the depths: those may be columns of a whole clip's, so that the temporal rows need no
// second gather.
template <typename T>
struct Block {
  T *pz, *dz;        // depths of joint 0, predicted and target
  int64_t z_stride;  // from one joint's depths to the next one's
  std::vector<T> px, py, dx, dy;          // dx, dy: the target
  std::vector<T> own_pz, own_dz;          // where pz and dz point without a clip's memory
  std::vector<T> gx, gy, gz;              // gradient of the weighted total
  std::vector<double> w;
  std::vector<typename RankTraits<T>::Count> pairs;  // spatial hinge: twice g
  std::vector<double> pairs_weighted;

  void reserve(int64_t J, bool weighted) {
    const size_t n = size_t(J) * kBlock;
    for (auto* v : {&px, &py, &dx, &dy, &own_pz, &own_dz, &gx, &gy, &gz}) v->resize(n);
    pz = own_pz.data();
    dz = own_dz.data();
    z_stride = kBlock;
    pairs.resize(n);
    if (weighted) {
      w.resize(n);
      pairs_weighted.resize(n);
    }
  }
};

SL_INLINE double sum_lanes(const double* lane) {
  double sum = 0;
  for (int i = 0; i < kBlock; ++i) sum += lane[i];
  return sum;
}

// Position error |p - d| of every joint (MPJPE). Adds scale * de/dp to the gradient; zero where the error is zero.
template <typename T>
SL_INLINE double mpjpe_block(Block<T>& b, int64_t J, bool weighted, double scale, bool need_grad) {
  double sum[kBlock] = {};  // one a frame, so that the additions need not wait for each other
  const T s = T(scale);
  for (int64_t k = 0; k < J; ++k) {
    const int64_t o = k * kBlock;
    const T *px = b.px.data() + o, *py = b.py.data() + o, *pz = b.pz + k * b.z_stride;
    const T *dx = b.dx.data() + o, *dy = b.dy.data() + o, *dz = b.dz + k * b.z_stride;
    T x[kBlock], y[kBlock], z[kBlock], error[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      x[i] = px[i] - dx[i];
      y[i] = py[i] - dy[i];
      z[i] = pz[i] - dz[i];
      error[i] = std::sqrt(x[i] * x[i] + y[i] * y[i] + z[i] * z[i]);
    }
    if (weighted) {
      const double* w = b.w.data() + o;
      for (int i = 0; i < kBlock; ++i) sum[i] += w[i] * double(error[i]);
    } else {
      for (int i = 0; i < kBlock; ++i) sum[i] += double(error[i]);
    }
    if (!need_grad) continue;
    // A divisor of 1 in place of 0 leaves the zero difference zero.
    for (int i = 0; i < kBlock; ++i) error[i] = s / (error[i] == T(0) ? T(1) : error[i]);
    if (weighted) {
      const double* w = b.w.data() + o;
      for (int i = 0; i < kBlock; ++i) error[i] *= T(w[i]);
    }
    T *gx = b.gx.data() + o, *gy = b.gy.data() + o, *gz = b.gz.data() + o;
    for (int i = 0; i < kBlock; ++i) {
      gx[i] += error[i] * x[i];
      gy[i] += error[i] * y[i];
      gz[i] += error[i] * z[i];
    }
  }
  return sum_lanes(sum);
}

// Depth ranking over the joints of each frame (RePOSE's L_S), all frames of the block side by side.
template <typename T>
SL_INLINE double depth_ranking_joints_block(Block<T>& b, int64_t J, bool weighted, double scale, bool need_grad) {
  using Count = typename RankTraits<T>::Count;
  double mean[kBlock] = {}, total[kBlock] = {}, invalid[kBlock] = {}, sum[kBlock] = {};
  for (int64_t k = 0; k < J; ++k) {
    const T *p = b.pz + k * b.z_stride, *d = b.dz + k * b.z_stride;
    for (int i = 0; i < kBlock; ++i) {
      mean[i] += double(p[i]);
      // Counts the NaNs of p and d: one takes the whole frame's row with it.
      invalid[i] += double(Count(p[i] != p[i]) + Count(d[i] != d[i]));
    }
    if (weighted) {
      const double* w = b.w.data() + k * kBlock;
      for (int i = 0; i < kBlock; ++i) total[i] += w[i] > 0 ? 1.0 : 0.0;
    } else {
      for (int i = 0; i < kBlock; ++i) total[i] += 1.0;
    }
  }
  for (int i = 0; i < kBlock; ++i) {
    mean[i] /= total[i] > 0 ? total[i] : 1.0;
    invalid[i] = invalid[i] > 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
  }
  std::fill(b.pairs.begin(), b.pairs.end(), Count(0));
  if (weighted) std::fill(b.pairs_weighted.begin(), b.pairs_weighted.end(), 0.0);
  for (int64_t j = 0; j < J; ++j) {
    const T *pj = b.pz + j * b.z_stride, *dj = b.dz + j * b.z_stride;
    for (int64_t k = j + 1; k < J; ++k) {
      const T *pk = b.pz + k * b.z_stride, *dk = b.dz + k * b.z_stride;
      Count c[kBlock];
      for (int i = 0; i < kBlock; i += RankTraits<T>::kLanes) {
        const auto v = pair_count<T>(load<T>(pj + i), load<T>(pk + i), load<T>(dj + i), load<T>(dk + i));
        std::memcpy(c + i, &v, sizeof v);
      }
      if (weighted) {
        const double *wj = b.w.data() + j * kBlock, *wk = b.w.data() + k * kBlock;
        double *gj = b.pairs_weighted.data() + j * kBlock, *gk = b.pairs_weighted.data() + k * kBlock;
        for (int i = 0; i < kBlock; ++i) {
          gj[i] += double(c[i]) * wk[i];
          gk[i] -= double(c[i]) * wj[i];
        }
      } else {
        Count *gj = b.pairs.data() + j * kBlock, *gk = b.pairs.data() + k * kBlock;
        for (int i = 0; i < kBlock; ++i) {
          gj[i] += c[i];
          gk[i] -= c[i];
        }
      }
    }
  }
  for (int64_t k = 0; k < J; ++k) {
    const T* p = b.pz + k * b.z_stride;
    double g[kBlock];
    if (weighted) {
      const double *w = b.w.data() + k * kBlock, *c = b.pairs_weighted.data() + k * kBlock;
      // Without weight there is no gradient, not even a NaN one from a neighbour in the row.
      for (int i = 0; i < kBlock; ++i) g[i] = 0.5 * w[i] * c[i] + (w[i] == 0 ? 0.0 : invalid[i]);
    } else {
      const Count* c = b.pairs.data() + k * kBlock;
      for (int i = 0; i < kBlock; ++i) g[i] = 0.5 * double(c[i]) + invalid[i];
    }
    for (int i = 0; i < kBlock; ++i) sum[i] += (double(p[i]) - mean[i]) * g[i];
    if (!need_grad) continue;
    T* gz = b.gz.data() + k * kBlock;
    for (int i = 0; i < kBlock; ++i) gz[i] += T(scale * g[i]);
  }
  return sum_lanes(sum);
}

}  // namespace structloss

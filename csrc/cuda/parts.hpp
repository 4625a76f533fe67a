// Parts of a shape template on the GPU, drawn and differentiated, each within its own box. ellipse.hpp has the
// formulas: w_x = xx (q_x - m_x + slope (q_y - m_y)) and w_y = yy (q_y - m_y) at pixel q, five sums over a part's pixels.
#pragma once

#include <cmath>

#include "../ellipse.hpp"
#include "device.hpp"

namespace structloss {

SL_DEVICE float part_exp(float x) { return expf(x); }
SL_DEVICE double part_exp(double x) { return exp(x); }
SL_DEVICE float part_root(float x) { return sqrtf(x); }
SL_DEVICE double part_root(double x) { return sqrt(x); }

template <typename T>
struct PartsInput {
  const T* matrices;  // [parts][2][3]
  const T* templates;  // [template_parts][6]: row and column of the centre, scales across rows and columns, angle, peak
  int64_t parts, template_parts;
  int32_t size;
};

// ---- where a part is ------------------------------------------------------------------------------------------------

template <typename T>
SL_DEVICE Seen seen_of(const PartsInput<T>& q, int64_t part, Ellipse& e) {
  const Seen seen = ellipse_of(q.matrices + part * 6, q.templates + part % q.template_parts * 6, e);
  // What is too thin for the parts' type has no area either.
  const bool thin = seen == Seen::part && !(is_finite(double(T(e.xx))) && is_finite(double(T(e.xx * e.slope))) &&
                                            is_finite(double(T(e.yy))));
  return thin ? Seen::nothing : seen;
}

// What the pixels of a part need to know. The centre is a pixel and the rest from there: so it keeps its digits in
// float32.
template <typename T>
struct Place {
  int32_t first_x, last_x, first_y, last_y;  // the box; empty where nothing is to be seen
  T pixel_x, pixel_y, rest_x, rest_y;
  T xx, xy, yy;  // w_x = xx dx + xy dy, w_y = yy dy
  T slope, per_xx;
  T peak, fill;  // fill: the value beyond reach
};

// Pixels within `extent` of `centre`; the whole image where that cannot be told.
SL_DEVICE void interval(double centre, double extent, int32_t size, int32_t& first, int32_t& last) {
  const double from = ceil(centre - extent), to = floor(centre + extent);
  first = from > 0 ? (from < size ? int32_t(from) : size) : 0;
  last = to < size - 1 ? (to >= 0 ? int32_t(to) : -1) : size - 1;
}

SL_DEVICE double nearest_pixel(double x, int32_t size) { return floor(fmin(fmax(x, 0.0), double(size - 1)) + 0.5); }

template <typename T>
SL_DEVICE Place<T> place_of(const PartsInput<T>& q, int64_t part) {
  Place<T> p{};
  Ellipse e;
  const Seen seen = seen_of(q, part, e);
  p.fill = seen == Seen::invalid ? std::numeric_limits<T>::quiet_NaN() : T(0);
  p.last_x = p.last_y = -1;
  if (seen != Seen::part) return p;
  // The ellipse's extents are the lengths of the rows of the inverse, [[1 / xx, -slope / yy], [0, 1 / yy]].
  interval(e.mean_x, Reach<T>::kScales * hypot(1 / e.xx, e.slope / e.yy), q.size, p.first_x, p.last_x);
  interval(e.mean_y, Reach<T>::kScales / e.yy, q.size, p.first_y, p.last_y);
  const double x = nearest_pixel(e.mean_x, q.size), y = nearest_pixel(e.mean_y, q.size);
  p.pixel_x = T(x);
  p.pixel_y = T(y);
  p.rest_x = T(e.mean_x - x);
  p.rest_y = T(e.mean_y - y);
  p.xx = T(e.xx);
  p.xy = T(e.xx * e.slope);
  p.yy = T(e.yy);
  p.slope = T(e.slope);
  p.per_xx = T(1 / e.xx);
  p.peak = q.templates[part % q.template_parts * 6 + 5];
  return p;
}

// A row of pixels: how far it is from the centre, and w_y.
template <typename T>
struct PlaceRow {
  T dy, first, w_y, square;  // first: w_x at dx = 0; square: w_y^2
};
template <typename T>
SL_DEVICE PlaceRow<T> row_of(const Place<T>& p, int32_t y) {
  const T dy = (T(y) - p.pixel_y) - p.rest_y, w_y = p.yy * dy;
  return {dy, p.xy * dy, w_y, w_y * w_y};
}

// w_x at a pixel, and |w|^2.
template <typename T>
struct PlacePixel {
  T w_x, square;
};
template <typename T>
SL_DEVICE PlacePixel<T> pixel_of(const Place<T>& p, const PlaceRow<T>& row, int32_t x) {
  const T w_x = p.xx * ((T(x) - p.pixel_x) - p.rest_x) + row.first;
  return {w_x, w_x * w_x + row.square};
}
template <typename T>
constexpr T kReachSquare = T(Reach<T>::kScales * Reach<T>::kScales);
template <typename T>
SL_DEVICE bool within_reach(const PlacePixel<T>& pixel) {
  return pixel.square <= kReachSquare<T>;
}
template <typename T>
SL_DEVICE T value_at(const Place<T>& p, const PlacePixel<T>& pixel) {
  return p.peak * part_exp(T(-0.5) * pixel.square);
}

// One thread places the part for all of its block.
template <typename T>
SL_DEVICE Place<T> shared_place(const PartsInput<T>& q, int64_t part) {
  Place<T>* place = reinterpret_cast<Place<T>*>(shared_memory());
  if (thread_index() == 0) *place = place_of(q, part);
  sync_block();
  return *place;
}
template <typename T>
constexpr int64_t kPlaceBytes = (sizeof(Place<T>) + 15) / 16 * 16;

// ---- drawing --------------------------------------------------------------------------------------------------------

constexpr int kPartThreads = 256;
// A block draws so many pixels of a part, in whole rows.
constexpr int32_t kTilePixels = 16384;

template <typename T>
struct DrawParams {
  PartsInput<T> in;
  T* out;  // [parts][size][size]
  int32_t tiles, tile_rows;
};

// So many neighbours are stored at once.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pixels {
  T value[kWidth];
};

// The output is all that moves: nothing is computed outside a part's box, and what is stored is 16 bytes a thread,
// unless rows do not begin there.
template <typename T, int kWidth>
SL_KERNEL(kPartThreads) draw_parts_kernel(DrawParams<T> q) {
  const int64_t part = block_index() / q.tiles, size = q.in.size;
  const int32_t top = int32_t(block_index() % q.tiles) * q.tile_rows;
  const Place<T> p = shared_place(q.in, part);
  const int32_t rows = q.tile_rows < q.in.size - top ? q.tile_rows : q.in.size - top;
  const uint32_t row_packs = uint32_t(q.in.size) / kWidth, packs = uint32_t(rows) * row_packs;
  auto* out = reinterpret_cast<Pixels<T, kWidth>*>(q.out + (part * size + top) * size);
  for (uint32_t i = uint32_t(thread_index()); i < packs; i += kPartThreads) {
    const uint32_t row = i / row_packs;
    const int32_t y = top + int32_t(row), x = int32_t(i - row * row_packs) * kWidth;
    Pixels<T, kWidth> pixels;
    SL_UNROLLED
    for (int k = 0; k < kWidth; ++k) pixels.value[k] = p.fill;
    if (y >= p.first_y && y <= p.last_y && x + kWidth > p.first_x && x <= p.last_x) {
      const PlaceRow<T> line = row_of(p, y);
      SL_UNROLLED
      for (int k = 0; k < kWidth; ++k) {
        const PlacePixel<T> pixel = pixel_of(p, line, x + k);
        if (within_reach(pixel)) pixels.value[k] = value_at(p, pixel);
      }
    }
    out[i] = pixels;
  }
}

// ---- the gradient ---------------------------------------------------------------------------------------------------

// Blocks that share a part's rows; by size alone, so that no other part changes a gradient.
constexpr int32_t kSplitRows = 64;
// Pixels that a thread loads before it waits for the first.
constexpr int kLoads = 4;
constexpr int kPartSums = 5;  // of h times w_x, w_y, w_x^2, w_x w_y, w_y^2

template <typename T>
struct PartSumParams {
  PartsInput<T> in;
  const T* grad;  // [parts / template_parts][template_parts][size][size]
  int64_t stride[4];
  double* sums;  // [splits][kPartSums][parts]
  int32_t splits;
};

// A sum and what its additions lost.
template <typename T>
struct LongSum {
  T sum = 0, lost = 0;
  SL_DEVICE void add(T x) {
    const T total = sum + x;
    lost += fabs(sum) >= fabs(x) ? (sum - total) + x : (x - total) + sum;
    sum = total;
  }
};

// A warp takes a row of the ellipse: sums along it in the parts' type, of rows with what that loses, of threads and warps
// in float64; always in the same order.
template <typename T>
SL_KERNEL(kPartThreads) sum_parts_kernel(PartSumParams<T> q) {
  const int64_t part = block_index() / q.splits;
  const int32_t split = int32_t(block_index() % q.splits);
  const Place<T> p = shared_place(q.in, part);
  const T* grad = q.grad + part / q.in.template_parts * q.stride[0] + part % q.in.template_parts * q.stride[1];
  LongSum<T> sums[kPartSums];
  for (int32_t y = p.first_y + split * warp_count() + warp_index(); y <= p.last_y; y += q.splits * warp_count()) {
    const PlaceRow<T> line = row_of(p, y);
    // Where the row meets the ellipse, with a pixel to spare for rounding; a NaN leaves the box as it is.
    const T rest = kReachSquare<T> - line.square, half = part_root(rest > 0 ? rest : T(0)) * p.per_xx + 1;
    const T centre = p.pixel_x + (p.rest_x - p.slope * line.dy), from = centre - half, to = centre + half;
    const int32_t first = from > T(p.first_x) ? (from < T(p.last_x) ? int32_t(from) : p.last_x) : p.first_x;
    const int32_t last = to < T(p.last_x) ? (to > T(p.first_x) ? int32_t(to) : p.first_x) : p.last_x;
    const T* row = grad + y * q.stride[2];
    T weight = 0, first_moment = 0, second_moment = 0;
    for (int32_t x = first + lane_index(); x <= last; x += kLoads * kWarp) {
      T g[kLoads];
      SL_UNROLLED
      for (int k = 0; k < kLoads; ++k) g[k] = x + k * kWarp <= last ? row[(x + k * kWarp) * q.stride[3]] : T(0);
      SL_UNROLLED
      for (int k = 0; k < kLoads; ++k) {
        const PlacePixel<T> pixel = pixel_of(p, line, x + k * kWarp);
        // Beyond reach not even an infinite gradient counts.
        if (within_reach(pixel)) {
          const T h = g[k] * value_at(p, pixel), along_x = h * pixel.w_x;
          weight += h;
          first_moment += along_x;
          second_moment += along_x * pixel.w_x;
        }
      }
    }
    sums[0].add(first_moment);
    sums[1].add(weight * line.w_y);
    sums[2].add(second_moment);
    sums[3].add(first_moment * line.w_y);
    sums[4].add(weight * line.square);
  }
  double* of_warps = reinterpret_cast<double*>(shared_memory() + kPlaceBytes<T>);  // [warps][kPartSums]
  SL_UNROLLED
  for (int k = 0; k < kPartSums; ++k) {
    const double sum = warp_sum(double(sums[k].sum) + double(sums[k].lost));
    if (lane_index() == 0) of_warps[warp_index() * kPartSums + k] = sum;
  }
  sync_block();
  if (thread_index() < kPartSums) {
    double sum = 0;
    for (int w = 0; w < warp_count(); ++w) sum += of_warps[w * kPartSums + thread_index()];
    q.sums[(split * int64_t(kPartSums) + thread_index()) * q.in.parts + part] = sum;
  }
}
template <typename T>
constexpr int64_t kPartSumBytes = kPlaceBytes<T> + kPartThreads / kWarp * kPartSums * int64_t(sizeof(double));

template <typename T>
struct ChainParams {
  PartsInput<T> in;
  const double* sums;  // [splits][kPartSums][parts]
  T* out;              // [parts][2][3]
  int32_t splits;
};

constexpr int kChainThreads = 64;

// One thread per part: from the sums to the matrix.
template <typename T>
SL_KERNEL(kChainThreads) chain_parts_kernel(ChainParams<T> q) {
  const int64_t part = block_index() * kChainThreads + thread_index();
  if (part >= q.in.parts) return;
  double sums[kPartSums] = {};
  for (int32_t split = 0; split < q.splits; ++split)
    for (int k = 0; k < kPartSums; ++k) sums[k] += q.sums[(split * int64_t(kPartSums) + k) * q.in.parts + part];
  Ellipse e;
  const Seen seen = seen_of(q.in, part, e);
  double gradient[6] = {};
  if (seen == Seen::part)
    matrix_gradient(q.in.matrices + part * 6, q.in.templates + part % q.in.template_parts * 6, e,
                    Moments{sums[0], sums[1], sums[2], sums[3], sums[4]}, gradient);
  for (int i = 0; i < 6; ++i)
    q.out[part * 6 + i] = seen == Seen::invalid ? std::numeric_limits<T>::quiet_NaN() : T(gradient[i]);
}

}  // namespace structloss

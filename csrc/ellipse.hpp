// A part of a shape template in the image: from its matrix and its Gaussian to five numbers, and back from their gradient.
//
//   part(q) = peak exp(-|w|^2 / 2),  w = K (q - m),  m = A (column, row, 1),  K = D R A_lin^-1
//
// q = (x, y) is a pixel; D R takes template coordinates relative to the part's centre to its axes, in units of its scales:
//
//   R = [[-sin, cos], [cos, sin]]        D = diag(1 / s_row, 1 / s_column)
//
// A rotation from the left leaves |w| as it is, so K may be made upper triangular: w_y depends on the row alone, and w_x
// is linear along it. Where the part is within reach r is then an interval in every row,
//
//   |x - zero(y)| <= sqrt(r^2 - w_y^2) / xx,  zero(y) = m_x - slope (y - m_y),
//
// and no squares of large numbers are subtracted, as they are in the form with Q = K^T K.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define SL_ELLIPSE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define SL_ELLIPSE inline __attribute__((always_inline))
#else
#define SL_ELLIPSE inline
#endif

namespace structloss {

// Scales beyond which a part is 0: exp(-5.3^2 / 2) is 8e-7, exp(-8.7^2 / 2) below the rounding of 1.
template <typename T>
struct Reach;
template <>
struct Reach<float> {
  static constexpr double kScales = 5.3;
};
template <>
struct Reach<double> {
  static constexpr double kScales = 8.7;
};

enum class Seen { part, nothing, invalid };  // nothing: a singular matrix; invalid: one that is not finite

struct Ellipse {
  double mean_x, mean_y;  // m, pixels
  double xx, yy, slope;   // w_x = xx (q_x - m_x + slope (q_y - m_y)), w_y = yy (q_y - m_y)
};

SL_ELLIPSE bool is_finite(double x) { return x - x == 0; }

// Of a matrix [2][3] and a part (row, column, s_row, s_column, angle, peak). The same steps as ops/parts/geometry.py.
template <typename T>
SL_ELLIPSE Seen ellipse_of(const T* matrix, const T* part, Ellipse& e) {
  bool finite = true;
  for (int i = 0; i < 6; ++i) finite = finite && is_finite(double(matrix[i])) && is_finite(double(part[i]));
  if (!finite) return Seen::invalid;
  const double a = matrix[0], b = matrix[1], tx = matrix[2], c = matrix[3], d = matrix[4], ty = matrix[5];
  const double row = part[0], column = part[1], s_row = part[2], s_column = part[3], angle = part[4];
  const double sine = sin(angle), cosine = cos(angle), size = fabs(a * d - b * c);
  // K = D R [[d, -b], [-c, a]] / det A. The length and direction of its first column, then the rotation.
  const double first_x = (-sine * d - cosine * c) / s_row, first_y = (cosine * d - sine * c) / s_column;
  const double second_x = (sine * b + cosine * a) / s_row, second_y = (sine * a - cosine * b) / s_column;
  const double length = hypot(first_x, first_y);
  e.mean_x = a * column + b * row + tx;
  e.mean_y = c * column + d * row + ty;
  e.xx = length / size;
  e.slope = (first_x / length * second_x + first_y / length * second_y) / length;
  e.yy = 1 / (s_row * s_column * length);  // det K / xx
  const bool all = is_finite(e.mean_x) && is_finite(e.mean_y) && is_finite(e.xx) && is_finite(e.yy) && is_finite(e.slope);
  // A matrix whose inverse is beyond float64 counts as singular.
  return all && size > 0 && e.xx > 0 && e.yy > 0 ? Seen::part : Seen::nothing;
}

// Sums over pixels, h the incoming gradient times the part.
struct Moments {
  double x, y, xx, xy, yy;  // of h w_x, h w_y, h w_x^2, h w_x w_y, h w_y^2
};

// The gradient [2][3] of the matrix. With p = A^-1 q the template's point that a pixel shows, dw = -K dA (p, 1), so it is
// K^T (sum of h w (p, 1)^T); and p = A_lin^-1 (q - m) + centre, q - m = L^-1 w.
template <typename T>
SL_ELLIPSE void matrix_gradient(const T* matrix, const T* part, const Ellipse& e, const Moments& m, double* gradient) {
  const double a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4], centre[2] = {double(part[1]), double(part[0])};
  const double xy = e.xx * e.slope, determinant = a * d - b * c;
  const double shift[2] = {e.xx * m.x, xy * m.x + e.yy * m.y};  // L^T (sum of h w)
  // (sum of h w w^T) L^-T, its two columns
  const double by_y[2] = {m.xy / e.yy, m.yy / e.yy};
  const double by_x[2] = {m.xx / e.xx - e.slope * by_y[0], m.xy / e.xx - e.slope * by_y[1]};
  const double inverse[2][2] = {{d / determinant, -b / determinant}, {-c / determinant, a / determinant}};
  for (int k = 0; k < 2; ++k) {
    const double x = by_x[0] * inverse[k][0] + by_y[0] * inverse[k][1];
    const double y = by_x[1] * inverse[k][0] + by_y[1] * inverse[k][1];
    gradient[k] = e.xx * x + shift[0] * centre[k];
    gradient[3 + k] = xy * x + e.yy * y + shift[1] * centre[k];
  }
  gradient[2] = shift[0];
  gradient[5] = shift[1];
}

}  // namespace structloss

// Images of the parts of a shape template, and their gradient: the request.
#pragma once

#include <cstdint>

#include "../params.h"

namespace structloss {

// Matrices [N][P][2][3] and template [P][6] are contiguous; all pointers are of the dtype.
struct PartsParams {
  DType dtype = DType::f32;
  int64_t N = 0, P = 0, size = 0;
  const void* matrices = nullptr;
  const void* parts = nullptr;
};

// Writes image [N][P][size][size]; where it is known to hold zeros, what lies outside of the parts is left alone.
void render_parts(const PartsParams& q, void* image, bool holds_zeros, const Threads& threads);

// Writes the gradient [N][P][2][3] of the matrices from that of the image, whose strides [4] count elements. It is read
// where the parts are not 0, and nowhere else.
void render_parts_backward(const PartsParams& q, const void* image_gradient, const int64_t* strides, void* gradient,
                           const Threads& threads);

}  // namespace structloss

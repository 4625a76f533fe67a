// Numbers on the device, as terms.hpp asks for them: one frame per thread.
#pragma once

#include <cmath>

#include "device.hpp"

namespace structloss {

template <class V>
SL_DEVICE V constant(double x) {
  return V(x);
}
// a * b + c, in one instruction.
SL_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
SL_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }
SL_DEVICE float root(float x) { return sqrtf(x); }
SL_DEVICE double root(double x) { return sqrt(x); }
// 1 / sqrt(x) within 2 units in the last place; what 0 gives is not used.
SL_DEVICE float inverse_root(float x) {
#if defined(__CUDACC__)
  return rsqrtf(x);  // one instruction, where a root and a division take thirty
#else
  return 1.0f / sqrtf(x);
#endif
}
SL_DEVICE double inverse_root(double x) { return 1.0 / sqrt(x); }
SL_DEVICE float exponential(float x) { return expf(x); }
SL_DEVICE double exponential(double x) { return exp(x); }
SL_DEVICE float arc_cosine(float x) { return acosf(x); }
SL_DEVICE double arc_cosine(double x) { return acos(x); }

}  // namespace structloss

#include "../terms.hpp"

// Poses and weights in device memory, of any dtype and strides.
#pragma once

#include "numbers.hpp"

namespace structloss {

enum class InputType : int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

// [B, T, J, 3] (weights: [B, T, J]), strides in elements. Null data: absent.
struct Input {
  const void* data = nullptr;
  int64_t stride[4] = {};
  InputType type = InputType::f32;
  // Contiguous, and aligned so that the coordinates of four joints in a row, from a multiple of four on, can be read in
  // 8- or 16-byte words.
  bool packed = false;
};

// What is computed in float64 is stored so; float32 computes with itself and the half types.
template <typename T>
SL_DEVICE T read(const Input& x, int64_t at) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return static_cast<const double*>(x.data)[at];
  } else if (x.type == InputType::f32) {
    return static_cast<const float*>(x.data)[at];
  } else {
    const uint16_t bits = static_cast<const uint16_t*>(x.data)[at];
    return x.type == InputType::bf16 ? float_of_bits(uint32_t(bits) << 16) : half_to_float(bits);
  }
}
SL_DEVICE int64_t offset(const Input& x, int64_t clip, int64_t t, int64_t j) {
  return clip * x.stride[0] + t * x.stride[1] + j * x.stride[2];
}
template <typename T>
SL_DEVICE Vec3<T> read_joint(const Input& x, int64_t clip, int64_t t, int64_t j) {
  const int64_t at = offset(x, clip, t, j);
  return {read<T>(x, at), read<T>(x, at + x.stride[3]), read<T>(x, at + 2 * x.stride[3])};
}
template <typename T>
SL_DEVICE T read_depth(const Input& x, int64_t clip, int64_t t, int64_t j) {
  return read<T>(x, offset(x, clip, t, j) + 2 * x.stride[3]);
}
// 1 without weights.
template <typename T>
SL_DEVICE T read_weight(const Input& x, int64_t clip, int64_t t, int64_t j) {
  return x.data == nullptr ? T(1) : read<T>(x, offset(x, clip, t, j));
}
SL_DEVICE double read_weight_wide(const Input& x, int64_t clip, int64_t t, int64_t j) {
  return x.type == InputType::f64 ? read_weight<double>(x, clip, t, j) : double(read_weight<float>(x, clip, t, j));
}
// As in every backend, what a joint without weight holds, NaN included, is ignored: it counts as 0.
template <typename T>
SL_DEVICE Vec3<T> where_seen(T weight, const Vec3<T>& x) {
  return weight == T(0) ? Vec3<T>{T(0), T(0), T(0)} : x;
}

// Four joints in a row of a contiguous tensor: joints 4 * group ... 4 * group + 3, counted over all frames and clips.
constexpr int kGroup = 4;

struct alignas(16) Words4 {
  uint32_t w[4];
};
struct alignas(8) Words2 {
  uint32_t w[2];
};

template <typename T>
SL_DEVICE void read_group(const Input& x, int64_t group, T (&out)[3 * kGroup]) {
  if constexpr (sizeof(T) == sizeof(double)) {
    const double* from = static_cast<const double*>(x.data) + 3 * kGroup * group;
    SL_UNROLLED
    for (int i = 0; i < 3 * kGroup; ++i) out[i] = from[i];
  } else if (x.type == InputType::f32) {
    const Words4* from = static_cast<const Words4*>(x.data) + 3 * group;
    const Words4 words[3] = {from[0], from[1], from[2]};
    SL_UNROLLED
    for (int i = 0; i < 3 * kGroup; ++i) out[i] = float_of_bits(words[i / 4].w[i % 4]);
  } else {
    const Words2* from = static_cast<const Words2*>(x.data) + 3 * group;
    const Words2 words[3] = {from[0], from[1], from[2]};
    const bool brain = x.type == InputType::bf16;
    SL_UNROLLED
    for (int i = 0; i < 3 * kGroup; ++i) {
      const uint32_t word = words[i / 4].w[i % 4 / 2], bits = i % 2 == 0 ? word & 0xffffu : word >> 16;
      out[i] = brain ? float_of_bits(bits << 16) : half_to_float(uint16_t(bits));
    }
  }
}
SL_DEVICE void write_group(float* to, int64_t group, const float (&x)[3 * kGroup]) {
  Words4* out = reinterpret_cast<Words4*>(to) + 3 * group;
  SL_UNROLLED
  for (int i = 0; i < 3; ++i)
    out[i] = {{bits_of(x[4 * i]), bits_of(x[4 * i + 1]), bits_of(x[4 * i + 2]), bits_of(x[4 * i + 3])}};
}
SL_DEVICE void write_group(double* to, int64_t group, const double (&x)[3 * kGroup]) {
  SL_UNROLLED
  for (int i = 0; i < 3 * kGroup; ++i) to[3 * kGroup * group + i] = x[i];
}

}  // namespace structloss

// One binary for every machine: what is worth it is compiled once per instruction set from one source, and the best that
// the machine has is chosen when first called.
#pragma once

#include <cstdint>
#include <type_traits>

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#define SL_HAS_X86 1
#define SL_TARGET_AVX2 __attribute__((target("avx2")))
#define SL_TARGET_AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define SL_HAS_X86 0
#endif

namespace structloss {

// Instruction sets, the types of what is compiled for each. kLaneBytes: a vector of rows side by side (lane_rows.hpp);
// kLongLaneBytes: the same for rows with weights, or so long that wide vectors of them leave the first-level cache.
// kCountedJoints: frames of up to so many joints are counted in codes (block.hpp), faster than side by side.
struct Plain {
  static constexpr int64_t kCountedJoints = 0;  // vectors of 16 codes are taken apart
  static constexpr int kLaneBytes = 16, kLongLaneBytes = 16;
};
struct Avx2 {
  static constexpr int64_t kCountedJoints = 24;
  static constexpr int kLaneBytes = 32, kLongLaneBytes = 32;
};
struct Avx512 {
  static constexpr int64_t kCountedJoints = 24;
  static constexpr int kLaneBytes = 64, kLongLaneBytes = 32;
};

enum class InstructionSet { plain, avx2, avx512 };

// The best that the machine has; STRUCTLOSS_INSTRUCTION_SET (plain, avx2 or avx512), if set when first asked for, says
// up to which.
InstructionSet instruction_set();

// Sorts the columns of keys [sorted_size(n)][bytes / sizeof(key)], see lane_sort.hpp.
template <int kBytes>
using VectorBytes = std::integral_constant<int, kBytes>;
void sort_keys(Plain, VectorBytes<16>, int32_t* keys, int64_t n);
void sort_keys(Plain, VectorBytes<16>, int64_t* keys, int64_t n);
#if SL_HAS_X86
void sort_keys(Avx2, VectorBytes<32>, int32_t* keys, int64_t n);
void sort_keys(Avx2, VectorBytes<32>, int64_t* keys, int64_t n);
void sort_keys(Avx512, VectorBytes<32>, int32_t* keys, int64_t n);
void sort_keys(Avx512, VectorBytes<32>, int64_t* keys, int64_t n);
void sort_keys(Avx512, VectorBytes<64>, int32_t* keys, int64_t n);
void sort_keys(Avx512, VectorBytes<64>, int64_t* keys, int64_t n);
#endif

}  // namespace structloss

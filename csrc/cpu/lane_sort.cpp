// The sorting networks, compiled per instruction set.
#include "lane_sort.hpp"

#include "instruction_sets.hpp"

namespace structloss {

#define SL_DEFINE_SORT(SET, TARGET, BYTES)                                                  \
  TARGET void sort_keys(SET, VectorBytes<BYTES>, int32_t* keys, int64_t n) { \
    sort_lanes<Lanes<float, BYTES>>(keys, n);                                               \
  }                                                                                         \
  TARGET void sort_keys(SET, VectorBytes<BYTES>, int64_t* keys, int64_t n) { \
    sort_lanes<Lanes<double, BYTES>>(keys, n);                                              \
  }
SL_DEFINE_SORT(Plain, , 16)
#if SL_HAS_X86
SL_DEFINE_SORT(Avx2, SL_TARGET_AVX2, 32)
SL_DEFINE_SORT(Avx512, SL_TARGET_AVX512, 32)
SL_DEFINE_SORT(Avx512, SL_TARGET_AVX512, 64)
#endif
#undef SL_DEFINE_SORT

}  // namespace structloss

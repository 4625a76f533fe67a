// Sorting in the registers of a warp.
#pragma once

#include "device.hpp"

namespace structloss {

SL_DEVICE void put_in_order(uint32_t& a, uint32_t& b) {
  const uint32_t low = a < b ? a : b, high = a < b ? b : a;
  a = low;
  b = high;
}

// Bitonic sort, ascending, of 32 E keys: afterwards lane l holds positions l E ... l E + E - 1. E is a power of two. All
// comparisons point the same way: each merge begins by comparing with the mirror image.
template <int E>
SL_DEVICE void sort_warp(uint32_t (&key)[E]) {
  const int lane = lane_index();
  SL_UNROLLED
  for (int size = 2; size <= kWarp * E; size *= 2) {
    if (size <= E) {
      SL_UNROLLED
      for (int a = 0; a < E; ++a)
        if ((a ^ (size - 1)) > a) put_in_order(key[a], key[a ^ (size - 1)]);
    } else {
      const int mask = size / E - 1;
      const bool low = (lane & (size / E / 2)) == 0;
      SL_UNROLLED
      for (int a = 0; a < (E + 1) / 2; ++a) {
        const int b = E - 1 - a;
        const uint32_t x = shuffle_xor(key[b], mask), y = shuffle_xor(key[a], mask);
        key[a] = low ? (key[a] < x ? key[a] : x) : (key[a] < x ? x : key[a]);
        if (a != b) key[b] = low ? (key[b] < y ? key[b] : y) : (key[b] < y ? y : key[b]);
      }
    }
    SL_UNROLLED
    for (int gap = size / 4; gap > 0; gap /= 2) {
      if (gap < E) {
        SL_UNROLLED
        for (int a = 0; a < E; ++a)
          if ((a & gap) == 0) put_in_order(key[a], key[a | gap]);
      } else {
        const int mask = gap / E;
        const bool low = (lane & mask) == 0;
        SL_UNROLLED
        for (int a = 0; a < E; ++a) {
          const uint32_t x = shuffle_xor(key[a], mask);
          key[a] = low ? (key[a] < x ? key[a] : x) : (key[a] < x ? x : key[a]);
        }
      }
    }
  }
}

}  // namespace structloss

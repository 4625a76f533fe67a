// Kernels with the faults that the emulation has to find.
#include "cuda/device.hpp"

namespace structloss {

struct Numbers {
  int* out;
};

// Each thread adds to what its neighbour wrote; whether that has happened depends on the order.
template <bool kBarrier>
SL_KERNEL(64) neighbours(Numbers q) {
  int* shared = reinterpret_cast<int*>(shared_memory());
  shared[thread_index()] = thread_index();
  if (kBarrier) sync_block();
  q.out[thread_index()] = shared[(thread_index() + 1) % thread_count()];
}

SL_KERNEL(64) half_at_a_barrier(Numbers) {
  if (thread_index() < 32) sync_block();
}

SL_KERNEL(64) beyond_shared_memory(Numbers) { reinterpret_cast<int*>(shared_memory())[thread_count()] = 1; }

SL_KERNEL(64) lanes(Numbers q) {
  q.out[thread_index()] = warp_sum(thread_index()) + shuffle_xor(thread_index(), 1) * 1000 + any_lane(lane_index() == 3);
}

}  // namespace structloss

using namespace structloss;

extern "C" int run(int which, uint64_t seed, int* out) {
  emulation::Block::one().seed = seed;
  void (*const kernels[])(Numbers) = {neighbours<true>, neighbours<false>, half_at_a_barrier, beyond_shared_memory, lanes};
  return launch(kernels[which], 1, 64, 64 * 4, nullptr, Numbers{out});
}

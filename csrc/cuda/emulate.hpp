// GPU blocks on the CPU: every thread of a block is a fiber, and they take turns at barriers and warp instructions. It
// runs the kernels where there is no GPU, to test them; it is not fast.
//
// The order in which threads run between barriers is shuffled with a seed, and shared memory starts as NaN, so that a
// missing barrier or an unwritten word shows as a wrong or changing result. Barriers that not all threads reach, and
// writes beyond the end of shared memory, raise an error. Any one barrier can be left out, to see that it is needed.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#define SL_DEVICE inline
#define SL_BOTH
#define SL_KERNEL(threads) inline void
#define SL_KERNEL_SHARING(threads, blocks) inline void
#define SL_UNROLLED
#define SL_ROLLED

namespace structloss {

constexpr int kWarp = 32;
using Stream = void*;

namespace emulation {

constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kCanaryBytes = 64;
constexpr unsigned char kPoison = 0xff;  // a NaN in every float type
constexpr int kDeadlock = 1, kOverrun = 2;

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
  ucontext_t context;  // used to begin; from then on the two jump buffers, which make no system calls
  jmp_buf place;
  bool begun = false;
  std::unique_ptr<unsigned char[]> stack;
  State state = State::done;
};

// What a warp's lanes exchange. Two sets, used in turn: a lane that is one exchange ahead leaves the last one alone.
struct Exchange {
  unsigned char slot[2][kWarp][8];
  int arrived = 0;
};

class Block {
 public:
  int64_t index = 0;
  int threads = 0, current = 0;
  std::vector<unsigned char> shared;
  std::vector<Fiber> fibers;
  std::vector<Exchange> warps;
  std::vector<int> parity;
  jmp_buf scheduler;
  std::function<void()> body;
  uint64_t seed = 0;  // 0: threads run in order
  int left_out = -1;  // of a thread's barriers of its block, as they come
  std::vector<int> reached;
  std::mt19937_64 random;

  static Block& one() {
    static thread_local Block block;
    return block;
  }

  int run(int64_t block, int thread_total, int64_t shared_bytes, std::function<void()> kernel) {
    index = block;
    threads = thread_total;
    body = std::move(kernel);
    random.seed(seed + uint64_t(block));
    shared.assign(size_t(shared_bytes) + kCanaryBytes, kPoison);
    if (fibers.size() < size_t(threads)) fibers.resize(size_t(threads));
    warps.assign(size_t((threads + kWarp - 1) / kWarp), Exchange{});
    parity.assign(size_t(threads), 0);
    reached.assign(size_t(threads), 0);
    for (int i = 0; i < threads; ++i) {
      Fiber& f = fibers[size_t(i)];
      if (!f.stack) f.stack.reset(new unsigned char[kStackBytes]);
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get();
      f.context.uc_stack.ss_size = kStackBytes;
      f.context.uc_link = nullptr;
      makecontext(&f.context, reinterpret_cast<void (*)()>(&Block::enter), 0);
      f.begun = false;
      f.state = State::ready;
    }
    std::vector<int> order(static_cast<size_t>(threads));
    for (int i = 0; i < threads; ++i) order[size_t(i)] = i;
    while (true) {
      if (seed != 0) std::shuffle(order.begin(), order.end(), random);
      bool ran = false;
      for (int i : order) {
        if (fibers[size_t(i)].state != State::ready) continue;
        ran = true;
        resume(i);
      }
      if (ran) continue;
      int waiting = 0, done = 0;
      for (int i = 0; i < threads; ++i) {
        waiting += fibers[size_t(i)].state == State::at_block_barrier;
        done += fibers[size_t(i)].state == State::done;
      }
      if (done == threads) break;
      if (waiting != threads) return kDeadlock;  // some ended, or wait in a warp
      for (int i = 0; i < threads; ++i) fibers[size_t(i)].state = State::ready;
    }
    for (size_t i = size_t(shared_bytes); i < shared.size(); ++i)
      if (shared[i] != kPoison) return kOverrun;
    return 0;
  }

  void block_barrier() {
    if (reached[size_t(current)]++ != left_out) wait(State::at_block_barrier);
  }

  // Waits until all lanes of the warp are here.
  void warp_barrier() {
    Exchange& warp = warps[size_t(current / kWarp)];
    if (++warp.arrived < kWarp) return wait(State::at_warp_barrier);
    warp.arrived = 0;
    const int first = current / kWarp * kWarp;
    for (int i = first; i < first + kWarp; ++i) fibers[size_t(i)].state = State::ready;
  }

  // This lane's value for the others, and that of lane `source(lane)` for this one.
  template <typename V, typename Source>
  V exchange(V x, Source source) {
    static_assert(sizeof(V) <= 8, "");
    const int me = current, lane = me % kWarp, turn = parity[size_t(me)] ^= 1;
    auto& slots = warps[size_t(me / kWarp)].slot[turn];
    std::memcpy(slots[lane], &x, sizeof x);
    warp_barrier();
    V y;
    std::memcpy(&y, slots[source(lane)], sizeof y);
    return y;
  }

 private:
  // Runs a thread until it waits or ends. A function of its own: nothing may stay in registers across the jumps.
  __attribute__((noinline)) void resume(int thread) {
    current = thread;
    if (_setjmp(scheduler) != 0) return;
    Fiber& f = fibers[size_t(thread)];
    if (f.begun) _longjmp(f.place, 1);
    f.begun = true;
    setcontext(&f.context);
  }
  static void enter() {
    Block& b = one();
    b.body();
    b.fibers[size_t(b.current)].state = State::done;
    _longjmp(b.scheduler, 1);
  }
  __attribute__((noinline)) void wait(State state) {
    Fiber& f = fibers[size_t(current)];
    f.state = state;
    if (_setjmp(f.place) == 0) _longjmp(scheduler, 1);
  }
};

}  // namespace emulation

inline int thread_index() { return emulation::Block::one().current; }
inline int thread_count() { return emulation::Block::one().threads; }
inline int64_t block_index() { return emulation::Block::one().index; }
inline unsigned char* shared_memory() { return emulation::Block::one().shared.data(); }
inline void sync_block() { emulation::Block::one().block_barrier(); }
inline void sync_warp() { emulation::Block::one().warp_barrier(); }
template <typename V>
V shuffle_xor(V x, int mask) {
  return emulation::Block::one().exchange(x, [mask](int lane) { return lane ^ mask; });
}
template <typename V>
V shuffle_up(V x, int lanes) {
  return emulation::Block::one().exchange(x, [lanes](int lane) { return lane < lanes ? lane : lane - lanes; });
}
template <typename V>
V shuffle_down(V x, int lanes) {
  return emulation::Block::one().exchange(x, [lanes](int lane) { return lane + lanes < kWarp ? lane + lanes : lane; });
}
inline int highest_bit(uint32_t x) { return 31 - __builtin_clz(x); }
inline int lowest_bit(uint32_t x) { return __builtin_ctz(x); }
inline int opaque(int x) { return x; }
inline bool any_lane(bool x) {
  int found = x;
  for (int mask = kWarp / 2; mask > 0; mask /= 2) found |= shuffle_xor(found, mask);
  return found != 0;
}
inline float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline uint64_t bits_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? std::numeric_limits<float>::quiet_NaN() : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(float(fraction), -24) : std::ldexp(float(fraction + 1024), exponent - 25));
}

template <typename Params>
int launch(void (*kernel)(Params), int64_t blocks, int threads, int64_t shared_bytes, Stream, const Params& params) {
  for (int64_t block = 0; block < blocks; ++block) {
    const int error = emulation::Block::one().run(block, threads, shared_bytes, [&] { kernel(params); });
    if (error != 0) return error;
  }
  return 0;
}

template <typename Params>
int probe(void (*)(Params)) {
  return 0;
}

class DeviceGuard {
 public:
  explicit DeviceGuard(int) {}
  int error() const { return 0; }
};

// As on the GPU that the kernels are tuned for, unless a test asks for less.
inline int64_t& emulated_shared_bytes() {
  static int64_t bytes = 227 * 1024;
  return bytes;
}
inline int most_shared_bytes(int, int64_t* bytes) {
  *bytes = emulated_shared_bytes();
  return 0;
}
inline const char* error_text(int error) {
  return error == emulation::kDeadlock ? "threads of a block wait at different barriers"
         : error == emulation::kOverrun ? "a write beyond the end of shared memory"
                                        : "unknown";
}

}  // namespace structloss

// What the GPU code asks of the processor. With a CUDA compiler these are the device's own instructions; any other C++
// compiler gets emulate.hpp, where a block of threads runs on one core of the CPU: same kernels, same results.
#pragma once

#include <cstdint>
#include <limits>

#if defined(__CUDACC__)

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SL_DEVICE __device__ __forceinline__
#define SL_BOTH __host__ __device__
#define SL_KERNEL(threads) __global__ void __launch_bounds__(threads)
// So many blocks are to share a multiprocessor: a bound for the registers.
#define SL_KERNEL_SHARING(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define SL_UNROLLED _Pragma("unroll")
#define SL_ROLLED _Pragma("unroll 1")

namespace structloss {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
using Stream = cudaStream_t;

SL_DEVICE int thread_index() { return int(threadIdx.x); }
SL_DEVICE int thread_count() { return int(blockDim.x); }
SL_DEVICE int64_t block_index() { return int64_t(blockIdx.x); }
SL_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
SL_DEVICE void sync_block() { __syncthreads(); }
SL_DEVICE void sync_warp() { __syncwarp(); }
template <typename V>
SL_DEVICE V shuffle_xor(V x, int mask) {
  return __shfl_xor_sync(kAllLanes, x, mask);
}
template <typename V>
SL_DEVICE V shuffle_up(V x, int lanes) {
  return __shfl_up_sync(kAllLanes, x, lanes);
}
template <typename V>
SL_DEVICE V shuffle_down(V x, int lanes) {
  return __shfl_down_sync(kAllLanes, x, lanes);
}
// The same number, which the compiler knows nothing about.
SL_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
SL_DEVICE bool any_lane(bool x) { return __any_sync(kAllLanes, x) != 0; }
// Of a number that is not 0.
SL_DEVICE int highest_bit(uint32_t x) { return 31 - __clz(int(x)); }
SL_DEVICE int lowest_bit(uint32_t x) { return __ffs(int(x)) - 1; }
SL_DEVICE float half_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
SL_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
SL_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
SL_DEVICE uint64_t bits_of(double x) { return static_cast<uint64_t>(__double_as_longlong(x)); }

// Error codes are those of the CUDA runtime; 0 is success.
template <typename Params>
int launch(void (*kernel)(Params), int64_t blocks, int threads, int64_t shared_bytes, Stream stream,
           const Params& params) {
  if (blocks == 0) return 0;
  const void* function = reinterpret_cast<const void*>(kernel);
  constexpr int64_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    // Always the most that there is: another thread may be launching the same kernel with another size.
    int device = 0, most = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess) error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (error != cudaSuccess) return int(error);
  }
  void* arguments[] = {const_cast<Params*>(&params)};
  return int(cudaLaunchKernel(function, dim3(unsigned(blocks)), dim3(unsigned(threads)), arguments, size_t(shared_bytes),
                              stream));
}

// Whether this device and its driver can run the library's code.
template <typename Params>
int probe(void (*kernel)(Params)) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel));
  cudaGetLastError();  // a failure is told, and no longer pending
  return int(error);
}

// Makes a device current, and the one before again.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    error_ = cudaGetDevice(&before_);
    if (error_ == cudaSuccess && before_ != device) error_ = cudaSetDevice(device);
    changed_ = error_ == cudaSuccess && before_ != device;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  int error() const { return int(error_); }

 private:
  int before_ = 0;
  bool changed_ = false;
  cudaError_t error_;
};

// Bytes of shared memory that a block may have.
inline int most_shared_bytes(int device, int64_t* bytes) {
  int found = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&found, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  *bytes = found;
  return int(error);
}
inline const char* error_text(int error) { return cudaGetErrorString(cudaError_t(error)); }

}  // namespace structloss

#else
#include "emulate.hpp"
#endif

namespace structloss {

SL_DEVICE int lane_index() { return thread_index() % kWarp; }
SL_DEVICE int warp_index() { return thread_index() / kWarp; }
SL_DEVICE int warp_count() { return thread_count() / kWarp; }

// The same sum in every lane.
template <typename V>
SL_DEVICE V warp_sum(V x) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}
// The sum over the lanes up to this one.
template <typename V>
SL_DEVICE V sum_up_to(V x) {
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const V other = shuffle_up(x, lanes);
    if (lane_index() >= lanes) x += other;
  }
  return x;
}

}  // namespace structloss

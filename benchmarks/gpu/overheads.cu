// Kernels whose times overheads.py measures. Each does one kind of work, so its time is the cost of that
// work.
//
// Options: -DCHAINS, number of independent sums per thread of `multiply_add`; -DCLUSTER and -DBLOCKS
// as in grid_barrier.cuh.
#include "common.cuh"
#include "persistent/grid_barrier.cuh"

#ifdef CLUSTER
#include "mbarrier.cuh"
#endif

// At most 16 registers.
extern "C" __global__ void empty() {}

// Grid: blocks that run concurrently, or one cluster of BLOCKS blocks. All blocks wait for each other
// `rounds` times.
// At most 32 registers.
extern "C" __global__ void CLUSTER_DIMS barrier(int rounds, unsigned* counters) {
  for (int round = 0; round < rounds; round++) grid_barrier_wait(counters);
}

// Grid: one cluster of BLOCKS blocks; does nothing without -DCLUSTER. Block 0 sends a
// number to block 1, which adds one and sends it back, `rounds` times. A number has 16 bytes.
// counters[0] is what block 0 receives last.
// At most 32 registers.
extern "C" __global__ void CLUSTER_DIMS round_trip(int rounds, unsigned* counters) {
#ifdef CLUSTER
  struct alignas(16) Number {
    uint32 value, padding[3];
  };
  __shared__ Number number;
  __shared__ Mbarrier received;
  if (threadIdx.x == 0) {
    number = {};
    mbarrier_init(received, 1);
  }
  grid_barrier_wait(counters);  // both blocks have initialized their barriers
  const int block = blockIdx.x;
  if (threadIdx.x == 0 && block < 2)
    for (int round = 0; round < rounds; round++) {
      mbarrier_arrive_and_expect(received, sizeof number);
      if (block == 0) store_async(&number, Number{number.value + 1}, received, 1);
      mbarrier_wait(received, round % 2);
      if (block == 1) store_async(&number, Number{number.value + 1}, received, 0);
    }
  grid_barrier_wait(counters);  // a block may not end while others store in its memory
  if (threadIdx.x == 0 && block == 0) counters[0] = number.value;
#endif
}

// Grid: any. Copies `count` numbers of 8 bytes. Each thread copies every n-th number, where n is the
// number of threads of the grid.
// At most 32 registers.
extern "C" __global__ void copy(const double* __restrict__ from, int64 count,
                                double* __restrict__ to) {
  const int64 threads = int64(gridDim.x) * blockDim.x;
  for (int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads)
    to[i] = from[i];
}

// Grid: any. Each thread updates CHAINS independent sums, so their multiply-adds overlap. The total is
// written to memory, so that the compiler does not remove the loop.
// At most 32 registers.
extern "C" __global__ void __launch_bounds__(256)
    multiply_add(int rounds, real factor, real* __restrict__ results) {
  real sums[CHAINS];
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++) sums[chain] = real(chain);
  for (int round = 0; round < rounds; round++)
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) sums[chain] = sums[chain] * factor + factor;
  real total = 0;
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++) total += sums[chain];
  results[blockIdx.x * blockDim.x + threadIdx.x] = total;
}

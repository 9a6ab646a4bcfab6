// Kernels whose times overheads.py measures. Each does one kind of work, so its time is the cost of that
// work.
//
// Options: -DCHAINS, number of independent sums per thread of `multiply_add`; -DCLUSTER and -DBLOCKS
// as in grid_barrier.cuh.
#include "common.cuh"
#include "persistent/grid_barrier.cuh"

// At most 16 registers.
extern "C" __global__ void empty() {}

// Grid: blocks that run concurrently, or one cluster of BLOCKS blocks. All blocks wait for each other
// `rounds` times.
// At most 32 registers.
extern "C" __global__ void CLUSTER_DIMS barrier(int rounds, unsigned* counters) {
  for (int round = 0; round < rounds; round++) grid_barrier_wait(counters);
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

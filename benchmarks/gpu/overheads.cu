// What a step on a GPU costs beside its own work: each kernel here does one thing and nothing else.
//
// Options: -DCHAINS, how many sums a thread of `multiply_add` has under way; -DCLUSTER and -DBLOCKS as
// grid.cuh has them.
#include "common.cuh"
#include "grid.cuh"

// At most 16 registers.
extern "C" __global__ void nothing() {}

// Grid: blocks that run at the same time, BLOCKS of them where they are a cluster. They all meet so
// many times.
// At most 32 registers.
extern "C" __global__ void TOGETHER meet(int rounds, unsigned* barrier) {
  for (int round = 0; round < rounds; round++) wait_for_grid(barrier);
}

// Grid: any; a thread copies every so many numbers of 8 bytes.
// At most 32 registers.
extern "C" __global__ void copy(const double* __restrict__ from, int64 count,
                                double* __restrict__ to) {
  const int64 threads = int64(gridDim.x) * blockDim.x;
  for (int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads)
    to[i] = from[i];
}

// Grid: any. The sums of a thread do not wait for each other; what they come to is written down, so
// that the compiler does not leave them out.
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

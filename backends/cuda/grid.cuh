// A barrier for all blocks of a grid, which must be resident together: a cooperative launch.
//
// `barrier` are two zeros in memory: how many blocks have come, and how often all have.

__device__ __forceinline__ void wait_for_grid(unsigned* barrier) {
  __syncthreads();  // what the block's threads have written, thread 0 makes known
  if (threadIdx.x == 0) {
    volatile unsigned* const rounds = barrier + 1;
    const unsigned before = *rounds;
    __threadfence();
    if (atomicAdd(barrier, 1u) == gridDim.x - 1) {
      barrier[0] = 0;
      __threadfence();
      atomicAdd(barrier + 1, 1u);
    } else {
      while (*rounds == before) __nanosleep(32);
    }
    __threadfence();
  }
  __syncthreads();
}

// A barrier for all blocks of a grid. The blocks must be resident at the same time.
//
// Without -DCLUSTER the grid is launched cooperatively, and the barrier uses two counters in global
// memory that must be 0 before the first launch: barrier[0] counts the blocks that have arrived,
// barrier[1] the completed barriers. With -DCLUSTER, for compute capability 9.0 and later, the
// -DBLOCKS blocks of the grid are one thread block cluster, which the hardware keeps resident and
// synchronizes.
#pragma once

#ifdef CLUSTER
#define CLUSTER_DIMS __cluster_dims__(BLOCKS, 1, 1)

// Arrive releases and wait acquires: writes before the barrier are visible to all blocks after it.
// A cluster needs no counters.
DEVICE void grid_barrier_wait(unsigned*) {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}
#else
#define CLUSTER_DIMS

DEVICE void grid_barrier_wait(unsigned* barrier) {
  __syncthreads();  // the fence of thread 0 below also covers the writes of the other threads
  if (threadIdx.x == 0) {
    volatile unsigned* const completed = barrier + 1;
    const unsigned before = *completed;
    __threadfence();
    if (atomicAdd(barrier, 1u) == gridDim.x - 1) {
      barrier[0] = 0;
      __threadfence();
      atomicAdd(barrier + 1, 1u);
    } else {
      while (*completed == before) __nanosleep(32);
    }
    __threadfence();
  }
  __syncthreads();
}
#endif

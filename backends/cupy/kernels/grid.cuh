// A barrier for all blocks of a grid, which must run at the same time.
//
// As they are launched cooperatively, they meet by two zeros in memory, `barrier`: how many blocks have
// come, and how often all have. With -DCLUSTER, for sm_90 and newer, they are one cluster: such blocks
// are always together, on multiprocessors that are neighbours, and have a barrier of their own.

#ifdef CLUSTER
#define TOGETHER __cluster_dims__(BLOCKS, 1, 1)

// What a thread wrote before it came, all read after they have left: the one releases, the other
// acquires.
__device__ __forceinline__ void wait_for_grid(unsigned*) {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}
#else
#define TOGETHER

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
#endif

// Kernels with mbarriers for the tests of the emulator, like those of faulty_kernels.cu.
#include "mbarrier.cuh"

struct alignas(16) Four {
  int elements[4];
};

// In each round, replaces each number by the sum of all. Each of the 8 blocks has one number, and sends
// it to all blocks. With two buffers, a block can send while the others still add.
extern "C" __global__ void __cluster_dims__(8, 1, 1) all_reduce_async(int* numbers, int rounds) {
  __shared__ Four received[2][8];
  __shared__ Mbarrier barriers[2];
  const int thread = threadIdx.x, block = blockIdx.x;
  if (thread == 0)
    for (int i = 0; i < 2; i++) mbarrier_init(barriers[i], 1);
#ifdef BUG_NOT_VISIBLE
  __syncthreads();
#else
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
  int number = numbers[block];
  for (int round = 0; round < rounds; round++) {
#ifdef BUG_ONE_BUFFER
    const int buffer = 0, parity = round % 2;
#elif defined(BUG_WRONG_PARITY)
    const int buffer = round % 2, parity = (round / 2 + 1) % 2;
#else
    const int buffer = round % 2, parity = round / 2 % 2;
#endif
#ifndef BUG_MISSING_ARRIVAL
    if (thread == 0) mbarrier_arrive_and_expect(barriers[buffer], 8 * sizeof(Four));
#endif
    const Four four = {{number, number, number, number}};
    if (thread < 8) store_async(&received[buffer][block], four, barriers[buffer], thread);
#ifdef BUG_EARLY_EXIT
    if (block == 3 && round == rounds - 1) break;
#endif
#ifndef BUG_MISSING_WAIT
    mbarrier_wait(barriers[buffer], parity);
#endif
    number = 0;
    for (int i = 0; i < 8; i++) number += received[buffer][i].elements[thread % 4];
    __syncthreads();
  }
  if (thread == 0) numbers[block] = number;
}

// Computes the same in one round by ordinary stores, after each of which the block arrives at the barrier
// of the receiving block. A second barrier counts the threads of a block.
extern "C" __global__ void __cluster_dims__(8, 1, 1) all_reduce_by_arrivals(int* numbers) {
  __shared__ int received[8];
  __shared__ Mbarrier from_blocks, from_threads;
  const int thread = threadIdx.x, block = blockIdx.x, number = numbers[blockIdx.x];
  const int own = shared_address(&from_threads);
  if (thread == 0) {
    mbarrier_init(from_blocks, 8);
    mbarrier_init(from_threads, blockDim.x);
  }
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#ifdef BUG_MISSING_ARRIVAL
  if (thread < 8 && block != 5) {
#else
  if (thread < 8) {
#endif
    static_cast<int*>(__cluster_map_shared_rank(&received[block], thread))[0] = number;
    const int remote = shared_address(__cluster_map_shared_rank(&from_blocks, thread));
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" : : "r"(remote));
  }
  mbarrier_wait(from_blocks, 0);
  int sum = 0;
  for (int i = 0; i < 8; i++) sum += received[i];
  if (thread == 9) numbers[block] = sum;
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" : : "r"(own));
#ifdef BUG_NOT_AWAITED
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" : : "r"(own));
#endif
  mbarrier_wait(from_threads, 0);
  if (thread == 0 && numbers[block] != sum) numbers[block] = -1;
}

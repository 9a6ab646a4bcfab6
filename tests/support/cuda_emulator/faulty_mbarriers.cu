// Kernels with mbarriers for the tests of the emulator. Each is correct with the bug NONE.
//
// The tests show that the emulator detects every one of the other bugs.
#include "mbarrier.cuh"

enum Bug {
  NONE,
  NOT_VISIBLE,
  MISSING_ARRIVAL,
  MISSING_WAIT,
  NOT_AWAITED,
  WRONG_PARITY,
  ONE_BUFFER,
  EARLY_EXIT
};

struct alignas(16) Four {
  int elements[4];
};

DEVICE void cluster_barrier() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

// In each round, replaces each number by the sum of all. Each of the 8 blocks has one number, and sends
// it to all blocks. With two buffers, a block can send while the others still add.
extern "C" __global__ void __cluster_dims__(8, 1, 1)
    all_reduce_async(int* numbers, int rounds, Bug bug) {
  __shared__ Four received[2][8];
  __shared__ Mbarrier barriers[2];
  const int thread = threadIdx.x, block = blockIdx.x;
  if (thread == 0)
    for (int i = 0; i < 2; i++) mbarrier_init(barriers[i], 1);
  if (bug == NOT_VISIBLE)
    __syncthreads();
  else
    cluster_barrier();
  int number = numbers[block];
  for (int round = 0; round < rounds; round++) {
    const int buffers = bug == ONE_BUFFER ? 1 : 2, buffer = round % buffers;
    const int phase = round / buffers + (bug == WRONG_PARITY);
    if (thread == 0 && bug != MISSING_ARRIVAL)
      mbarrier_arrive_and_expect(barriers[buffer], 8 * sizeof(Four));
    const Four four = {{number, number, number, number}};
    if (thread < 8) store_async(&received[buffer][block], four, barriers[buffer], thread);
    if (bug == EARLY_EXIT && block == 3 && round == rounds - 1) break;
    if (bug != MISSING_WAIT) mbarrier_wait(barriers[buffer], phase % 2);
    number = 0;
    for (int i = 0; i < 8; i++) number += received[buffer][i].elements[thread % 4];
    __syncthreads();
  }
  if (thread == 0) numbers[block] = number;
}

// Computes the same in one round by ordinary stores, after each of which the block arrives at the barrier
// of the receiving block. A second barrier counts the threads of a block.
extern "C" __global__ void __cluster_dims__(8, 1, 1)
    all_reduce_by_arrivals(int* numbers, Bug bug) {
  __shared__ int received[8];
  __shared__ Mbarrier from_blocks, from_threads;
  const int thread = threadIdx.x, block = blockIdx.x, number = numbers[block];
  const int own = shared_address(&from_threads);
  if (thread == 0) {
    mbarrier_init(from_blocks, 8);
    mbarrier_init(from_threads, blockDim.x);
  }
  cluster_barrier();
  if (thread < 8 && !(bug == MISSING_ARRIVAL && block == 5)) {
    static_cast<int*>(__cluster_map_shared_rank(&received[block], thread))[0] = number;
    const int remote = shared_address(__cluster_map_shared_rank(&from_blocks, thread));
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" : : "r"(remote));
  }
  mbarrier_wait(from_blocks, 0);
  int sum = 0;
  for (int i = 0; i < 8; i++) sum += received[i];
  if (thread == 9) numbers[block] = sum;
  for (int i = 0; i < (bug == NOT_AWAITED ? 2 : 1); i++)
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" : : "r"(own));
  mbarrier_wait(from_threads, 0);
  if (thread == 0 && numbers[block] != sum) numbers[block] = -1;
}

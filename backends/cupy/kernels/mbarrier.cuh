// Barriers in shared memory that wait for asynchronous stores of other blocks of a cluster: mbarrier
// and st.async in the PTX manual. They need compute capability 9.0.
//
// A barrier goes through phases with the parities 0, 1, 0, ... A phase ends when the barrier has
// counted all arrivals and all bytes that the phase expects; it may count bytes before they are
// expected. The next phase may begin only after a thread has waited for the previous one.
#pragma once

#include "common.cuh"

struct alignas(8) Mbarrier {
  uint32 state[2];
};

// Returns the address of a shared variable, of this block or of another one, as PTX takes it.
DEVICE uint32 shared_address(const void* variable) {
  return uint32(__cvta_generic_to_shared(variable));
}

// Begins the first phase. Each phase expects `arrivals` calls of mbarrier_arrive_and_expect. Other
// blocks can use the barrier after the next cluster barrier.
DEVICE void mbarrier_init(Mbarrier& barrier, int arrivals) {
  const uint32 address = shared_address(&barrier);
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(address), "r"(arrivals)
               : "memory");
}

// Makes the barriers that this thread has initialized visible to other blocks after the next cluster
// barrier, also if the threads arrive at it by `__cluster_barrier_arrive_relaxed`.
DEVICE void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
}

// Arrives, after adding to the number of bytes that this phase expects.
DEVICE void mbarrier_arrive_and_expect(Mbarrier& barrier, int bytes) {
  const uint32 address = shared_address(&barrier);
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(address), "r"(bytes)
               : "memory");
}

// Begins the only exchange of a launch, in which this block receives `bytes` bytes. All threads of all
// blocks call this. They send after waiting at the cluster barrier, at which they arrive here, and have
// received after mbarrier_wait(received, 0).
DEVICE void begin_exchange(Mbarrier& received, int bytes) {
  if (threadIdx.x == 0) {
    mbarrier_init(received, 1);
    mbarrier_init_fence();
    mbarrier_arrive_and_expect(received, bytes);
  }
  __cluster_barrier_arrive_relaxed();  // waits for no other stores
}

// Waits for the end of the phase with this parity, which is the current or the previous one. The
// bytes that it has counted are visible afterwards.
DEVICE void mbarrier_wait(Mbarrier& barrier, int parity) {
  const uint32 address = shared_address(&barrier);
  uint32 is_done = 0;
  while (!is_done)
    asm volatile(
        "{ .reg .pred done; "
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], %2; "
        "selp.u32 %0, 1, 0, done; }"
        : "=r"(is_done)
        : "r"(address), "r"(parity)
        : "memory");
}

// Stores a value of 16 bytes in shared memory of a block of the cluster, and counts its bytes in a
// barrier of that block. `target` and `barrier` are the variables of this block. Does not wait.
template <class Value>
DEVICE void store_async(void* target, const Value& value, Mbarrier& barrier, int block) {
  uint32 words[4];
  static_assert(sizeof value == sizeof words);
  memcpy(words, &value, sizeof value);
  const uint32 address = shared_address(__cluster_map_shared_rank(target, block));
  const uint32 barrier_address = shared_address(__cluster_map_shared_rank(&barrier, block));
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
      "[%0], {%1, %2, %3, %4}, [%5];"
      :
      : "r"(address), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]),
        "r"(barrier_address)
      : "memory");
}

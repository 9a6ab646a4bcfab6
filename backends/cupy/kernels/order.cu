// The rows of a data set that some positions of an epoch stand for: backends/order.py, on the GPU.
//
// Layout: a thread a position, from `first` on; rows (count,). `bits` is of half a number of the
// Feistel network, four to the power of which is at least `examples`.
// Options: -DORDER=SHUFFLE, REPLACEMENT or FULL.
// Cost per position: six rounds of a dozen integer operations, as often on average as `examples` goes
// into four to the power of `bits`, less than four times but for a handful of images; 4 bytes written.
#include "common.cuh"

typedef unsigned int uint32;

#define FULL 0
#define SHUFFLE 1
#define REPLACEMENT 2
#define ROUNDS 6

// The finalizer of MurmurHash3 (Appleby, 2011).
__device__ __forceinline__ uint32 mixed(uint32 number) {
  number = (number ^ (number >> 16)) * 0x85ebca6bu;
  number = (number ^ (number >> 13)) * 0xc2b2ae35u;
  return number ^ (number >> 16);
}

// At most 32 registers.
extern "C" __global__ void order(int first, int count, int examples, int bits, uint32 key0,
                                 uint32 key1, uint32 key2, uint32 key3, uint32 key4, uint32 key5,
                                 int* __restrict__ rows) {
  const int at = int(blockIdx.x) * int(blockDim.x) + int(threadIdx.x);
  if (at >= count) return;
  const uint32 keys[ROUNDS] = {key0, key1, key2, key3, key4, key5};
  uint32 number = uint32(first) + uint32(at);
  if constexpr (ORDER == SHUFFLE) {
    const uint32 mask = (1u << bits) - 1;
    do {
      uint32 left = number >> bits, right = number & mask;
#pragma unroll
      for (int round = 0; round < ROUNDS; round++) {
        const uint32 changed = left ^ (mixed(right ^ keys[round]) & mask);
        left = right;
        right = changed;
      }
      number = (left << bits) | right;
    } while (number >= uint32(examples));
  }
  if constexpr (ORDER == REPLACEMENT) {
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) number = mixed(number ^ keys[round]);
    number = __umulhi(number, uint32(examples));
  }
  rows[at] = int(number);
}

// The image order of an epoch: the same formula as in backends/order.py.
//
// Layout: one thread per position, from `first` on; rows (count,).
// Cost per position: a shuffle applies six Feistel rounds of about a dozen integer operations,
// 4^bits / examples times on average, which is less than four except for very small data sets. One
// 4-byte write.
// Options: -DORDER=SHUFFLE, REPLACEMENT or FULL; -DROUNDS, the number of rounds.
#include "common.cuh"

enum OrderKind { FULL, SHUFFLE, REPLACEMENT };

struct Keys {
  uint32 rounds[ROUNDS];
};

// The finalizer of MurmurHash3 (Appleby, 2011).
DEVICE uint32 fmix32(uint32 number) {
  number = (number ^ (number >> 16)) * 0x85ebca6bu;
  number = (number ^ (number >> 13)) * 0xc2b2ae35u;
  return number ^ (number >> 16);
}

// Sets rows[i] to the row of the data set at position first + i. `bits` is the width of each half
// of the Feistel network, so that examples <= 4^bits. Results that are not rows go through the
// network again (cycle walking).
// At most 32 registers.
extern "C" __global__ void order(int first, int count, int examples, int bits, Keys keys,
                                 int* __restrict__ rows) {
  const int at = int(blockIdx.x) * int(blockDim.x) + int(threadIdx.x);
  if (at >= count) return;
  uint32 number = uint32(first) + uint32(at);
  if constexpr (ORDER == SHUFFLE) {
    const uint32 mask = (1u << bits) - 1;
    do {
      uint32 left = number >> bits, right = number & mask;
#pragma unroll
      for (int round = 0; round < ROUNDS; round++) {
        const uint32 next = left ^ (fmix32(right ^ keys.rounds[round]) & mask);
        left = right;
        right = next;
      }
      number = (left << bits) | right;
    } while (number >= uint32(examples));
  }
  if constexpr (ORDER == REPLACEMENT) {
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) number = fmix32(number ^ keys.rounds[round]);
    number = __umulhi(number, uint32(examples));  // scales 0 .. 2^32 - 1 to 0 .. examples - 1
  }
  rows[at] = int(number);
}

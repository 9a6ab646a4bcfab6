// The exchange of persistent_mlp.cu between the blocks of a cooperative grid, for GPUs without
// clusters: one grid barrier per step.
//
// The partial sums are in global memory. Each block reads those of all images, and computes all
// records itself. The sums are double-buffered: a fast block can write those of the next step while
// a slow block still reads those of this step.
#pragma once

#include "persistent/grid_barrier.cuh"

struct ExchangeBuffers {};

struct Exchange {
  Record* records;     // of all images of a batch
  volatile real* sums; // (2, BLOCKS, BATCH, ROW)
  unsigned* barrier;

  DEVICE Exchange(ExchangeBuffers&, Record* records, real* sums, unsigned* barrier)
      : records(records), sums(sums), barrier(barrier) {}

  DEVICE void begin_step(int) {}

  DEVICE void send_sums(int step, int image, int unit, const Vector& values) {
    volatile real* const target = row(step, image, blockIdx.x) + unit;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) target[i] = values.elements[i];
  }

  DEVICE void wait_for_sums(int) { grid_barrier_wait(barrier); }

  static constexpr int IMAGE_STRIDE = WARPS;
  DEVICE int first_image() const { return threadIdx.x / WARP_SIZE; }

  DEVICE real sum(int step, int image, int block, int unit) const {
    return row(step, image, block)[unit];
  }

  DEVICE Record& record(int image) { return records[image]; }
  DEVICE void send_record(int) {}
  DEVICE void wait_for_records(int) { __syncthreads(); }
  DEVICE bool stores_results() const { return blockIdx.x == 0; }
  DEVICE void finish() { __syncthreads(); }

  DEVICE volatile real* row(int step, int image, int block) const {
    return sums + ((step % 2 * BLOCKS + block) * BATCH + image) * ROW;
  }
};

// The exchange of persistent_mlp.cu between the blocks of a cluster, for compute capability 9.0 and
// later: asynchronous stores into the shared memory of the other blocks.
//
// Block r computes the images r, r + BLOCKS, ... of a batch, each in one warp. It receives their
// partial sums from all blocks, and sends the record of each image to all blocks, itself included.
// Each kind of data has one buffer and one barrier per block, with one phase per step. No buffer is
// overwritten while it is read, because of what a block receives before it sends:
//   - A block sends the sums of the next step after it has received all records of this step. Each
//     record was sent after its block had read the sums.
//   - A block sends a record of the next step after it has received sums of that step from all
//     blocks. Each block sent them after it had read the records of this step.
// For the same reason, bytes of a phase arrive at a block only after the previous phase has ended.
#pragma once

#include "mbarrier.cuh"
#include "persistent/grid_barrier.cuh"

constexpr int IMAGES_PER_BLOCK = (BATCH + BLOCKS - 1) / BLOCKS;

struct ExchangeBuffers {
  alignas(16) real sums[IMAGES_PER_BLOCK][BLOCKS][ROW];  // received from each block
  Record sent[IMAGES_PER_BLOCK];                         // records of the images of this block
  Mbarrier sums_barrier, records_barrier;
};

struct Exchange {
  ExchangeBuffers& buffers;
  Record* records;  // of all images of a batch

  DEVICE Exchange(ExchangeBuffers& buffers, Record* records, real*, unsigned*)
      : buffers(buffers), records(records) {
    if (threadIdx.x == 0) {
      mbarrier_init(buffers.sums_barrier, 1);
      mbarrier_init(buffers.records_barrier, 1);
    }
    grid_barrier_wait(nullptr);
  }

  // All blocks call this at the beginning of a step.
  DEVICE void begin_step(int count) {
    if (threadIdx.x > 0) return;
    const int own_images = max(0, count - int(blockIdx.x) + BLOCKS - 1) / BLOCKS;
    mbarrier_arrive_and_expect(buffers.sums_barrier,
                               own_images * BLOCKS * ROW * int(sizeof(real)));
    mbarrier_arrive_and_expect(buffers.records_barrier, count * int(sizeof(Record)));
  }

  // Sends partial sums of this block: those of the hidden units `unit` .. `unit + VECTOR - 1`.
  DEVICE void send_sums(int step, int image, int unit, const Vector& sums) {
    real* const target = &buffers.sums[image / BLOCKS][blockIdx.x][unit];
    store_async(target, sums, buffers.sums_barrier, image % BLOCKS);
  }

  // Waits for the partial sums of the images of this warp.
  DEVICE void wait_for_sums(int step) {
    if (threadIdx.x / WARP_SIZE < IMAGES_PER_BLOCK)
      mbarrier_wait(buffers.sums_barrier, step % 2);
  }

  // The images of this warp are first_image(), first_image() + IMAGE_STRIDE, ...
  static constexpr int IMAGE_STRIDE = BLOCKS * WARPS;
  DEVICE int first_image() const { return threadIdx.x / WARP_SIZE * BLOCKS + blockIdx.x; }

  // Returns the partial sum of a hidden unit that a block has sent for an image of this warp.
  DEVICE real sum(int step, int image, int block, int unit) const {
    return buffers.sums[image / BLOCKS][block][unit];
  }

  // Returns the record that this warp has to fill.
  DEVICE Record& record(int image) { return buffers.sent[image / BLOCKS]; }

  // Sends the record of an image to all blocks. All lanes of the warp call this.
  DEVICE void send_record(int image) {
    constexpr int VECTORS = sizeof(Record) / sizeof(Vector);
    const Vector* const values = (const Vector*)&buffers.sent[image / BLOCKS];
    Vector* const targets = (Vector*)&records[image];
    __syncwarp();
    for (int i = threadIdx.x % WARP_SIZE; i < BLOCKS * VECTORS; i += WARP_SIZE)
      store_async(targets + i % VECTORS, values[i % VECTORS], buffers.records_barrier, i / VECTORS);
  }

  DEVICE void wait_for_records(int step) { mbarrier_wait(buffers.records_barrier, step % 2); }

  // Returns whether this block stores the results of its images.
  DEVICE bool stores_results() const { return true; }

  // Makes the stored results visible to all blocks. No block ends before.
  DEVICE void finish() { grid_barrier_wait(nullptr); }
};

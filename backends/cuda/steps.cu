// The beginning and the end of a captured step.
//
// A CUDA graph repeats launches with the arguments that they had when it was captured. So what
// changes from step to step lies in memory: `step`, a counter, says which part of the arrays of a
// section of steps comes next. `begin_step` takes the batch of that part from the data set;
// `end_step` adds up its losses and counts on. The data set stays on the device, as it was loaded.
//
// Layout: images (N, pixels) of PIXEL, labels (N,), rows (images of the section,), bounds (steps, 2)
// of places in `rows`, rates (steps, 3); batch (B, pixels).
// Cost per image: as batches.cu.
// Options: -DPIXEL=uint8 (0..255, scaled to 0..1), or float or double (0..1 already).
#include "common.cuh"

// Grid: (B · pixels / threads): a thread a pixel, the first also for what all share.
// At most 40 registers.
extern "C" __global__ void begin_step(
    const PIXEL* __restrict__ images, const int* __restrict__ labels, const int* __restrict__ rows,
    const int* __restrict__ bounds, const real* __restrict__ rates, const int* __restrict__ step,
    int pixels, real shift, real* __restrict__ batch, int* __restrict__ batch_labels,
    int* __restrict__ count, real* __restrict__ step_rates) {
  const int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  const int now = *step;
  const int first = bounds[2 * now], size = bounds[2 * now + 1] - first;
  if (at == 0) {
    *count = size;
    for (int i = 0; i < 3; i++) step_rates[i] = rates[3 * now + i];
  }
  const int image = int(at / pixels), pixel = int(at % pixels);
  if (image >= size) return;
  const int row = rows[first + image];
  if (pixel == 0) batch_labels[image] = labels[row];
  batch[at] = normalised(images[int64(row) * pixels + pixel], shift);
}

// Grid: one block. The sums are made in one order, whatever the block's threads do first.
// At most 40 registers.
extern "C" __global__ void __launch_bounds__(256)
    end_step(const real* __restrict__ row_losses, const int* __restrict__ row_correct,
             const int* __restrict__ count, int* __restrict__ step, double* __restrict__ losses,
             int* __restrict__ correct) {
  __shared__ double loss_sums[32];
  __shared__ int correct_sums[32];
  double loss = 0;
  int hits = 0;
  for (int row = threadIdx.x; row < *count; row += blockDim.x) {
    loss += double(row_losses[row]);
    hits += row_correct[row];
  }
  loss = sum_of_block(loss, loss_sums);
  hits = sum_of_block(hits, correct_sums);
  if (threadIdx.x == 0) {
    losses[*step] = loss / double(*count);
    correct[*step] = hits;
    *step += 1;
  }
}

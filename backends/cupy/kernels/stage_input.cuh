// The input of a stage: the output of the previous stage, or images gathered from the data set.
//
// A CUDA graph replays its launches with the arguments of the capture, so everything that changes
// from step to step is in device memory. The counter `step` selects the step's entry in the arrays
// of a chunk. The first stage of a graph step reads that entry, gathers and normalizes its images
// from the data set, and writes the size of the batch and the rates for the later kernels of the
// step.
//
// Options: -DGATHER=1 if images are gathered from the data set, else 0; -DINPUT=uint8, float or
// double, the element type of the data set; equal to REAL if GATHER is 0.
#pragma once

#include "common.cuh"
#include "rows.cuh"

#if GATHER
typedef GatheredRows<INPUT> StageRows;
#else
typedef DenseRows StageRows;
#endif

struct StageInput {
  Batch batch;        // of a dense input; a gathered batch is described by the rest
  const int* rows;    // rows of the data set that the chunk takes, in order
  const int* bounds;  // (steps, 2): positions in `rows` where each step begins and ends
  const real* rates;  // (steps, 3)
  const int* step;    // number of steps of the chunk that are done
  int* batch_state;   // (2,), set as Batch.state describes
  real* step_rates;   // (3,), set to the step's row of `rates`
  real pixel_shift;
};

// Returns a view of the input x, with rows of `width` elements.
__device__ __forceinline__ StageRows stage_rows(const INPUT* x, const StageInput& input,
                                                int width) {
#if GATHER
  const int step = *input.step;
  const int first = input.bounds[2 * step], count = input.bounds[2 * step + 1] - first;
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
    input.batch_state[0] = count;
    input.batch_state[1] = first;
    for (int i = 0; i < 3; i++) input.step_rates[i] = input.rates[3 * step + i];
  }
  return {x, input.rows + first, input.pixel_shift, width, count};
#else
  return {x, width, input.batch.size()};
#endif
}

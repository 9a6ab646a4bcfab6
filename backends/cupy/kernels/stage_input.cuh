// The input of a stage: the output of the previous stage, or images gathered from the data set.
//
// The first stage of a graph step reads the step's entry in the arrays of the chunk, gathers and
// normalizes its images from the data set, and sets the size of the batch and the rates for the
// later kernels of the step.
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
  Batch batch;  // describes a dense input; the other members describe a gathered input
  Chunk chunk;
  StepState state;
  real pixel_shift;
};

// Returns a view of a member's input x, with rows of `width` elements.
DEVICE StageRows stage_rows(const INPUT* x, const StageInput& input, int width,
                            int64 member_stride) {
#if GATHER
  const Chunk chunk = of_member(input.chunk, member_stride);
  const StepState state = of_member(input.state, member_stride);
  const int step = *chunk.step;
  const int first = chunk.bounds[2 * step], count = chunk.bounds[2 * step + 1] - first;
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
    state.batch[0] = count;
    state.batch[1] = first;
    for (int i = 0; i < 3; i++) state.rates[i] = chunk.rates[3 * step + i];
  }
  return {x, chunk.rows + first, input.pixel_shift, width, count};
#else
  return {of_member(x, member_stride), width, of_member(input.batch, member_stride).size()};
#endif
}

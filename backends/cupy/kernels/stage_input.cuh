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

#if GATHER
// Returns a view of the images of a member's batch, with `width` pixels.
DEVICE StageRows gathered_rows(const INPUT* x, const StageInput& input, int width,
                               int64 member_stride) {
  const Chunk chunk = of_member(input.chunk, member_stride);
  const int first = chunk.step[1], count = chunk.step[2] - first;
  return {x, chunk.rows + first, input.pixel_shift, width, count};
}

// Sets the size of a member's batch and its rates for the later kernels of the step.
DEVICE void set_state(const StageInput& input, int64 member_stride) {
  const Chunk chunk = of_member(input.chunk, member_stride);
  const StepState state = of_member(input.state, member_stride);
  const int first = chunk.step[1], end = chunk.step[2];
  const real* const rates = chunk.rates + 3 * chunk.step[0];
  const real loaded[3] = {rates[0], rates[1], rates[2]};  // before a store that they might alias
  state.batch[0] = end - first;
  state.batch[1] = first;
  for (int i = 0; i < 3; i++) state.rates[i] = loaded[i];
}
#endif

// Returns a view of a member's input x, with rows of `width` elements.
DEVICE StageRows stage_rows(const INPUT* x, const StageInput& input, int width,
                            int64 member_stride) {
#if GATHER
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) set_state(input, member_stride);
  return gathered_rows(x, input, width, member_stride);
#else
  return {of_member(x, member_stride), width, of_member(input.batch, member_stride).size()};
#endif
}

// The L2 penalty of a graph step, which is added to the loss of the batch before wgrad_update.cu
// changes the weights. That kernel also adds the gradient of the penalty.
//
// Layout: one block per member; thread t sums the squares of the elements t, t + THREADS, .. of each layer.
// Cost: reads every weight once.
// Options: -DMAX_LAYERS; -DTHREADS per block, a multiple of WARP_SIZE.
#include "common.cuh"

// The weights of the layers, without biases: a position in the parameter vector, and a length.
struct PenalizedWeights {
  int begins[MAX_LAYERS];
  int lengths[MAX_LAYERS];
  int count;
};

// Adds l2 / 2 times the sum of the squared weights to the loss of the first image. The mean over
// the images of the batch then contains the penalty once, divided by their number.
// Grid: one block per member.
// At most 40 registers.
extern "C" __global__ void penalty(const real* __restrict__ weights, PenalizedWeights layers,
                                   real l2, StepState state, int64 member_stride) {
  __shared__ double warp_sums[THREADS / WARP_SIZE];
  weights = of_member(weights, member_stride);
  state = of_member(state, member_stride);
  double squares = 0;
  for (int layer = 0; layer < layers.count; layer++) {
    const real* const begin = weights + layers.begins[layer];
    for (int i = threadIdx.x; i < layers.lengths[layer]; i += THREADS)
      squares += double(begin[i]) * double(begin[i]);
  }
  squares = block_reduce_sum(squares, warp_sums);
  if (threadIdx.x == 0 && state.batch[0] > 0)
    state.image_losses[0] += real(double(l2) / 2 * squares);
}

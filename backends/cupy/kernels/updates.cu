// One step of an optimizer on the flat parameter vector, with gradients in memory. Graph steps use
// wgrad_update.cu instead, which applies a gradient as soon as it is computed.
//
// Layout: one thread per parameter.
// Cost per parameter: reads weight and gradient, writes the weight, and reads and writes each state
// array.
// Options: -DRULE as in update_rules.cuh.
#include "common.cuh"
#include "update_rules.cuh"

// state0 and state1 are null if the rule has fewer state arrays.
// At most 40 registers.
extern "C" __global__ void update(real* __restrict__ weights, real* __restrict__ state0,
                                  real* __restrict__ state1, const real* __restrict__ grads,
                                  int length, RuleSettings settings, Rates rates) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < length) Updater{weights, state0, state1, settings, rates}.apply(i, grads[i]);
}

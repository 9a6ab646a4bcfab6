// One step of an optimizer over all parameters of a network, which are one vector, by gradients that
// lie in memory. Captured steps descend as soon as they know a gradient: descend.cu.
//
// A thread a parameter.
// Cost per parameter: reads weight and gradient and writes the weight; reads and writes each array
// that the rule keeps between steps. None per image.
// Options: -DRULE as rules.cuh has them.
#include "common.cuh"
#include "rules.cuh"

// At most 40 registers.
extern "C" __global__ void update(RULE_ARGUMENTS, const real* __restrict__ grads, int length,
                                  real lr, real mean_rate, real square_scale) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < length) RULE_OF_ARGUMENTS.update(i, grads[i], {lr, mean_rate, square_scale});
}

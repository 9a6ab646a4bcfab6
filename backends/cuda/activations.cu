// Activations by themselves, and their gradients, where no other kernel takes them along.
//
// A thread a number.
// Cost per image: reads and writes every number once.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH.
#include "common.cuh"

// At most 32 registers.
extern "C" __global__ void activation(const real* __restrict__ x, int64 size,
                                      real* __restrict__ y) {
  const int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) y[i] = activate<ACTIVATION>(x[i]);
}

// Multiplies `dy` by the derivative where the activation gave `y`; `dx` may be `dy`.
// At most 32 registers.
extern "C" __global__ void activation_backward(const real* dy, const real* __restrict__ y,
                                               int64 size, real* dx) {
  const int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) dx[i] = dy[i] * derivative<ACTIVATION>(y[i]);
}

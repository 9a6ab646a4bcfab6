// Activations by themselves, and their gradients, where no other kernel takes them along.
//
// A thread a number.
// Cost per image: reads and writes every number once.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH; -DPIXEL where x are images of the data set.
#include "common.cuh"
#include "rows.cuh"
#include "input.cuh"

// Grid: (images · units / threads), units being the numbers of an image.
// At most 40 registers.
extern "C" __global__ void activation(INPUT, int units, real* __restrict__ y) {
  const Input input = INPUT_OF(units);
  const int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  const int image = int(i / units);
  if (image < input.count) y[i] = activate<ACTIVATION>(input.from(image)(0)[int(i % units)]);
}

// Multiplies `dy` by the derivative where the activation gave `y`; `dx` may be `dy`.
// At most 32 registers.
extern "C" __global__ void activation_backward(const real* dy, const real* __restrict__ y,
                                               int64 size, real* dx) {
  const int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) dx[i] = dy[i] * derivative<ACTIVATION>(y[i]);
}

// The fully connected layer with its activation, and the gradient of what it takes; that of its
// parameters is in descend.cu.
//
// Layout: x (B, in), W (in, out), y (B, out), all by rows; tiles of the results as tiles.cuh has them.
// Cost per image: in·out multiplications forward, and as many back.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH: of the outputs; for the gradient of x, of
// the stage that made x, whose derivative it takes along. -DPIXEL where x are images of the data set.
#include "common.cuh"
#include "rows.cuh"
#include "input.cuh"
#include "tiles.cuh"

// Grid: (outputs / 16, images / 16). y = activation(x W + bias).
// At most 48 registers.
extern "C" __global__ void __launch_bounds__(256)
    linear(INPUT, const real* __restrict__ weight, const real* __restrict__ bias, int inputs,
           int outputs, real* __restrict__ y) {
  __shared__ Tiles tiles;
  const Input input = INPUT_OF(inputs);
  if (int(blockIdx.y) * TILE >= input.count) return;  // a whole block
  const Matrix<Numbers> weights = {{weight, outputs, inputs}};
  const real sum =
      product<false, false>(Matrix<Input>{input}, weights, blockIdx.y, blockIdx.x, tiles);
  const int row = blockIdx.y * TILE + threadIdx.x / TILE;
  const int column = blockIdx.x * TILE + threadIdx.x % TILE;
  if (row >= input.count || column >= outputs) return;
  y[int64(row) * outputs + column] = activate<ACTIVATION>(bias ? sum + bias[column] : sum);
}

// Grid: (inputs / 16, images / 16). dx = dy Wᵀ, times the derivative of what made x (`below`).
// At most 40 registers.
extern "C" __global__ void __launch_bounds__(256)
    linear_backward_x(const real* __restrict__ dy, const real* __restrict__ weight,
                      const real* __restrict__ below, int inputs, int outputs, batch_t batch,
                      real* __restrict__ dx) {
  __shared__ Tiles tiles;
  const int images = images_of(batch);
  if (int(blockIdx.y) * TILE >= images) return;  // a whole block
  const Matrix<Numbers> gradients = {{dy, outputs, images}}, weights = {{weight, outputs, inputs}};
  const real sum = product<false, true>(gradients, weights, blockIdx.y, blockIdx.x, tiles);
  const int row = blockIdx.y * TILE + threadIdx.x / TILE;
  const int column = blockIdx.x * TILE + threadIdx.x % TILE;
  if (row >= images || column >= inputs) return;
  const int64 at = int64(row) * inputs + column;
  dx[at] = sum * derivative<ACTIVATION>(below[at]);
}

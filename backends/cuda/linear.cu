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

// Grid: (images / 16, outputs / 32). y = activation(x W + bias).
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(256, 1)
    linear(INPUT, const real* __restrict__ weight, const real* __restrict__ bias, int inputs,
           int outputs, real* __restrict__ y) {
  __shared__ Tiles tiles;
  const Input input = INPUT_OF(inputs);
  const int first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
  if (first_row >= input.count) return;  // a whole block
  const Matrix<Numbers> weights = {{weight, outputs, inputs}};
  product<false, false>(Matrix<Input>{input}, weights, blockIdx.x, blockIdx.y, tiles);
  for (int place = threadIdx.x; place < TILE_NUMBERS; place += blockDim.x) {
    const int row = first_row + place / TILE_COLUMNS, column = first_column + place % TILE_COLUMNS;
    if (row >= input.count || column >= outputs) continue;
    const real sum = number_of_tile(tiles, place);
    y[int64(row) * outputs + column] = activate<ACTIVATION>(bias ? sum + bias[column] : sum);
  }
}

// Grid: (images / 16, inputs / 32). dx = dy Wᵀ, times the derivative of what made x (`below`).
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(256, 1)
    linear_backward_x(const real* __restrict__ dy, const real* __restrict__ weight,
                      const real* __restrict__ below, int inputs, int outputs, batch_t batch,
                      real* __restrict__ dx) {
  __shared__ Tiles tiles;
  const int images = images_of(batch);
  const int first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
  if (first_row >= images) return;  // a whole block
  const Matrix<Numbers> gradients = {{dy, outputs, images}}, weights = {{weight, outputs, inputs}};
  product<false, true>(gradients, weights, blockIdx.x, blockIdx.y, tiles);
  for (int place = threadIdx.x; place < TILE_NUMBERS; place += blockDim.x) {
    const int row = first_row + place / TILE_COLUMNS, column = first_column + place % TILE_COLUMNS;
    if (row >= images || column >= inputs) continue;
    const int64 at = int64(row) * inputs + column;
    dx[at] = number_of_tile(tiles, place) * derivative<ACTIVATION>(below[at]);
  }
}

// The fully connected layer with its activation, and the gradient of what it takes; that of its
// parameters is in descend.cu.
//
// Layout: x (B, in), W (in, out), y (B, out), all by rows; tiles of the results as tiles.cuh has them.
// Cost per image: in·out multiplications forward, and as many back.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH: of the outputs; for the gradient of x, of
// the stage that made x, whose derivative it takes along. -DPIXEL where x are images of the data set.
// -DSIDE as tiles.cuh has it.
#include "common.cuh"
#include "rows.cuh"
#include "input.cuh"
#include "tiles.cuh"

#define BLOCKS (SIDE == 4 ? 1 : 3)  // that fit a multiprocessor

// Grid: (images / TILE_ROWS, outputs / TILE_COLUMNS). y = activation(x W + bias).
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, BLOCKS)
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

// Grid: (images / TILE_ROWS, inputs / TILE_COLUMNS).
// dx = dy Wᵀ, times the derivative of what made x (`below`).
// At most 224 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, 1)
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

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
#include "linear_tile.cuh"

#define BLOCKS (SIDE == 4 ? 1 : 3)  // for whose registers a multiprocessor has room, at least

// Grid: (images / TILE_ROWS, outputs / TILE_COLUMNS). y = activation(x W + bias).
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, BLOCKS)
    linear(INPUT, const real* __restrict__ weight, const real* __restrict__ bias, int inputs,
           int outputs, real* __restrict__ y) {
  __shared__ Tiles tiles;
  const Input input = INPUT_OF(inputs);
  if (int(blockIdx.x) * TILE_ROWS >= input.count) return;  // a whole block
  linear_tile(input, {weight, outputs, inputs}, bias, ACTIVATION, blockIdx.x, blockIdx.y, y, outputs,
              tiles);
}

// Grid: (images / TILE_ROWS, inputs / TILE_COLUMNS).
// dx = dy Wᵀ, times the derivative of what made x (`below`).
// At most 240 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, 1)
    linear_backward_x(const real* __restrict__ dy, const real* __restrict__ weight,
                      const real* __restrict__ below, int inputs, int outputs, batch_t batch,
                      real* __restrict__ dx) {
  __shared__ Tiles tiles;
  const int images = images_of(batch);
  if (int(blockIdx.x) * TILE_ROWS >= images) return;  // a whole block
  linear_backward_tile({dy, outputs, images}, {weight, outputs, inputs}, below, ACTIVATION, blockIdx.x,
                       blockIdx.y, dx, tiles);
}

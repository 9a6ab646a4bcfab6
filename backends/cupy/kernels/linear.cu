// A linear layer with its activation, and the gradient of its input. The gradient of its parameters
// is computed by wgrad_update.cu.
//
// Layout: x (B, in), W (in, out), y (B, out), all row-major. A block computes a tile of the result.
// Cost per image: in·out multiply-adds forward, and the same backward.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH, the activation of y in linear() and of the
// stage that computed x in linear_backward_x(); -DGATHER and -DINPUT as in stage_input.cuh;
// -DTHREAD_TILE and the other tile sizes as in gemm_tile.cuh.
#include "common.cuh"
#include "linear_tile.cuh"
#include "stage_input.cuh"

constexpr int MIN_BLOCKS = THREAD_TILE == 4 ? 1 : 3;  // resident blocks per multiprocessor

// y = activation(x W + bias). Grid: (images / TILE_ROWS, out / TILE_COLUMNS, members), rounded up.
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
    linear(const INPUT* __restrict__ x, StageInput input, const real* __restrict__ weight,
           const real* __restrict__ bias, int inputs, int outputs, int64 member_stride,
           real* __restrict__ y) {
  __shared__ GemmShared shared;
  const StageRows rows = stage_rows(x, input, inputs, member_stride);
  if (int(blockIdx.x) * TILE_ROWS >= rows.count) return;  // in all threads of the block
  linear_tile(rows, {of_member(weight, member_stride), outputs, inputs},
              of_member(bias, member_stride), ACTIVATION, blockIdx.x, blockIdx.y,
              of_member(y, member_stride), outputs, shared);
}

// dx = dy Wᵀ times the derivative of the activation that computed x.
// Grid: (images / TILE_ROWS, in / TILE_COLUMNS, members), rounded up.
// At most 240 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, 1)
    linear_backward_x(const real* __restrict__ dy, const real* __restrict__ weight,
                      const real* __restrict__ x, int inputs, int outputs, Batch batch,
                      int64 member_stride, real* __restrict__ dx) {
  __shared__ GemmShared shared;
  const int images = of_member(batch, member_stride).size();
  if (int(blockIdx.x) * TILE_ROWS >= images) return;  // in all threads of the block
  linear_backward_tile({of_member(dy, member_stride), outputs, images},
                       {of_member(weight, member_stride), outputs, inputs},
                       of_member(x, member_stride), ACTIVATION, blockIdx.x, blockIdx.y,
                       of_member(dx, member_stride), shared);
}

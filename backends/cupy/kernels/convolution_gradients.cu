// The gradients of the filters and of the input of a convolution. Graph steps compute the gradient
// of the filters with wgrad_update.cu instead. With pooling, dy is the gradient of the
// pre-activation of the pooled output.
//
// Layout: as in convolution.cu.
// Cost per image: O·OH·OW·C·K² multiply-adds each; a quarter of that with pooling.
// Options: -DKERNEL_SIZE=1 to 32; -DPOOL=2 with pooling, else 1; -DCHANNELS_PER_THREAD and
// -DPIXEL_TILE as in conv_input_gradient.cuh; -DFILTER_TILE and -DFILTERS_PER_TILE as in
// conv_wgrad.cuh; -DTHREADS per block.
#include "common.cuh"
#include "conv_input_gradient.cuh"
#include "conv_wgrad.cuh"

constexpr int WARPS = THREADS / WARP_SIZE;

// Sets each row of partial_sums (splits, weights + filters) to the gradients of the filters and the
// biases for a split of the images; their sum over the splits is the gradient. The convolution is
// not pooled.
// Grid: (filter tiles, splits).
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv2d_backward_weight(const real* __restrict__ dy, const real* __restrict__ x,
                           const __grid_constant__ ConvShape conv, int images,
                           real* __restrict__ partial_sums) {
  __shared__ real warp_sums[WARPS][FILTER_TILE_SUMS];
  const ConvShape shape = specialize<KERNEL_SIZE, 1>(conv);
  const FilterTile tile(shape, blockIdx.x);
  const int first = split_begin(images, blockIdx.y, gridDim.y);
  DenseRows rows = DenseRows{x, shape.pixels(), images}.from(first);
  rows.count = split_begin(images, blockIdx.y + 1, gridDim.y) - first;
  conv_wgrad(dy + int64(first) * shape.filters * shape.cells(), nullptr, rows, shape, tile,
             warp_sums[0]);
  const int number = threadIdx.x;
  if (number >= FILTER_TILE_SUMS) return;
  real total = 0;
  for (int warp = 0; warp < WARPS; warp++) total += warp_sums[warp][number];
  const int weights = shape.filters * shape.channels * shape.taps();
  real* const row = partial_sums + int64(blockIdx.y) * (weights + shape.filters);
  const int weight = tile.weight_index(shape, number), bias = tile.bias_index(number);
  if (weight >= 0) row[weight] = total;
  if (bias >= 0) row[weights + bias] = total;
}

// Sets dx to the gradient of x times the derivative of `activation`, whose output is x.
// Grid: (images · pixel tiles · 4 / THREADS, C / CHANNELS_PER_THREAD, members), rounded up.
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv2d_backward_x(const real* __restrict__ dy, const uint8* __restrict__ mask,
                      const real* __restrict__ weight, const real* __restrict__ x,
                      const __grid_constant__ ConvShape conv, Batch batch, Activation activation,
                      int64 member_stride, real* __restrict__ dx) {
  const ConvShape shape = specialize<KERNEL_SIZE, POOL>(conv);
  const Position position(pixel_tiles(shape), TILE_LANES);
  const bool is_idle = position.quotient >= of_member(batch, member_stride).size();
  const int64 image = is_idle ? 0 : position.quotient;
  const int64 input = image * shape.pixels(), output = image * shape.filters * shape.cells();
  conv_input_gradient(of_member(dy, member_stride) + output, of_member(mask, member_stride) + output,
                      of_member(weight, member_stride), of_member(x, member_stride) + input, shape,
                      activation, blockIdx.y * CHANNELS_PER_THREAD, position.remainder, is_idle,
                      of_member(dx, member_stride) + input);
}

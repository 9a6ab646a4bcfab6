// The gradients of a convolution: of its filters, as a single operation, and of its images, with or without
// what follows it. Where outputs are pooled and activated, dy is the gradient of what the activation took.
//
// Layout: as convolution.cu has it.
// Cost per image: O·OH·OW·C·K² multiplications each; a quarter of them where outputs are pooled.
// Options: -DKERNEL_SIZE=1 to 32; -DPOOL=1 where outputs are pooled; -DCHANNELS as image_gradient.cuh
// has it; -DPATCH as filter_gradient.cuh has it.
#include "common.cuh"
#include "rows.cuh"
#include "maps.cuh"
#include "filter_gradient.cuh"
#include "image_gradient.cuh"

// Grid: (patches of all filters, shares of the images), patches as filter_gradient.cuh has them; a row
// of `sums` for each share. The gradient of biases, behind that of the filters, is an operation's result
// even where the layer has none.
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d_backward_weight(const real* __restrict__ dy, const real* __restrict__ x, MAPS, int images,
                           real* __restrict__ sums) {
  __shared__ real parts[8][PATCH_NUMBERS];
  Maps maps = ALL_MAPS;
  maps.side = 1;  // single operations do not pool
  const Patch patch(maps, blockIdx.x);
  const int first = int(int64(images) * blockIdx.y / gridDim.y);
  Numbers input = Numbers{x, channels * height * width, images}.from(first);
  input.count = int(int64(images) * (blockIdx.y + 1) / gridDim.y) - first;
  filter_gradient(dy + int64(first) * filters * maps.cells(), nullptr, input, maps, patch, parts[0]);
  const int own = threadIdx.x;
  if (own >= PATCH_NUMBERS) return;
  real total = 0;
  for (int warp = 0; warp < 8; warp++) total += parts[warp][own];
  const int weights = filters * channels * maps.taps();
  real* const row = sums + int64(blockIdx.y) * (weights + filters);
  const int weight = patch.weight(maps, own), bias = patch.bias(own);
  if (weight >= 0) row[weight] = total;
  if (bias >= 0) row[weights + bias] = total;
}

// Grid: (images · squares of pixels · 4 / threads, channels / CHANNELS).
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d_backward_x(const real* __restrict__ dy, const uint8* __restrict__ mask,
                      const real* __restrict__ weight, const real* __restrict__ below, MAPS,
                      batch_t batch, int activation_below, real* __restrict__ dx) {
  const Maps maps = ALL_MAPS;
  const int64 place = (int64(blockIdx.x) * blockDim.x + threadIdx.x) / SHARERS;
  const bool is_idle = place / squares(maps) >= images_of(batch);
  const int64 image = is_idle ? 0 : place / squares(maps);
  const int64 input = image * channels * height * width, output = image * filters * maps.cells();
  image_gradient(dy + output, mask + output, weight, below + input, maps, activation_below,
                 blockIdx.y * CHANNELS, int(place % squares(maps)), is_idle, dx + input);
}

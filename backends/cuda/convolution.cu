// Convolution with square filters and a stride of 1, by itself or with what follows it in one pass:
// activation and the maximum of each 2×2 window.
//
// Layout: images (N, C, H, W), filters (O, C, K, K), feature maps (N, O, OH, OW), pooled maps
// (N, O, OH/2, OW/2). Forward, a block works on one map of one image and a thread on one output, so
// that all threads of a block read the same filter. Sums go tap by tap in one order: equal patches
// give equal outputs to the last bit, as ties of max-pooling need it.
// Cost per image: O·OH·OW·C·K² multiplications forward, as many for the gradient of the filters and
// for that of the images.
// Options: -DKERNEL_SIZE=1 to 32; -DPOOL=1 where outputs are pooled; -DACTIVATION=IDENTITY, RELU,
// SIGMOID or TANH: of the outputs; for the gradient of the images, of the stage that made them,
// whose derivative it takes along. -DPIXEL where the images are those of the data set.
#include "common.cuh"
#include "rows.cuh"
#include "input.cuh"
#include "maps.cuh"

#define TAPS (KERNEL_SIZE * KERNEL_SIZE)
#define SIDE (POOL ? 2 : 1)
#define MAPS int channels, int height, int width, int filters, int padding
#define ALL_MAPS \
  Maps { channels, height, width, filters, padding, KERNEL_SIZE, SIDE }

// Grid: (images · filters, cells / threads). Bit 2·i + j of `mask`, which is not touched unless POOL,
// is set where output (i, j) of a window receives the gradient: with `all_ties` every one that
// equals the maximum, else the first.
// At most 64 registers.
extern "C" __global__ void conv2d(INPUT, const real* __restrict__ weight,
                                  const real* __restrict__ bias, MAPS, int all_ties,
                                  real* __restrict__ y, uint8* __restrict__ mask) {
  const Maps maps = ALL_MAPS;
  const Input input = INPUT_OF(channels * height * width);
  const int image = blockIdx.x / filters, filter = blockIdx.x % filters;
  const int cell = blockIdx.y * blockDim.x + threadIdx.x, cells = maps.cells();
  if (image >= input.count || cell >= cells) return;
  const int row = cell / maps.cells_across(), column = cell % maps.cells_across();
  real sums[SIDE * SIDE];
#pragma unroll
  for (int bit = 0; bit < SIDE * SIDE; bit++) sums[bit] = 0;
  for (int channel = 0; channel < channels; channel++) {
    const real* const taps = weight + (filter * channels + channel) * TAPS;
    // Line by line of the image: one line of a patch fits the registers, a whole patch does not.
#pragma unroll 1
    for (int i = 0; i < KERNEL_SIZE + SIDE - 1; i++) {
      real line[KERNEL_SIZE + SIDE - 1];
#pragma unroll
      for (int j = 0; j < KERNEL_SIZE + SIDE - 1; j++)
        line[j] = pixel(input(image), maps, channel, row * SIDE + i - padding,
                        column * SIDE + j - padding);
#pragma unroll
      for (int bit = 0; bit < SIDE * SIDE; bit++) {
        const int tap = i - bit / SIDE;  // the line of the filter that lies here for this output
        if (tap < 0 || tap >= KERNEL_SIZE) continue;
#pragma unroll
        for (int j = 0; j < KERNEL_SIZE; j++)
          sums[bit] += taps[tap * KERNEL_SIZE + j] * line[j + bit % SIDE];
      }
    }
  }
  const int64 at = int64(blockIdx.x) * cells + cell;
  real largest = sums[0];
#if POOL
  unsigned bits = 1;
#pragma unroll
  for (int bit = 1; bit < 4; bit++) {
    if (sums[bit] > largest || sums[bit] != sums[bit]) {
      largest = sums[bit];
      bits = 1u << bit;
    } else if (all_ties && sums[bit] == largest) {
      bits |= 1u << bit;
    }
  }
  mask[at] = uint8(bits);
#endif
  // Activations rise, and every output of a map has the same bias: the maximum may come first.
  y[at] = activate<ACTIVATION>(bias ? largest + bias[filter] : largest);
}

// Grid: (channels · K² + 1, filters): a block a number, the last of each filter the gradient of its
// bias, which the operation returns even where the layer has none.
// At most 48 registers.
extern "C" __global__ void __launch_bounds__(256)
    conv2d_backward_weight(const real* __restrict__ dy, const real* __restrict__ x, MAPS, int images,
                           real* __restrict__ dweight, real* __restrict__ dbias) {
  __shared__ real sums[32];
  const int filter = blockIdx.y, number = blockIdx.x;
  const Numbers input = {x, channels * height * width, images};
  const real part = part_of_filter_gradient(dy, nullptr, input, ALL_MAPS, filter, number);
  const real sum = sum_of_block(part, sums);
  if (threadIdx.x > 0) return;
  if (number == channels * TAPS)
    dbias[filter] = sum;
  else
    dweight[filter * channels * TAPS + number] = sum;
}

// Grid: (images · channels, pixels / threads): a thread a pixel, which gathers from the outputs
// that it took part in. `below` holds the images as the stage before left them.
// At most 64 registers.
extern "C" __global__ void conv2d_backward_x(const real* __restrict__ dy,
                                             const uint8* __restrict__ mask,
                                             const real* __restrict__ weight,
                                             const real* __restrict__ below, MAPS, batch_t batch,
                                             real* __restrict__ dx) {
  const Maps maps = ALL_MAPS;
  const int image = blockIdx.x / channels, channel = blockIdx.x % channels;
  const int place = blockIdx.y * blockDim.x + threadIdx.x;
  if (image >= images_of(batch) || place >= height * width) return;
  const int row = place / width + padding, column = place % width + padding;
  const int down = maps.cells_down(), across = maps.cells_across();
  real sum = 0;
  for (int filter = 0; filter < filters; filter++) {
    const int64 map = (int64(image) * filters + filter) * down * across;
    const real* const taps = weight + (filter * channels + channel) * TAPS;
    for (int tap = 0; tap < TAPS; tap++) {
      const int r = row - tap / KERNEL_SIZE, c = column - tap % KERNEL_SIZE;
      if (r < 0 || r >= down * SIDE || c < 0 || c >= across * SIDE) continue;
      const int64 at = map + r / SIDE * across + c / SIDE;
      if (POOL && !(mask[at] >> (r % SIDE * 2 + c % SIDE) & 1)) continue;
      sum += taps[tap] * dy[at];
    }
  }
  const int64 at = int64(blockIdx.x) * height * width + place;
  dx[at] = sum * derivative<ACTIVATION>(below[at]);
}

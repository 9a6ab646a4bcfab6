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
// whose derivative it takes along.
#include "common.cuh"

#define TAPS (KERNEL_SIZE * KERNEL_SIZE)
#define SIDE (POOL ? 2 : 1)  // of the square of outputs that become one number

// The sizes of an image and of what becomes of it.
struct Maps {
  int channels, height, width, filters, padding;
};
#define MAPS int channels, int height, int width, int filters, int padding
#define ALL_MAPS \
  Maps { channels, height, width, filters, padding }

__device__ __forceinline__ int outputs_down(Maps m) {
  return m.height + 2 * m.padding - KERNEL_SIZE + 1;
}
__device__ __forceinline__ int outputs_across(Maps m) {
  return m.width + 2 * m.padding - KERNEL_SIZE + 1;
}
__device__ __forceinline__ int cells_down(Maps m) { return outputs_down(m) / SIDE; }
__device__ __forceinline__ int cells_across(Maps m) { return outputs_across(m) / SIDE; }

// Returns a pixel of a plane, 0 on its border.
__device__ __forceinline__ real pixel(const real* plane, Maps m, int row, int column) {
  if (row < 0 || row >= m.height || column < 0 || column >= m.width) return 0;
  return plane[row * m.width + column];
}

// Grid: (images · filters, cells / threads). Bit 2·i + j of `mask`, which is not touched unless POOL,
// is set where output (i, j) of a window receives the gradient: with `all_ties` every one that
// equals the maximum, else the first.
// At most 64 registers.
extern "C" __global__ void conv2d(const real* __restrict__ x, const real* __restrict__ weight,
                                  const real* __restrict__ bias, MAPS, count_t count,
                                  int all_ties, real* __restrict__ y, uint8* __restrict__ mask) {
  const Maps maps = ALL_MAPS;
  const int image = blockIdx.x / filters, filter = blockIdx.x % filters;
  const int cell = blockIdx.y * blockDim.x + threadIdx.x;
  const int cells = cells_down(maps) * cells_across(maps);
  if (image >= images_of(count) || cell >= cells) return;
  const int row = cell / cells_across(maps), column = cell % cells_across(maps);
  real sums[SIDE * SIDE];
#pragma unroll
  for (int bit = 0; bit < SIDE * SIDE; bit++) sums[bit] = 0;
  for (int channel = 0; channel < channels; channel++) {
    const real* const plane = x + (int64(image) * channels + channel) * height * width;
    const real* const taps = weight + (filter * channels + channel) * TAPS;
    // Line by line of the image: one line of a patch fits the registers, a whole patch does not.
#pragma unroll 1
    for (int i = 0; i < KERNEL_SIZE + SIDE - 1; i++) {
      real line[KERNEL_SIZE + SIDE - 1];
#pragma unroll
      for (int j = 0; j < KERNEL_SIZE + SIDE - 1; j++)
        line[j] = pixel(plane, maps, row * SIDE + i - padding, column * SIDE + j - padding);
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

// Grid: (channels · K² + 1 where there is a bias, filters): a block a number, the last of each
// filter the gradient of its bias. `dy` is the gradient of what the activation took.
// At most 48 registers.
extern "C" __global__ void __launch_bounds__(256)
    conv2d_backward_weight(const real* __restrict__ dy, const uint8* __restrict__ mask,
                           const real* __restrict__ x, MAPS, count_t count,
                           real* __restrict__ dweight, real* __restrict__ dbias) {
  __shared__ real sums[32];
  const Maps maps = ALL_MAPS;
  const int filter = blockIdx.y;
  const bool is_bias = int(blockIdx.x) == channels * TAPS;
  const int channel = is_bias ? 0 : blockIdx.x / TAPS, tap = blockIdx.x % TAPS;
  const int cells = cells_down(maps) * cells_across(maps);
  const int64 total = int64(images_of(count)) * cells;
  real sum = 0;
  for (int64 number = threadIdx.x; number < total; number += blockDim.x) {
    const int image = int(number / cells), cell = int(number % cells);
    const int64 at = (int64(image) * filters + filter) * cells + cell;
    const real* const plane = x + (int64(image) * channels + channel) * height * width;
    const int top = cell / cells_across(maps) * SIDE + tap / KERNEL_SIZE - padding;
    const int left = cell % cells_across(maps) * SIDE + tap % KERNEL_SIZE - padding;
#pragma unroll
    for (int bit = 0; bit < SIDE * SIDE; bit++) {
      if (POOL && !(mask[at] >> bit & 1)) continue;
      sum += dy[at] * (is_bias ? real(1) : pixel(plane, maps, top + bit / SIDE, left + bit % SIDE));
    }
  }
  sum = sum_of_block(sum, sums);
  if (threadIdx.x == 0) {
    if (is_bias)
      dbias[filter] = sum;
    else
      dweight[filter * channels * TAPS + blockIdx.x] = sum;
  }
}

// Grid: (images · channels, pixels / threads): a thread a pixel, which gathers from the outputs
// that it took part in. `below` holds the images as the stage before left them.
// At most 64 registers.
extern "C" __global__ void conv2d_backward_x(const real* __restrict__ dy,
                                             const uint8* __restrict__ mask,
                                             const real* __restrict__ weight,
                                             const real* __restrict__ below, MAPS, count_t count,
                                             real* __restrict__ dx) {
  const Maps maps = ALL_MAPS;
  const int image = blockIdx.x / channels, channel = blockIdx.x % channels;
  const int place = blockIdx.y * blockDim.x + threadIdx.x;
  if (image >= images_of(count) || place >= height * width) return;
  const int row = place / width + padding, column = place % width + padding;
  const int down = cells_down(maps), across = cells_across(maps);
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

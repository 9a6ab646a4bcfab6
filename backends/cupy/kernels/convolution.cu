// Convolution with square filters and a stride of 1, by itself or with what follows it in one pass:
// activation and the maximum of each 2×2 window.
//
// Layout: images (N, C, H, W), filters (O, C, K, K), feature maps (N, O, OH, OW), pooled maps
// (N, O, OH/2, OW/2). A thread has one output, or the four of a window, of some filters: so
// pixels that it reads serve them all, and all threads of a block read the same taps. Sums go tap by
// tap in one order: equal patches give equal outputs to the last bit, as ties of max-pooling need it.
// Cost per image: O·OH·OW·C·K² multiplications.
// Options: -DKERNEL_SIZE=1 to 32; -DFILTERS, of a thread, a divisor of O; -DPOOL=1 where outputs are pooled;
// -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH: of the outputs. -DPIXEL where the images are those of
// the data set.
#include "common.cuh"
#include "rows.cuh"
#include "input.cuh"
#include "maps.cuh"

#define SIDE (POOL ? 2 : 1)

// A line of some filters in registers.
typedef real Taps[FILTERS][KERNEL_SIZE];

// Adds to an output of each filter what a line of taps gives with a line of pixels.
__device__ __forceinline__ void add_line(real (&sums)[FILTERS][SIDE * SIDE], int output,
                                         const Taps& taps, const real* pixels) {
#pragma unroll
  for (int filter = 0; filter < FILTERS; filter++)
#pragma unroll
    for (int j = 0; j < KERNEL_SIZE; j++) sums[filter][output] += taps[filter][j] * pixels[j];
}

// Returns the largest of the outputs of a window, and sets a bit for each that receives the gradient.
__device__ __forceinline__ real pooled(const real (&outputs)[SIDE * SIDE], int all_ties,
                                       unsigned& bits) {
  real largest = outputs[0];
  bits = 1;
#pragma unroll
  for (int bit = 1; bit < SIDE * SIDE; bit++) {
    if (outputs[bit] > largest || outputs[bit] != outputs[bit]) {
      largest = outputs[bit];
      bits = 1u << bit;
    } else if (all_ties && outputs[bit] == largest) {
      bits |= 1u << bit;
    }
  }
  return largest;
}

// Grid: (images · cells / threads, filters / FILTERS). Bit 2·i + j of `mask`, which is not touched
// unless POOL, is set where output (i, j) of a window receives the gradient: with `all_ties` every one
// that equals the maximum, else the first.
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d(INPUT, const real* __restrict__ weight, const real* __restrict__ bias, MAPS, int all_ties,
           real* __restrict__ y, uint8* __restrict__ mask) {
  const Maps maps = ALL_MAPS;
  const Input input = INPUT_OF(channels * height * width);
  const int cells = maps.cells(), first_filter = blockIdx.y * FILTERS;
  const int64 place = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  const int image = int(place / cells), cell = int(place % cells);
  if (image >= input.count) return;
  const auto pixels = input.from(image)(0);
  const int top = cell / maps.cells_across() * SIDE - padding;
  const int left = cell % maps.cells_across() * SIDE - padding;
  real sums[FILTERS][SIDE * SIDE];
#pragma unroll
  for (int i = 0; i < FILTERS * SIDE * SIDE; i++) sums[i / (SIDE * SIDE)][i % (SIDE * SIDE)] = 0;
  for (int channel = 0; channel < channels; channel++) {
    Taps taps;
    // Line by line of the image. For the lower outputs of a window it meets the line of the filters
    // that is still at hand, for the upper ones the next.
#pragma unroll 1
    for (int i = 0; i < KERNEL_SIZE + SIDE - 1; i++) {
      real line[KERNEL_SIZE + SIDE - 1];
#pragma unroll
      for (int j = 0; j < KERNEL_SIZE + SIDE - 1; j++)
        line[j] = pixel(pixels, maps, channel, top + i, left + j);
      if (SIDE == 2 && i > 0) {
        add_line(sums, SIDE * SIDE - 2, taps, line);
        add_line(sums, SIDE * SIDE - 1, taps, line + SIDE - 1);
      }
      if (i == KERNEL_SIZE) break;
#pragma unroll
      for (int filter = 0; filter < FILTERS; filter++) {
        const int map = (first_filter + filter) * channels + channel;
        const real* const first = weight + (map * KERNEL_SIZE + i) * KERNEL_SIZE;
#pragma unroll
        for (int j = 0; j < KERNEL_SIZE; j++) taps[filter][j] = first[j];
      }
      add_line(sums, 0, taps, line);
      if (SIDE == 2) add_line(sums, SIDE - 1, taps, line + SIDE - 1);
    }
  }
#pragma unroll
  for (int i = 0; i < FILTERS; i++) {
    const int filter = first_filter + i;
    const int64 at = (int64(image) * filters + filter) * cells + cell;
    unsigned bits;
    const real largest = pooled(sums[i], all_ties, bits);
#if POOL
    mask[at] = uint8(bits);
#endif
    // Activations rise, and every output of a map has the same bias: the maximum may come first.
    y[at] = activate<ACTIVATION>(bias ? largest + bias[filter] : largest);
  }
}

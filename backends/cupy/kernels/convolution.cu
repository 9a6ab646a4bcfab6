// Convolution with square filters and stride 1, optionally fused with activation and 2×2
// max-pooling.
//
// Layout: images (N, C, H, W), filters (O, C, K, K), output (N, O, cell rows, cell columns). A
// thread computes one cell of FILTERS_PER_THREAD filters: the output at its position, or the four
// outputs of a pooling patch. The pixels that it reads serve all its filters, and all threads of a
// block read the same filter taps.
//
//   Filter row i serves the upper outputs of a patch with image row i, and the lower ones with
//   row i + 1. A thread reads each image row once and keeps one filter row in registers:
//
//     image row   0        1            2            ..   K
//     upper       tap 0    tap 1        tap 2
//     lower                tap 0        tap 1        ..   tap K - 1
//
// Every output sums its taps in the same order, so equal patches give bit-identical outputs, which
// max-pooling needs to find ties.
// Cost per image: O·OH·OW·C·K² multiply-adds.
// Options: -DKERNEL_SIZE=1 to 32; -DFILTERS_PER_THREAD, a divisor of O; -DPOOL=2 with pooling, else
// 1; -DPADDED=0 if shape.padding is 0, which saves the tests for pixels outside of the image, else 1;
// -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH of the outputs; -DGATHER and -DINPUT as in
// stage_input.cuh; -DTHREADS per block.
#include "common.cuh"
#include "conv_shape.cuh"
#include "stage_input.cuh"

constexpr int OUTPUTS = POOL * POOL;  // per filter and thread
// Image rows of a patch. With few filters, the loads of all of them are under way together, unless the
// tests for pixels outside of the image need the registers.
constexpr int IMAGE_ROWS = KERNEL_SIZE + POOL - 1;
constexpr int UNROLLED_ROWS = FILTERS_PER_THREAD * KERNEL_SIZE <= 10 && !PADDED ? IMAGE_ROWS : 1;

// One row of each filter of a thread.
typedef real FilterRows[FILTERS_PER_THREAD][KERNEL_SIZE];

// Adds the products of filter rows with a row of pixels to one output of each filter.
DEVICE void conv_row(real (&sums)[FILTERS_PER_THREAD][OUTPUTS], int output, const FilterRows& taps,
                     const real* pixels) {
#pragma unroll
  for (int filter = 0; filter < FILTERS_PER_THREAD; filter++)
#pragma unroll
    for (int j = 0; j < KERNEL_SIZE; j++) sums[filter][output] += taps[filter][j] * pixels[j];
}

// Adds one channel of the convolution to the outputs of a cell whose patch begins at (top, left).
template <class Image>
DEVICE void conv_channel(real (&sums)[FILTERS_PER_THREAD][OUTPUTS], const Image& image,
                         const real* weight, const ConvShape& shape, int first_filter, int channel,
                         int top, int left) {
  FilterRows taps;
#pragma unroll UNROLLED_ROWS
  for (int i = 0; i < IMAGE_ROWS; i++) {
    real pixels[KERNEL_SIZE + POOL - 1];
#pragma unroll
    for (int j = 0; j < KERNEL_SIZE + POOL - 1; j++)
      pixels[j] = PADDED ? padded_pixel(image, shape, channel, top + i, left + j)
                         : image[(channel * shape.height + top + i) * shape.width + left + j];
    if (POOL == 2 && i > 0) {  // the lower outputs; `taps` still holds the previous filter row
      conv_row(sums, OUTPUTS - 2, taps, pixels);
      conv_row(sums, OUTPUTS - 1, taps, pixels + POOL - 1);
    }
    if (i == KERNEL_SIZE) break;
#pragma unroll
    for (int filter = 0; filter < FILTERS_PER_THREAD; filter++) {
      const int map = (first_filter + filter) * shape.channels + channel;
      const real* const row = weight + (map * KERNEL_SIZE + i) * KERNEL_SIZE;
#pragma unroll
      for (int j = 0; j < KERNEL_SIZE; j++) taps[filter][j] = row[j];
    }
    conv_row(sums, 0, taps, pixels);
    if (POOL == 2) conv_row(sums, POOL - 1, taps, pixels + POOL - 1);
  }
}

// Sets y to the activation of the (pooled) convolution, and with pooling `mask` to its tie masks:
// bit 2·i + j stands for output (i, j) of the patch. `bias` may be null.
// Grid: (images · cells / THREADS, O / FILTERS_PER_THREAD, members), rounded up.
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    conv2d(const INPUT* __restrict__ x, StageInput input, const real* __restrict__ weight,
           const real* __restrict__ bias, const __grid_constant__ ConvShape conv, int all_ties,
           int64 member_stride, real* __restrict__ y, uint8* __restrict__ mask) {
  const ConvShape shape = specialize<KERNEL_SIZE, POOL>(conv);
  const StageRows rows = stage_rows(x, input, shape.pixels(), member_stride);
  const int cells = shape.cells(), first_filter = blockIdx.y * FILTERS_PER_THREAD;
  const Position position(cells);
  const int image = position.quotient, cell = position.remainder;
  if (image >= rows.count) return;
  weight = of_member(weight, member_stride);
  bias = of_member(bias, member_stride);
  y = of_member(y, member_stride);
  mask = of_member(mask, member_stride);
  const auto pixels = rows.from(image).row(0);
  const int top = cell / shape.cell_columns() * POOL - shape.padding;
  const int left = cell % shape.cell_columns() * POOL - shape.padding;
  real sums[FILTERS_PER_THREAD][OUTPUTS] = {};
  for (int channel = 0; channel < shape.channels; channel++)
    conv_channel(sums, pixels, weight, shape, first_filter, channel, top, left);
#pragma unroll
  for (int i = 0; i < FILTERS_PER_THREAD; i++) {
    const int filter = first_filter + i;
    const int64 at = (int64(image) * shape.filters + filter) * cells + cell;
    PatchMaximum<unsigned> maximum = {sums[i][0], 1};
#pragma unroll
    for (int output = 1; output < OUTPUTS; output++)
      maximum.add(sums[i][output], 1u << output, all_ties);
    if constexpr (POOL == 2) mask[at] = uint8(maximum.mask);
    // Activations are monotonic and all outputs of a filter have the same bias, so the maximum can
    // be taken first.
    y[at] = activate(ACTIVATION, bias ? maximum.value + bias[filter] : maximum.value);
  }
}

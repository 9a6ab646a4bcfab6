// The gradient of the loss with respect to the input of a convolution, for a block that has the
// filters and the gradient of an image in shared memory.
//
// The gradient is a *map* per filter with all outputs before pooling; it is 0 at those that do not
// receive a gradient. FILTER_LANES lanes compute a *strip*, STRIP pixels of a row, in
// CHANNELS_PER_THREAD channels. Each lane processes every FILTER_LANES-th filter. For each row of a
// filter, it reads STRIP + K - 1 elements of the map once, for all its pixels and channels:
//
//   map       m0  m1  m2  m3  m4  m5           STRIP = 4, K = 3
//   pixel 0   w2  w1  w0                       w: taps of the filter row
//   pixel 1       w2  w1  w0
//   pixel 2           w2  w1  w0
//   pixel 3               w2  w1  w0
//
// Then the lanes exchange their sums, and each lane stores some pixels. Memory is read in order and
// without conflicts: the maps and the filters of two lanes are an odd number of elements apart.
//
// Options: -DCHANNELS, -DHEIGHT and -DWIDTH of the input; -DFILTERS, -DKERNEL_SIZE, -DPADDING,
// -DPOOL=2 or 1; -DSTRIP; -DCHANNELS_PER_THREAD, a divisor of CHANNELS; -DFILTER_LANES, a power of
// two up to WARP_SIZE; -DTHREADS per block.
#pragma once

#include "conv_shape.cuh"

constexpr int TAPS = KERNEL_SIZE * KERNEL_SIZE;
constexpr int CELL_ROWS = (HEIGHT + 2 * PADDING - KERNEL_SIZE + 1) / POOL;
constexpr int CELL_COLUMNS = (WIDTH + 2 * PADDING - KERNEL_SIZE + 1) / POOL;
constexpr int CELLS = CELL_ROWS * CELL_COLUMNS;
constexpr int MAP_ROWS = CELL_ROWS * POOL, MAP_COLUMNS = CELL_COLUMNS * POOL;
constexpr int STRIPS = (WIDTH + STRIP - 1) / STRIP;  // per row
constexpr int GROUPS = CHANNELS / CHANNELS_PER_THREAD;
// Elements from one filter, and from one map, to the next.
constexpr int FILTER_STRIDE = CHANNELS * TAPS | 1, MAP_STRIDE = MAP_ROWS * MAP_COLUMNS | 1;
constexpr int STRIP_SUMS = STRIP * CHANNELS_PER_THREAD;
constexpr int SUMS_PER_LANE = (STRIP_SUMS + FILTER_LANES - 1) / FILTER_LANES;

// Copies the filters to shared memory.
DEVICE void copy_filters(const real* source, real* filters) {
  constexpr int size = CHANNELS * TAPS;
#pragma unroll  // without a loop, all loads are under way together
  for (int begin = 0; begin < FILTERS * size; begin += THREADS) {
    const int i = begin + threadIdx.x;
    if (i < FILTERS * size) filters[i / size * FILTER_STRIDE + i % size] = source[i];
  }
}

// Sets the elements of the maps that belong to cell number `cell` of all filters.
DEVICE void set_map_of_cell(int cell, real gradient, unsigned mask, real* maps) {
  const int row = cell % CELLS / CELL_COLUMNS * POOL, column = cell % CELL_COLUMNS * POOL;
  real* const first = maps + cell / CELLS * MAP_STRIDE + row * MAP_COLUMNS + column;
#pragma unroll
  for (int output = 0; output < POOL * POOL; output++)
    first[output / POOL * MAP_COLUMNS + output % POOL] = mask >> output & 1 ? gradient : real(0);
}

// Adds the part of one filter to the gradient of the strip whose first pixel is (row, column).
// `filter` points to its first tap in the first channel of the lane.
DEVICE void add_filter(real* sums, const real* map, const real* filter, int row, int column) {
  const int bottom = row + PADDING, left = column + PADDING - (KERNEL_SIZE - 1);
  const int last = min(KERNEL_SIZE - 1, bottom);
#pragma unroll 1
  for (int i = max(0, bottom - (MAP_ROWS - 1)); i <= last; i++) {  // rows of the filter
    const real* const line = map + (bottom - i) * MAP_COLUMNS;
    real gradients[STRIP + KERNEL_SIZE - 1];
#pragma unroll
    for (int j = 0; j < STRIP + KERNEL_SIZE - 1; j++)
      gradients[j] = unsigned(left + j) < unsigned(MAP_COLUMNS) ? line[left + j] : real(0);
#pragma unroll
    for (int channel = 0; channel < CHANNELS_PER_THREAD; channel++)
#pragma unroll
      for (int j = 0; j < KERNEL_SIZE; j++) {
        const real tap = filter[channel * TAPS + i * KERNEL_SIZE + j];
#pragma unroll
        for (int pixel = 0; pixel < STRIP; pixel++)
          sums[channel * STRIP + pixel] += gradients[pixel + KERNEL_SIZE - 1 - j] * tap;
      }
  }
}

// Sets the rows `part`, `part` + `parts`, .. of dx to the gradient times the derivative of
// `activation`, whose output is x. Both belong to one image (C, H, W).
DEVICE void conv_input_strips(const real* maps, const real* filters, int part, int parts,
                              Activation activation, const real* x, real* dx) {
  const int lane = threadIdx.x % FILTER_LANES, rows = (HEIGHT - part + parts - 1) / parts;
  const int items = rows * STRIPS * GROUPS;
  // All lanes of a warp execute every iteration, because they exchange sums.
  for (int begin = 0; begin < items; begin += THREADS / FILTER_LANES) {
    const int item = begin + int(threadIdx.x) / FILTER_LANES, place = min(item, items - 1);
    const int column = place % STRIPS * STRIP, row = place / STRIPS % rows * parts + part;
    const int first_channel = place / STRIPS / rows * CHANNELS_PER_THREAD;
    real sums[SUMS_PER_LANE * FILTER_LANES] = {};  // (channels, pixels), and padding
    for (int filter = lane; filter < FILTERS; filter += FILTER_LANES)
      add_filter(sums, maps + filter * MAP_STRIDE,
                 filters + filter * FILTER_STRIDE + first_channel * TAPS, row, column);
    group_reduce_scatter<SUMS_PER_LANE * FILTER_LANES, FILTER_LANES / 2>(sums);
#pragma unroll
    for (int i = 0; i < SUMS_PER_LANE; i++) {
      const int number = lane * SUMS_PER_LANE + i, pixel = column + number % STRIP;
      if (item >= items || number >= STRIP_SUMS || pixel >= WIDTH) continue;
      const int at = ((first_channel + number / STRIP) * HEIGHT + row) * WIDTH + pixel;
      dx[at] = sums[i] * derivative(activation, x[at]);
    }
  }
}

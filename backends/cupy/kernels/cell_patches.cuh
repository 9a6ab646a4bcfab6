// Images in shared memory, and the products of the cells of a convolution with one channel, without
// padding and with 2×2 max-pooling.
//
// A cell is an output position of the pooling. Its four outputs depend on a patch of pixels that
// begins at an even row and column:
//
//   output 0    output 1         patch
//   output 2    output 3         KERNEL_SIZE + 1 rows and columns
//
// Options: -DKERNEL_SIZE, -DHEIGHT and -DWIDTH.
#pragma once

#include "common.cuh"

constexpr int TAPS = KERNEL_SIZE * KERNEL_SIZE;
constexpr int PIXELS = HEIGHT * WIDTH;
constexpr int CELL_ROWS = (HEIGHT - KERNEL_SIZE + 1) / 2,
              CELL_COLUMNS = (WIDTH - KERNEL_SIZE + 1) / 2;
constexpr int CELLS = CELL_ROWS * CELL_COLUMNS;
constexpr int PATCH_SIDE = KERNEL_SIZE + 1;
constexpr int OUTPUTS = 4;  // of a cell

// Image rows in shared memory. Cells begin at even rows and columns, so threads read two pixels at
// a time. The cells of a pair of rows and those of the next pair are in different banks, because the
// distance of the pairs is 2·CELL_COLUMNS plus a multiple of the number of banks.
constexpr int BANKS = 32, ROW_STRIDE = WIDTH + WIDTH % 2;
constexpr int PAIR_PADDING = (2 * CELL_COLUMNS + (BANKS - 2) * ROW_STRIDE) % BANKS;
constexpr int PAIR_STRIDE = 2 * ROW_STRIDE + PAIR_PADDING;  // of two rows
constexpr int IMAGE_SIZE = (HEIGHT + 1) / 2 * PAIR_STRIDE;

// Two pixels that are read by one instruction.
struct alignas(2 * sizeof(real)) PixelPair {
  real left, right;
};

// Returns the index of a pixel in an image in shared memory.
DEVICE int pixel_index(int row, int column) {
  return row / 2 * PAIR_STRIDE + row % 2 * ROW_STRIDE + column;
}

// Returns the first pixel that a cell depends on; without such a cell, that of the last one.
DEVICE const real* patch_of(const real* image, int cell) {
  cell = min(cell, CELLS - 1);
  return image + pixel_index(cell / CELL_COLUMNS * 2, cell % CELL_COLUMNS * 2);
}

// Calls function(output, tap, pixel) for each product of the four outputs of a cell. Each pixel is
// read once. All outputs have their taps in the same order, so equal patches give bit-identical
// outputs, which max-pooling needs to find ties.
template <class Function>
DEVICE void for_each_product(const real* patch, Function function) {
#pragma unroll
  for (int row = 0; row < PATCH_SIDE; row++) {
    const real* const first = patch + pixel_index(row, 0);
    real pixels[PATCH_SIDE];
#pragma unroll
    for (int column = 0; column < PATCH_SIDE; column += 2) {
      if (column + 1 == PATCH_SIDE) {
        pixels[column] = first[column];
      } else {
        const PixelPair pair = *reinterpret_cast<const PixelPair*>(first + column);
        pixels[column] = pair.left;
        pixels[column + 1] = pair.right;
      }
    }
#pragma unroll
    for (int output = 0; output < OUTPUTS; output++) {
      const int tap_row = row - output / 2;
      if (tap_row < 0 || tap_row >= KERNEL_SIZE) continue;
#pragma unroll
      for (int i = 0; i < KERNEL_SIZE; i++)
        function(output, tap_row * KERNEL_SIZE + i, pixels[output % 2 + i]);
    }
  }
}

// The gradient of the loss with respect to the input of a convolution.
//
// Four lanes compute the gradient of a *pixel tile*, 2×2 pixels, in CHANNELS_PER_THREAD channels.
// Each lane processes every fourth filter. It sums over the cells whose patches contain pixels of
// the tile. It reads the gradient of such a cell once, for all pixels and channels. Then the lanes
// exchange their sums, and each lane stores the gradient of one pixel.
//
//   lane 0: filters 0, 4, ..  \                                    lane 0: pixel (0, 0)
//   lane 1: filters 1, 5, ..   |  two reduce_scatter_step()s  ->   lane 1: pixel (0, 1)
//   lane 2: filters 2, 6, ..   |                                   lane 2: pixel (1, 0)
//   lane 3: filters 3, 7, ..  /                                    lane 3: pixel (1, 1)
//
// Options: -DCHANNELS_PER_THREAD, a divisor of the number of input channels; -DPIXEL_TILE=2.
#pragma once

#include "conv_shape.cuh"

static_assert(PIXEL_TILE == 2, "a pixel tile is 2×2 pixels");
constexpr int TILE_LANES = PIXEL_TILE * PIXEL_TILE;  // pixels of a tile; one lane stores each

// Returns the number of pixel tiles that cover one channel of an image.
DEVICE int pixel_tiles(const ConvShape& shape) {
  return (shape.height + 1) / 2 * ((shape.width + 1) / 2);
}

// Computes the gradient of pixel tile `tile` in the CHANNELS_PER_THREAD channels that start at
// `first_channel`, and sets dx to this gradient times the derivative of `activation`, whose output
// is x. All arrays except `weight` belong to one image. All lanes of a warp must call this.
// `is_idle` is true in lanes without a tile.
DEVICE void conv_input_gradient(const real* dy, const uint8* mask, const real* weight,
                                const real* x, const ConvShape& shape, Activation activation,
                                int first_channel, int tile, bool is_idle, real* dx) {
  const int size = shape.kernel_size, taps = shape.taps();
  const int tile_columns = (shape.width + 1) / 2, lane = threadIdx.x % TILE_LANES;
  const int first_row = tile / tile_columns * 2, first_column = tile % tile_columns * 2;
  const int row = first_row + shape.padding, column = first_column + shape.padding;
  const int cell_columns = shape.cell_columns(), cells = shape.cells();
  // The first and last rows and columns of cells whose patches contain pixels of the tile.
  const int top = shape.cell_of(max(0, row - size + 1));
  const int bottom = is_idle ? -1 : min(shape.cell_rows() - 1, shape.cell_of(row + 1));
  const int left = shape.cell_of(max(0, column - size + 1));
  const int right = min(cell_columns - 1, shape.cell_of(column + 1));
  real sums[TILE_LANES * CHANNELS_PER_THREAD];  // (pixels, channels)
#pragma unroll
  for (int i = 0; i < TILE_LANES * CHANNELS_PER_THREAD; i++) sums[i] = 0;
  for (int filter = lane; filter < shape.filters; filter += TILE_LANES) {
    const real* const filter_taps = weight + (filter * shape.channels + first_channel) * taps;
    for (int i = top; i <= bottom; i++)
      for (int j = left; j <= right; j++) {
        const int cell = filter * cells + i * cell_columns + j;
        const real gradient = dy[cell];
        TieIterator output(mask, cell, shape.pool);
        do {
          // Row and column of the tap that multiplies the first pixel of the tile. This tap may
          // lie outside of the filter.
          const int r = row - i * shape.pool - output.row();
          const int c = column - j * shape.pool - output.column();
          const real* const first_tap = filter_taps + (r * size + c);
#pragma unroll
          for (int pixel = 0; pixel < TILE_LANES; pixel++) {
            const int down = pixel / 2, across = pixel % 2;
            if (r + down < 0 || r + down >= size || c + across < 0 || c + across >= size) continue;
#pragma unroll
            for (int k = 0; k < CHANNELS_PER_THREAD; k++)
              sums[pixel * CHANNELS_PER_THREAD + k] +=
                  first_tap[down * size + across + k * taps] * gradient;
          }
        } while (output.next());
      }
  }
  reduce_scatter_step<TILE_LANES * CHANNELS_PER_THREAD>(sums, 2);
  reduce_scatter_step<TILE_LANES * CHANNELS_PER_THREAD / 2>(sums, 1);
  const int pixel_row = first_row + lane / 2, pixel_column = first_column + lane % 2;
  if (is_idle || pixel_row >= shape.height || pixel_column >= shape.width) return;
#pragma unroll
  for (int k = 0; k < CHANNELS_PER_THREAD; k++) {
    const int at = ((first_channel + k) * shape.height + pixel_row) * shape.width + pixel_column;
    dx[at] = sums[k] * derivative(activation, x[at]);
  }
}

// The gradient of the filters of a convolution.
//
// A block computes the gradient of one *filter tile*: up to FILTER_TILE×FILTER_TILE taps of up to
// FILTERS_PER_TILE filters in one channel. Its threads take the cells of the feature maps in turn
// and add, for each tap, the gradient of the cell times the pixel under the tap. The position of a
// cell in the image is computed once for all taps and filters.
//
// A tile of up to 3×3 taps has several filters. Then a thread reads each pixel of a patch once, for
// all outputs of the cell and all filters; outputs that receive no gradient count as 0. A larger
// tile has one filter. Then a thread reads only the pixels of the outputs that receive the
// gradient: one output per cell, without ties.
//
// Options: -DFILTER_TILE=1 to 5; -DFILTERS_PER_TILE, 1 if FILTER_TILE is above 3.
#pragma once

#include "conv_shape.cuh"
#include "rows.cuh"

constexpr int FILTER_SUMS = FILTER_TILE * FILTER_TILE + 1;  // per filter; the last is for the bias
constexpr int FILTER_TILE_SUMS = FILTERS_PER_TILE * FILTER_SUMS;
static_assert(FILTER_TILE_SUMS <= WARP_SIZE,
              "warp_reduce_scatter() leaves at most one sum per lane");

// A rectangle of taps of some filters in one channel.
struct FilterTile {
  int filter, channel, row, column;  // position of the first tap
  int filters, rows, columns;        // filters, and taps down and across

  DEVICE FilterTile(const ConvShape& shape, int number) {
    const int tiles = (shape.kernel_size + FILTER_TILE - 1) / FILTER_TILE;  // along a side
    column = number % tiles * FILTER_TILE;
    row = number / tiles % tiles * FILTER_TILE;
    channel = number / (tiles * tiles) % shape.channels;
    filter = number / (tiles * tiles) / shape.channels * FILTERS_PER_TILE;
    filters = min(FILTERS_PER_TILE, shape.filters - filter);
    rows = min(FILTER_TILE, shape.kernel_size - row);
    columns = min(FILTER_TILE, shape.kernel_size - column);
  }

  // Returns the index in the filters of sum `number` of this tile; -1 if it is not a tap.
  DEVICE int weight_index(const ConvShape& shape, int number) const {
    const int other = number / FILTER_SUMS, tap = number % FILTER_SUMS;
    const int i = tap / FILTER_TILE, j = tap % FILTER_TILE;
    if (other >= filters || i >= rows || j >= columns) return -1;
    const int size = shape.kernel_size;
    return (((filter + other) * shape.channels + channel) * size + row + i) * size + column + j;
  }
  // Returns the index in the biases of sum `number`; -1 if it is not a bias. Only one tile of each
  // filter has its bias.
  DEVICE int bias_index(int number) const {
    const int other = number / FILTER_SUMS;
    const bool is_bias = number % FILTER_SUMS == FILTER_SUMS - 1 && channel + row + column == 0;
    return is_bias && other < filters ? filter + other : -1;
  }
};

// A cell of a feature map. A thread advances by blockDim.x cells at a time; the stride is split
// into images, rows and columns, so that advancing takes no division.
struct Cell {
  int image, row, column;

  DEVICE Cell(int number, int rows, int columns) {
    image = number / (rows * columns);
    row = number / columns % rows;
    column = number % columns;
  }

  DEVICE void advance(const Cell& stride, int rows, int columns) {
    image += stride.image;
    row += stride.row;
    column += stride.column;
    if (column >= columns) {
      column -= columns;
      row++;
    }
    if (row >= rows) {
      row -= rows;
      image++;
    }
  }
};

// Which of SIDE rows and columns of pixels lie inside the image, one bit each: those under a filter
// tile and `more` that follow. (top, left) is the pixel under the first tap.
template <int SIDE>
struct InsideMask {
  unsigned rows, columns;

  DEVICE InsideMask(const ConvShape& shape, const FilterTile& tile, int top, int left, int more)
      : rows(bits(-top, min(tile.rows + more, shape.height - top))),
        columns(bits(-left, min(tile.columns + more, shape.width - left))) {}
  DEVICE bool is_full() const { return (rows & columns) == (1u << SIDE) - 1; }
  DEVICE bool contains(int row, int column) const { return rows >> row & columns >> column & 1; }

 private:
  // Returns a number whose bits begin .. end - 1 are set.
  DEVICE static unsigned bits(int begin, int end) {
    return (1u << max(0, end)) - 1 & ~0u << min(SIDE, max(0, begin));
  }
};

// Adds the products of a patch with the gradients of the outputs of a cell to the sums. `corner`
// points to the first pixel of the patch. Most patches are completely inside the image, and then no
// pixel is tested.
template <bool is_full, int pool, class Row>
DEVICE void conv_wgrad_patch(real* sums, const real (&gradients)[FILTERS_PER_TILE][pool * pool],
                             const Row& corner, int width,
                             const InsideMask<FILTER_TILE + pool - 1>& inside) {
  constexpr int SIDE = FILTER_TILE + pool - 1;
#pragma unroll
  for (int i = 0; i < SIDE; i++) {
    const auto row = corner + i * width;
    real pixels[SIDE];
#pragma unroll
    for (int j = 0; j < SIDE; j++)
      pixels[j] = is_full || inside.contains(i, j) ? row[j] : real(0);
#pragma unroll
    for (int output = 0; output < pool * pool; output++) {
      const int tap_row = i - output / pool;
      if (tap_row < 0 || tap_row >= FILTER_TILE) continue;
#pragma unroll
      for (int filter = 0; filter < FILTERS_PER_TILE; filter++)
#pragma unroll
        for (int j = 0; j < FILTER_TILE; j++)
          sums[filter * FILTER_SUMS + tap_row * FILTER_TILE + j] +=
              gradients[filter][output] * pixels[output % pool + j];
    }
  }
}

// Adds the products of a cell to the sums of all filters of a tile. `at` is the index of the cell
// in the map of the first filter.
template <int pool, class Row>
DEVICE void conv_wgrad_filters(real* sums, const real* dy, const uint8* mask, int64 at,
                               const Row& channel, const ConvShape& shape, const FilterTile& tile,
                               const Cell& cell) {
  real gradients[FILTERS_PER_TILE][pool * pool];
#pragma unroll
  for (int filter = 0; filter < FILTERS_PER_TILE; filter++) {
    const int64 place = at + min(filter, tile.filters - 1) * shape.cells();  // repeats the last one
    const real gradient = dy[place];
    const unsigned ties = pool == 2 ? mask[place] : 1;
#pragma unroll
    for (int output = 0; output < pool * pool; output++) {
      gradients[filter][output] = ties >> output & 1 ? gradient : real(0);
      sums[filter * FILTER_SUMS + FILTER_SUMS - 1] += gradients[filter][output];
    }
  }
  const int top = cell.row * pool + tile.row - shape.padding;
  const int left = cell.column * pool + tile.column - shape.padding;
  const auto corner = channel + (top * shape.width + left);
  const InsideMask<FILTER_TILE + pool - 1> inside(shape, tile, top, left, pool - 1);
  if (inside.is_full())
    conv_wgrad_patch<true, pool>(sums, gradients, corner, shape.width, inside);
  else
    conv_wgrad_patch<false, pool>(sums, gradients, corner, shape.width, inside);
}

// Adds `gradient` times the pixel under each tap to the sums; `corner` points to the pixel under
// the first tap.
template <bool is_full, class Row>
DEVICE void conv_wgrad_output(real* sums, real gradient, const Row& corner, int width,
                              const InsideMask<FILTER_TILE>& inside) {
#pragma unroll
  for (int i = 0; i < FILTER_TILE; i++) {
    const auto pixels = corner + i * width;
#pragma unroll
    for (int j = 0; j < FILTER_TILE; j++)
      if (is_full || inside.contains(i, j)) sums[i * FILTER_TILE + j] += gradient * pixels[j];
  }
}

// Adds the products of a cell to the sums of the only filter of a tile.
template <class Row>
DEVICE void conv_wgrad_ties(real* sums, const real* dy, const uint8* mask, int64 at,
                            const Row& channel, const ConvShape& shape, const FilterTile& tile,
                            const Cell& cell) {
  const real gradient = dy[at];
  TieIterator output(mask, at, shape.pool);
  do {
    sums[FILTER_SUMS - 1] += gradient;
    const int top = cell.row * shape.pool + output.row() + tile.row - shape.padding;
    const int left = cell.column * shape.pool + output.column() + tile.column - shape.padding;
    const auto corner = channel + (top * shape.width + left);
    const InsideMask<FILTER_TILE> inside(shape, tile, top, left, 0);
    if (inside.is_full())
      conv_wgrad_output<true>(sums, gradient, corner, shape.width, inside);
    else
      conv_wgrad_output<false>(sums, gradient, corner, shape.width, inside);
  } while (output.next());
}

// Computes the gradient of a filter tile and of its filters' biases for the images of x. `dy` is
// the gradient of the pre-activation. The partial sums of each warp are in `warp_sums` afterwards:
// shared memory for FILTER_TILE_SUMS elements per warp.
template <class Images>
DEVICE void conv_wgrad(const real* dy, const uint8* mask, const Images& x, const ConvShape& shape,
                       const FilterTile& tile, real* warp_sums) {
  const int rows = shape.cell_rows(), columns = shape.cell_columns();
  const int outputs = shape.filters * shape.cells();  // per image
  const int map = tile.filter * shape.cells();
  const int first_pixel = tile.channel * shape.height * shape.width;
  const Cell stride(blockDim.x, rows, columns);
  real sums[WARP_SIZE] = {};
#pragma unroll 1
  for (Cell cell(threadIdx.x, rows, columns); cell.image < x.count;
       cell.advance(stride, rows, columns)) {
    const int64 at = int64(cell.image) * outputs + (map + cell.row * columns + cell.column);
    const auto channel = x.from(cell.image).row(0) + first_pixel;
    if constexpr (FILTERS_PER_TILE == 1)
      conv_wgrad_ties(sums, dy, mask, at, channel, shape, tile, cell);
    else if (shape.pool == 2)
      conv_wgrad_filters<2>(sums, dy, mask, at, channel, shape, tile, cell);
    else
      conv_wgrad_filters<1>(sums, dy, mask, at, channel, shape, tile, cell);
  }
  const real sum = warp_reduce_scatter<WARP_SIZE>(sums);
  const int lane = threadIdx.x % WARP_SIZE;
  if (lane < FILTER_TILE_SUMS) warp_sums[threadIdx.x / WARP_SIZE * FILTER_TILE_SUMS + lane] = sum;
  __syncthreads();
}

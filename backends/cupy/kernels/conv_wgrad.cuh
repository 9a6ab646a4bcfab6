// The gradient of the filters of a convolution.
//
// A block computes the gradient of one *filter tile*: up to FILTER_TILE×FILTER_TILE taps of one
// filter in one channel, which is the whole filter for most networks. Its threads take the cells of
// the feature map in turn and add, for each tap, the gradient of the cell times the pixel under the
// tap. The position of a cell in the image is computed once for all taps.
//
// Options: -DFILTER_TILE=1 to 5.
#pragma once

#include "conv_shape.cuh"
#include "rows.cuh"

constexpr int FILTER_TILE_SUMS = FILTER_TILE * FILTER_TILE + 1;  // the last sum is for the bias
static_assert(FILTER_TILE_SUMS <= WARP_SIZE,
              "warp_reduce_scatter() leaves at most one sum per lane");

// A rectangle of taps of one filter in one channel.
struct FilterTile {
  int filter, channel, row, column;  // position of the first tap
  int rows, columns;                 // taps down and across

  DEVICE FilterTile(const ConvShape& shape, int number) {
    const int tiles = (shape.kernel_size + FILTER_TILE - 1) / FILTER_TILE;  // along a side
    column = number % tiles * FILTER_TILE;
    row = number / tiles % tiles * FILTER_TILE;
    channel = number / (tiles * tiles) % shape.channels;
    filter = number / (tiles * tiles) / shape.channels;
    rows = min(FILTER_TILE, shape.kernel_size - row);
    columns = min(FILTER_TILE, shape.kernel_size - column);
  }

  // Returns the index in the filters of sum `number` of this tile; -1 if it is not a tap.
  DEVICE int weight_index(const ConvShape& shape, int number) const {
    const int i = number / FILTER_TILE, j = number % FILTER_TILE;
    if (i >= rows || j >= columns) return -1;
    const int size = shape.kernel_size;
    return ((filter * shape.channels + channel) * size + row + i) * size + column + j;
  }
  // Returns the index in the biases of sum `number`; -1 if it is not a bias. Only one tile of each
  // filter has its bias.
  DEVICE int bias_index(int number) const {
    return number == FILTER_TILE_SUMS - 1 && channel + row + column == 0 ? filter : -1;
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

// Which rows and columns of a filter tile lie inside the image, one bit each; (top, left) is the
// pixel under the first tap.
struct InsideMask {
  unsigned rows, columns;

  DEVICE InsideMask(const ConvShape& shape, const FilterTile& tile, int top, int left)
      : rows(bits(-top, min(tile.rows, shape.height - top))),
        columns(bits(-left, min(tile.columns, shape.width - left))) {}
  DEVICE bool is_full() const { return (rows & columns) == (1u << FILTER_TILE) - 1; }
  DEVICE bool contains(int row, int column) const { return rows >> row & columns >> column & 1; }

 private:
  // Returns a number whose bits begin .. end - 1 are set.
  DEVICE static unsigned bits(int begin, int end) {
    return (1u << max(0, end)) - 1 & ~0u << min(FILTER_TILE, max(0, begin));
  }
};

// Adds `gradient` times the pixel under each tap to the sums; `corner` points to the pixel under
// the first tap. Most tiles are completely inside the image, and then no tap is tested.
template <bool is_full, class Row>
DEVICE void conv_wgrad_cell(real* sums, real gradient, const Row& corner, int width,
                            const InsideMask& inside) {
#pragma unroll
  for (int i = 0; i < FILTER_TILE; i++) {
    const auto pixels = corner + i * width;
#pragma unroll
    for (int j = 0; j < FILTER_TILE; j++)
      if (is_full || inside.contains(i, j)) sums[i * FILTER_TILE + j] += gradient * pixels[j];
  }
}

// Computes the gradient of a filter tile and of its filter's bias for the images of x. `dy` is the
// gradient of the pre-activation. The partial sums of each warp are in `warp_sums` afterwards:
// shared memory for FILTER_TILE_SUMS elements per warp.
template <class Images>
DEVICE void conv_wgrad(const real* dy, const uint8* mask, const Images& x, const ConvShape& shape,
                       const FilterTile& tile, real* warp_sums) {
  const int rows = shape.cell_rows(), columns = shape.cell_columns();
  const int outputs = shape.filters * shape.cells();  // per image
  const int map = tile.filter * shape.cells(), channel = tile.channel * shape.height;
  const Cell stride(blockDim.x, rows, columns);
  real sums[WARP_SIZE] = {};
#pragma unroll 1
  for (Cell cell(threadIdx.x, rows, columns); cell.image < x.count;
       cell.advance(stride, rows, columns)) {
    const int64 at = int64(cell.image) * outputs + (map + cell.row * columns + cell.column);
    const real gradient = dy[at];
    const auto image = x.from(cell.image).row(0);
    TieIterator output(mask, at, shape.pool);
    do {
      sums[FILTER_TILE_SUMS - 1] += gradient;
      const int top = cell.row * shape.pool + output.row() + tile.row - shape.padding;
      const int left = cell.column * shape.pool + output.column() + tile.column - shape.padding;
      const auto corner = image + ((channel + top) * shape.width + left);
      const InsideMask inside(shape, tile, top, left);
      if (inside.is_full())
        conv_wgrad_cell<true>(sums, gradient, corner, shape.width, inside);
      else
        conv_wgrad_cell<false>(sums, gradient, corner, shape.width, inside);
    } while (output.next());
  }
  const real sum = warp_reduce_scatter<WARP_SIZE>(sums);
  const int lane = threadIdx.x % WARP_SIZE;
  if (lane < FILTER_TILE_SUMS) warp_sums[threadIdx.x / WARP_SIZE * FILTER_TILE_SUMS + lane] = sum;
  __syncthreads();
}

// Max- and average-pooling with square patches, and their gradients.
//
// Layout: images (N, C, H, W), treated as N·C planes. One thread per output: per cell forward, per
// pixel backward. Backward, a pixel sums the gradients of the cells whose patches contain it, so no
// atomics are needed.
// Cost per image: forward size² reads per cell; backward up to ceil(size / stride)² reads per
// pixel.
// Options: -DMASK=uint8 (size² <= 8) or int64, the type of tie masks. Bit i·size + j of a mask is
// set if element (i, j) of the cell's patch receives its gradient.
#include "common.cuh"

struct PoolShape {
  int height, width;  // of an image
  int cell_rows, cell_columns;
  int size;    // side of a patch
  int stride;  // distance between patches
};

// Returns the position in the images of the first pixel of a cell's patch.
__device__ __forceinline__ int64 patch_begin(const PoolShape& shape, int64 cell) {
  const int column = int(cell % shape.cell_columns);
  const int row = int(cell / shape.cell_columns % shape.cell_rows);
  const int64 plane = cell / shape.cell_columns / shape.cell_rows;
  return (plane * shape.height + row * shape.stride) * shape.width + column * shape.stride;
}

// The cells along one axis whose patches contain a pixel, both ends included.
struct CellRange {
  int first, last;
};

__device__ __forceinline__ CellRange cells_over(int pixel, int cells, int size, int stride) {
  const int first = pixel < size ? 0 : (pixel - size) / stride + 1;
  return {first, min(pixel / stride, cells - 1)};
}

// Sets y to the maximum of each patch, and its tie mask: with `all_ties` every element that equals
// the maximum, else the first. `cells` is their number in the whole batch.
// At most 56 registers.
extern "C" __global__ void max_pool2d(const real* __restrict__ x, int64 cells, PoolShape shape,
                                      int all_ties, real* __restrict__ y, MASK* __restrict__ mask) {
  const int64 cell = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const real* const patch = x + patch_begin(shape, cell);
  real largest = patch[0];
  MASK bits = 1;
  for (int i = 0; i < shape.size; i++) {
    for (int j = 0; j < shape.size; j++) {
      const real pixel = patch[i * shape.width + j];
      const MASK bit = MASK(1) << (i * shape.size + j);
      if (pixel > largest || pixel != pixel) {  // a NaN becomes the maximum, as in NumPy
        largest = pixel;
        bits = bit;
      } else if (all_ties && pixel == largest) {
        bits |= bit;
      }
    }
  }
  y[cell] = largest;
  mask[cell] = bits;
}

// `pixels` is the number of elements of dx.
// At most 48 registers.
extern "C" __global__ void max_pool2d_backward(const real* __restrict__ dy,
                                               const MASK* __restrict__ mask, int64 pixels,
                                               PoolShape shape, real* __restrict__ dx) {
  const int64 pixel = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const int column = int(pixel % shape.width), row = int(pixel / shape.width % shape.height);
  const int64 plane = pixel / shape.width / shape.height;
  const CellRange rows = cells_over(row, shape.cell_rows, shape.size, shape.stride);
  const CellRange columns = cells_over(column, shape.cell_columns, shape.size, shape.stride);
  real sum = 0;
  for (int r = rows.first; r <= rows.last; r++) {
    for (int c = columns.first; c <= columns.last; c++) {
      const int64 cell = (plane * shape.cell_rows + r) * shape.cell_columns + c;
      const int bit = (row - r * shape.stride) * shape.size + column - c * shape.stride;
      if (mask[cell] >> bit & 1) sum += dy[cell];
    }
  }
  dx[pixel] = sum;
}

// Sets y to the mean of each patch.
// At most 56 registers.
extern "C" __global__ void avg_pool2d(const real* __restrict__ x, int64 cells, PoolShape shape,
                                      real* __restrict__ y) {
  const int64 cell = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const real* const patch = x + patch_begin(shape, cell);
  real sum = 0;
  for (int i = 0; i < shape.size; i++)
    for (int j = 0; j < shape.size; j++) sum += patch[i * shape.width + j];
  y[cell] = sum / real(shape.size * shape.size);
}

// At most 56 registers.
extern "C" __global__ void avg_pool2d_backward(const real* __restrict__ dy, int64 pixels,
                                               PoolShape shape, real* __restrict__ dx) {
  const int64 pixel = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const int column = int(pixel % shape.width), row = int(pixel / shape.width % shape.height);
  const int64 plane = pixel / shape.width / shape.height;
  const CellRange rows = cells_over(row, shape.cell_rows, shape.size, shape.stride);
  const CellRange columns = cells_over(column, shape.cell_columns, shape.size, shape.stride);
  real sum = 0;
  for (int r = rows.first; r <= rows.last; r++)
    for (int c = columns.first; c <= columns.last; c++)
      sum += dy[(plane * shape.cell_rows + r) * shape.cell_columns + c];
  dx[pixel] = sum / real(shape.size * shape.size);
}

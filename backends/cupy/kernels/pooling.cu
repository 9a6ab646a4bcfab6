// Max- and average-pooling with square patches, and their gradients.
//
// Layout: images (N, C, H, W), treated as N·C planes. In the forward pass, each thread computes one
// cell. In the backward pass, each thread computes the gradient of one pixel: it adds the gradients
// of all cells whose patches contain the pixel, so no atomics are needed.
// Cost: size² reads per cell in the forward pass, and reads of up to ceil(size / stride)² cells per
// pixel in the backward pass.
// Grid: one thread per cell or pixel of the batch, once per member.
// Options: -DMASK, the type of tie masks: uint8 if size² <= 8, else int64. Bit i·size + j of a mask
// is set if element (i, j) of the cell's patch receives the gradient of the cell.
#include "common.cuh"
#include "pool_shape.cuh"

// Returns the offset, from the first pixel of the batch, of the first pixel of a cell's patch. The
// quotient of `cell` is its plane.
DEVICE int64 patch_begin(const PoolShape& shape, const Position& cell) {
  const int row = cell.remainder / shape.cell_columns, column = cell.remainder % shape.cell_columns;
  const int64 first_row = int64(cell.quotient) * shape.height + row * shape.stride;
  return first_row * shape.width + column * shape.stride;
}

// Returns the sum of gradient(cell, element) over the cells whose patches contain a pixel, whose
// quotient is its plane. `element` is the position of the pixel in the patch of the cell.
template <class Gradient>
DEVICE real sum_over_cells(const PoolShape& shape, const Position& pixel, Gradient gradient) {
  const int size = shape.size, stride = shape.stride;
  const int row = pixel.remainder / shape.width, column = pixel.remainder % shape.width;
  const int64 first_row = int64(pixel.quotient) * shape.cell_rows;
  const int top = row < size ? 0 : (row - size) / stride + 1;
  const int left = column < size ? 0 : (column - size) / stride + 1;
  const int bottom = min(row / stride, shape.cell_rows - 1);
  const int right = min(column / stride, shape.cell_columns - 1);
  real sum = 0;
  for (int r = top; r <= bottom; r++)
    for (int c = left; c <= right; c++)
      sum += gradient((first_row + r) * shape.cell_columns + c,
                      (row - r * stride) * size + column - c * stride);
  return sum;
}

// Sets y to the maximum of each patch, and `mask` to its tie mask. `cells` is the number of
// elements of y.
// At most 56 registers.
extern "C" __global__ void max_pool2d(const real* __restrict__ x, int64 cells, PoolShape shape,
                                      int all_ties, int64 member_stride, real* __restrict__ y,
                                      MASK* __restrict__ mask) {
  const int64 cell = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const real* const patch = of_member(x, member_stride) +
                            patch_begin(shape, Position(shape.cell_rows * shape.cell_columns));
  PatchMaximum<MASK> maximum = {patch[0], 1};
  for (int i = 0; i < shape.size; i++)
    for (int j = 0; j < shape.size; j++)
      maximum.add(patch[i * shape.width + j], MASK(1) << (i * shape.size + j), all_ties);
  of_member(y, member_stride)[cell] = maximum.value;
  of_member(mask, member_stride)[cell] = maximum.mask;
}

// Sets dx to the gradient of the input of max-pooling. `pixels` is the number of elements of dx.
// At most 48 registers.
extern "C" __global__ void max_pool2d_backward(const real* __restrict__ dy,
                                               const MASK* __restrict__ mask, int64 pixels,
                                               PoolShape shape, int64 member_stride,
                                               real* __restrict__ dx) {
  const int64 pixel = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const Position position(shape.height * shape.width);
  dy = of_member(dy, member_stride);
  mask = of_member(mask, member_stride);
  real* const own_dx = of_member(dx, member_stride);
  own_dx[pixel] = sum_over_cells(shape, position, [&](int64 cell, int element) {
    return mask[cell] >> element & 1 ? dy[cell] : real(0);
  });
}

// Sets y to the mean of each patch. `cells` is the number of elements of y.
// At most 56 registers.
extern "C" __global__ void avg_pool2d(const real* __restrict__ x, int64 cells, PoolShape shape,
                                      int64 member_stride, real* __restrict__ y) {
  const int64 cell = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const real* const patch = of_member(x, member_stride) +
                            patch_begin(shape, Position(shape.cell_rows * shape.cell_columns));
  real sum = 0;
  for (int i = 0; i < shape.size; i++)
    for (int j = 0; j < shape.size; j++) sum += patch[i * shape.width + j];
  of_member(y, member_stride)[cell] = sum / real(shape.size * shape.size);
}

// Sets dx to the gradient of the input of average-pooling. `pixels` is the number of elements of
// dx.
// At most 56 registers.
extern "C" __global__ void avg_pool2d_backward(const real* __restrict__ dy, int64 pixels,
                                               PoolShape shape, int64 member_stride,
                                               real* __restrict__ dx) {
  const int64 pixel = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const Position position(shape.height * shape.width);
  dy = of_member(dy, member_stride);
  const real sum = sum_over_cells(shape, position, [&](int64 cell, int) { return dy[cell]; });
  of_member(dx, member_stride)[pixel] = sum / real(shape.size * shape.size);
}

// Naive versions of pooling.cu. One thread per result.
//
// Layout: as in pooling.cu. Options: -DMASK as there.
#include "common.cuh"
#include "pool_shape.cuh"

// Returns the offset of element (i, j) of the patch of a cell; cells are numbered over all planes.
__device__ int patch_element(const PoolShape& pool, int cell, int i, int j) {
  const int row = cell / pool.cell_columns % pool.cell_rows * pool.stride + i;
  const int column = cell % pool.cell_columns * pool.stride + j;
  const int plane = cell / (pool.cell_rows * pool.cell_columns);
  return (plane * pool.height + row) * pool.width + column;
}

// y = the largest element of each patch. The mask has a bit for each element that equals it if
// `all_ties`, else for the first of them.
extern "C" __global__ void naive_max_pool2d(const real* x, PoolShape pool, int cells, int all_ties,
                                            real* y, MASK* mask) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x, size = pool.size;
  if (cell >= cells) return;
  real largest = x[patch_element(pool, cell, 0, 0)];
  for (int i = 0; i < size * size; i++) {
    const real element = x[patch_element(pool, cell, i / size, i % size)];
    if (element > largest) largest = element;
  }
  MASK ties = 0;
  for (int i = 0; i < size * size; i++) {
    const bool is_largest = x[patch_element(pool, cell, i / size, i % size)] == largest;
    if (is_largest && (all_ties || !ties)) ties |= MASK(1) << i;
  }
  y[cell] = largest;
  mask[cell] = ties;
}

// y = the mean of each patch.
extern "C" __global__ void naive_avg_pool2d(const real* x, PoolShape pool, int cells, real* y) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x, size = pool.size;
  if (cell >= cells) return;
  real sum = 0;
  for (int i = 0; i < size * size; i++)
    sum += x[patch_element(pool, cell, i / size, i % size)];
  y[cell] = sum / (size * size);
}

// The gradient of max-pooling or, if `mask` is null, of average-pooling. One thread per pixel: it goes
// through all cells of its plane, and adds those whose patches contain the pixel.
extern "C" __global__ void naive_pool2d_backward(const real* dy, const MASK* mask, PoolShape pool,
                                                 int pixels, real* dx) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const int cells = pool.cell_rows * pool.cell_columns, size = pool.size;
  const int first = pixel / (pool.height * pool.width) * cells;
  real sum = 0;
  for (int cell = first; cell < first + cells; cell++)
    for (int i = 0; i < size * size; i++) {
      if (patch_element(pool, cell, i / size, i % size) != pixel) continue;
      if (!mask) sum += dy[cell] / (size * size);
      if (mask && mask[cell] >> i & 1) sum += dy[cell];
    }
  dx[pixel] = sum;
}

// The gradient of a linear layer with few outputs, dW = xᵀ dy.
//
// A tile of a matrix product would be mostly empty, and copying its factors to shared memory would take
// as many instructions as the products. So a block computes NARROW_ROWS rows of dW, and a thread all
// columns of four rows, for every NARROW_SLOTS-th image. It reads its factors from the caches:
//
//   lane    0    1     2      3       4    5     6      7       ..
//   rows   0-3  4-7  8-11  12-15     0-3  4-7  8-11  12-15      ..
//   image   0    0     0      0       1    1     1      1       ..
//
// Options: -DNARROW_COLUMNS, the number of outputs; -DTILE_WARPS of a block.
#pragma once

#include "rows.cuh"

constexpr int ROW_LANES = 4, ROWS_PER_LANE = 4, NARROW_ROWS = ROW_LANES * ROWS_PER_LANE;
constexpr int NARROW_SIZE = NARROW_ROWS * NARROW_COLUMNS;
constexpr int LANE_SUMS = ROWS_PER_LANE * NARROW_COLUMNS;
// Images that a block takes at a time.
constexpr int NARROW_SLOTS = TILE_WARPS * WARP_SIZE / ROW_LANES;
// Numbers of a row of dy that one instruction reads.
constexpr int COLUMNS_PER_LOAD = NARROW_COLUMNS % 2 ? 1 : 2;
struct alignas(COLUMNS_PER_LOAD * sizeof(real)) NarrowColumns {
  real elements[COLUMNS_PER_LOAD];
};

// Returns the inputs of some rows of dW in an image, 1 in the row after the last input and 0 in others
// after it.
template <class Image>
DEVICE Vector4 inputs_of_rows(const Image& image, int first_row, int width) {
  Vector4 inputs;
#pragma unroll
  for (int i = 0; i < ROWS_PER_LANE; i++) {
    const int row = first_row + i;
    inputs.elements[i] = row < width ? image[row] : real(row == width);
  }
  return inputs;
}

// Adds the products of all images to the sums of the rows of a lane, which begin at `first_row`. If
// `has_vectors`, an instruction reads all inputs of these rows in an image.
template <bool has_vectors, class Rows>
DEVICE void add_products(const Rows& x, const DenseRows& dy, int first_row,
                         real (&sums)[LANE_SUMS]) {
#pragma unroll 2  // images whose loads are under way together
  for (int image = threadIdx.x / ROW_LANES; image < x.count; image += NARROW_SLOTS) {
    Vector4 inputs;
    if constexpr (has_vectors) {
      inputs = *reinterpret_cast<const Vector4*>(x.address(image, first_row));
#pragma unroll
      for (int i = 0; i < ROWS_PER_LANE; i++) inputs.elements[i] = x.value(inputs.elements[i]);
    } else {
      inputs = inputs_of_rows(x.from(image).row(0), first_row, x.width);
    }
    const auto* const gradients = reinterpret_cast<const NarrowColumns*>(dy.address(image, 0));
#pragma unroll
    for (int column = 0; column < NARROW_COLUMNS; column++) {
      const real gradient =
          gradients[column / COLUMNS_PER_LOAD].elements[column % COLUMNS_PER_LOAD];
#pragma unroll
      for (int i = 0; i < ROWS_PER_LANE; i++)
        sums[i * NARROW_COLUMNS + column] += inputs.elements[i] * gradient;
    }
  }
}

// Computes NARROW_ROWS rows of dW from `first_row` on for the images of x. The row after the last
// input is the gradient of the bias. The partial sums of each warp are in `warp_sums` afterwards:
// shared memory for NARROW_SIZE elements per warp, row-major.
template <class Rows>
DEVICE void narrow_wgrad(const Rows& x, const DenseRows& dy, int first_row, real* warp_sums) {
  const int lane_row = threadIdx.x % ROW_LANES * ROWS_PER_LANE;
  real sums[LANE_SUMS] = {};
  // Only real numbers are stored so that a vector begins at every fourth of them.
  constexpr bool is_real = sizeof(typename Rows::Element) == sizeof(real);
  const bool is_inside = first_row + NARROW_ROWS <= x.width;  // of all lanes
  if (is_real && is_inside && x.width % ROWS_PER_LANE == 0)
    add_products<is_real>(x, dy, first_row + lane_row, sums);
  else
    add_products<false>(x, dy, first_row + lane_row, sums);
  const auto own = warp_reduce_ranges<LANE_SUMS, ROW_LANES>(sums);
  real* const target =
      warp_sums + threadIdx.x / WARP_SIZE * NARROW_SIZE + lane_row * NARROW_COLUMNS;
#pragma unroll
  for (int i = 0; i < own.size; i++)
    if (own.begin + i < own.end) target[own.begin + i] = sums[i];
  __syncthreads();
}

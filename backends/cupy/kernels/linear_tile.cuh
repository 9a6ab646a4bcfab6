// A linear layer and the gradient of its input, by tiles of the result.
#pragma once

#include "gemm_tile.cuh"

// Sets a tile of y to activation(x W + bias). Rows of y are `stride` elements apart; `bias` may be
// null.
template <class Rows>
DEVICE void linear_tile(const Rows& x, const DenseRows& weight, const real* bias,
                        Activation activation, int tile_row, int tile_column, real* y, int stride,
                        GemmShared& shared) {
  gemm_tile<false, false>(Matrix<Rows>{x}, Matrix<DenseRows>{weight}, tile_row, tile_column,
                          shared);
  for (int place = threadIdx.x; place < TILE_SIZE; place += TILE_THREADS) {
    const int row = tile_row * TILE_ROWS + place / TILE_COLUMNS;
    const int column = tile_column * TILE_COLUMNS + place % TILE_COLUMNS;
    if (row >= x.count || column >= weight.width) continue;
    const real sum = tile_element(shared, place);
    y[int64(row) * stride + column] = activate(activation, bias ? sum + bias[column] : sum);
  }
}

// Sets a tile of dx to dy Wᵀ times the derivative of the activation that computed x.
DEVICE void linear_backward_tile(const DenseRows& dy, const DenseRows& weight, const real* x,
                                 Activation activation, int tile_row, int tile_column, real* dx,
                                 GemmShared& shared) {
  gemm_tile<false, true>(Matrix<DenseRows>{dy}, Matrix<DenseRows>{weight}, tile_row, tile_column,
                         shared);
  for (int place = threadIdx.x; place < TILE_SIZE; place += TILE_THREADS) {
    const int row = tile_row * TILE_ROWS + place / TILE_COLUMNS;
    const int column = tile_column * TILE_COLUMNS + place % TILE_COLUMNS;
    if (row >= dy.count || column >= weight.count) continue;
    const int64 at = int64(row) * weight.count + column;
    dx[at] = tile_element(shared, place) * derivative(activation, x[at]);
  }
}

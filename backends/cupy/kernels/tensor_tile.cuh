// Products of a matrix of bytes and a matrix of floats by tensor cores, one tile of the result per
// block.
//
// Tensor cores multiply bfloat16, which has 8 significant bits. A byte is exact. A float is split
// into three bfloat16 *parts* whose sum is exact, and each part is multiplied. Sums of K_TILE terms
// begin at 0 and are then added in float, because the sums of tensor cores are truncated. Rounding
// errors are those of a sum in float: docs/decisions/0035-tensor-cores.md has the bound.
//
// The warps of a block compute 2×2 parts of the tile. All threads copy the next K_TILE terms of the
// factors to shared memory, then all warps multiply them.
//
// Options: -DTILE_ROWS, -DTILE_COLUMNS and -DTILE_WARPS as launch/tensor_linear.py sets them.
#pragma once

#include "mma.cuh"
#include "tensor_factors.cuh"

constexpr int WARP_ROWS = TILE_ROWS / 2, WARP_COLUMNS = TILE_COLUMNS / 2;
constexpr float BYTE_SCALE = 1.0f / 255.0f;  // a pixel is a byte times this

static_assert(sizeof(real) == 4 && TILE_WARPS == 4, "2×2 warps, float only");
static_assert(WARP_ROWS % 16 == 0 && WARP_COLUMNS % 8 == 0, "whole matrices of mma_16x8x16()");

// The results of a lane: sums[m][n] as mma_16x8x16() defines it for the m-th 16 rows and the n-th 8
// columns of its warp, with rows g and g + 8 of the instruction being rows 2 g and 2 g + 1.
struct TensorSums {
  float sums[WARP_ROWS / 16][WARP_COLUMNS / 8][4] = {};

  DEVICE static int warp_row() { return threadIdx.x / WARP_SIZE / 2 * WARP_ROWS; }
  DEVICE static int warp_column() { return threadIdx.x / WARP_SIZE % 2 * WARP_COLUMNS; }

  // Adds the products of the terms in shared memory. The smallest parts are added first, so that only
  // the last two of six truncated sums have the size of the result.
  DEVICE void multiply(const TensorShared& shared) {
    const int g = threadIdx.x % WARP_SIZE / 4, t = threadIdx.x % 4;
    Quad rows[WARP_ROWS / 16][2];
#pragma unroll
    for (int m = 0; m < WARP_ROWS / 16; m++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        rows[m][half] = shared.left[warp_row() / 16 + m][half][left_slot(g, t, half)];
#pragma unroll
    for (int n = 0; n < WARP_COLUMNS / 8; n++) {
      float products[WARP_ROWS / 16][4] = {};
#pragma unroll
      for (int part = PARTS - 1; part >= 0; part--) {
        const Quad column = shared.right[warp_column() / 8 + n][part][right_slot(g, t)];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const uint32 terms[2] = {column.pairs[2 * half], column.pairs[2 * half + 1]};
#pragma unroll
          for (int m = 0; m < WARP_ROWS / 16; m++)
            mma_16x8x16(products[m], rows[m][half].pairs, terms);
        }
      }
#pragma unroll
      for (int m = 0; m < WARP_ROWS / 16; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[m][n][i] += products[m][i];
    }
  }

  // Calls store(row, column, sum) for each result of this lane, with its place in the tile.
  template <class Store>
  DEVICE void for_each(const Store& store) const {
    const int row = warp_row() + threadIdx.x % WARP_SIZE / 4 * 2;
    const int column = warp_column() + threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < WARP_ROWS / 16; m++)
#pragma unroll
      for (int n = 0; n < WARP_COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          store(row + 16 * m + i / 2, column + 8 * n + i % 2, sums[m][n][i]);
  }
};

// Returns the product of two factors with `terms` terms, the bytes not scaled.
template <class LeftLoader>
DEVICE TensorSums tensor_tile(LeftLoader left, FloatLoader right, int terms,
                              TensorShared& shared) {
  TensorSums result;
  left.load(terms);
  right.load(terms);
#pragma unroll 1
  for (int first = 0; first < terms; first += K_TILE) {
    left.store(shared);
    right.store(shared);
    __syncthreads();
    // The loads of the next terms overlap with the multiplications.
    left.load(terms - first - K_TILE);
    right.load(terms - first - K_TILE);
    result.multiply(shared);
    __syncthreads();  // all warps have read the terms before they are overwritten
  }
  return result;
}

// Matrix products, one tile of the result per block.
//
// The matrices of MNIST networks are small, so the threads of a block split the sum over K: each
// warp computes the whole tile for every TILE_WARPS-th stretch of K_TILE terms, and the partial
// sums of the warps are added at the end. Within a warp, a thread computes THREAD_TILE×THREAD_TILE
// results in registers and reads 2·THREAD_TILE elements of shared memory per term. Warps run
// independently until their partial sums are added.
//
//                                  right (K, columns)
//                                  +--------------------+
//                           K_TILE |       warp 0       |
//                                  +--------------------+
//                           K_TILE |       warp 1       |
//                                  +--------------------+
//                                            ..
//   left (rows, K)                 tile of the result
//   +--------+--------+----        +--------------------+
//   | warp 0 | warp 1 | ..         |                    | TILE_ROWS
//   +--------+--------+----        +--------------------+
//     K_TILE   K_TILE                   TILE_COLUMNS
//
// Lanes of a warp in the tile of the result, with THREAD_TILE = 4 and 32 columns:
//
//   columns      0-3  4-7  ..  28-31
//   rows 0-3       0    1  ..      7
//   rows 4-7       8    9  ..     15
//   rows 8-11     16   17  ..     23
//   rows 12-15    24   25  ..     31
//
// With THREAD_TILE = 8, a lane has four such 4×4 squares, 16 rows and 32 columns apart.
//
// Options: -DTHREAD_TILE=4 or, in float only, 8; -DTILE_ROWS, -DTILE_COLUMNS and -DTILE_WARPS as
// backends/cupy/launch/tiles.py sets them.
#pragma once

#include "rows.cuh"

constexpr int TILE_SIZE = TILE_ROWS * TILE_COLUMNS;
constexpr int TILE_THREADS = TILE_WARPS * WARP_SIZE;
constexpr int K_TILE = (THREAD_TILE == 4 ? 64 : 32) / int(sizeof(real));  // terms per warp and load
constexpr int K_STRIDE = TILE_WARPS * K_TILE;  // terms that all warps load at a time

constexpr int LANE_ROWS = TILE_ROWS / THREAD_TILE, LANE_COLUMNS = TILE_COLUMNS / THREAD_TILE;

static_assert(LANE_ROWS * LANE_COLUMNS == WARP_SIZE, "each lane computes a part of the tile");
static_assert(THREAD_TILE == 4 || sizeof(real) == 4, "tiles of 8×8 doubles exceed shared memory");

// The elements that a warp multiplies next, one line per term. The padding of four elements makes
// consecutive lines begin in different banks.
struct WarpTiles {
  real left[K_TILE][TILE_ROWS + 4], right[K_TILE][TILE_COLUMNS + 4];
};

union alignas(16) GemmShared {
  WarpTiles warp_tiles[TILE_WARPS];
  real partial_sums[TILE_WARPS][TILE_SIZE];  // tile of each warp, row-major, after the last term
};

// A factor of a product. Its *lines* are the rows of the left factor and the columns of the right
// one.
template <class Rows>
struct Matrix {
  Rows rows;
  bool has_ones = false;  // appends a column of ones; for a transposed left factor only
};

// Loads the elements of a factor that a lane copies to shared memory: some terms of some lines.
// Consecutive lanes read consecutive addresses, whether lines are rows or columns of the stored
// matrix.
//
// Lines beyond the last one repeat it; their results are never stored. Terms beyond the last one
// are 0. In gathered images a 0 is normalized to the pixel shift, but there the other factor is 0,
// too.
//
// Addresses advance from load to load, and only the last load compares terms with the end:
// computing them for each element would take more instructions than the multiplications.
template <bool lines_are_rows, int LINES, class Rows>
struct TileLoader;

template <int LINES, class Rows>
struct TileLoader<true, LINES, Rows> {
  static constexpr int count = K_TILE * LINES / WARP_SIZE;  // elements per lane
  const typename Rows::Element* next[count];
  typename Rows::Element loaded[count];

  // Line and term of this lane's i-th element.
  DEVICE static int line(int i) { return (threadIdx.x % WARP_SIZE + i * WARP_SIZE) / K_TILE; }
  DEVICE static int term(int) { return threadIdx.x % K_TILE; }

  DEVICE TileLoader(const Rows& rows, int first_line, int first_term) {
#pragma unroll
    for (int i = 0; i < count; i++)
      next[i] = rows.address(min(first_line + line(i), rows.count - 1), first_term + term(i));
  }

  // Loads the next K_TILE terms of this warp, of which only the first `remaining` exist.
  template <bool is_full>
  DEVICE void load(int remaining) {
    const bool exists = is_full || term(0) < remaining;
#pragma unroll
    for (int i = 0; i < count; i++) {
      loaded[i] = 0;
      if (exists) loaded[i] = *next[i];
      next[i] += K_STRIDE;
    }
  }
};

template <int LINES, class Rows>
struct TileLoader<false, LINES, Rows> {
  static constexpr int count = K_TILE * LINES / WARP_SIZE;
  static constexpr int columns = (LINES + WARP_SIZE - 1) / WARP_SIZE;
  typename Rows::Column next[columns];
  typename Rows::Element loaded[count];

  DEVICE static int line(int i) { return (threadIdx.x % WARP_SIZE + i * WARP_SIZE) % LINES; }
  DEVICE static int term(int i) { return (threadIdx.x % WARP_SIZE + i * WARP_SIZE) / LINES; }

  DEVICE TileLoader(const Rows& rows, int first_line, int first_term) {
#pragma unroll
    for (int i = 0; i < columns; i++)
      next[i] = rows.column(min(first_line + line(i), rows.width - 1)).from(first_term + term(0));
  }

  template <bool is_full>
  DEVICE void load(int remaining) {
#pragma unroll
    for (int i = 0; i < count; i++) {
      loaded[i] = 0;
      if (is_full || term(i) < remaining)
        loaded[i] = *next[i % columns].address(i * WARP_SIZE / LINES);
    }
#pragma unroll
    for (int i = 0; i < columns; i++) next[i] = next[i].from(K_STRIDE);
  }
};

template <class Loader>
DEVICE void load_terms(Loader& loader, int remaining) {
  if (remaining >= K_TILE)
    loader.template load<true>(remaining);
  else
    loader.template load<false>(remaining);
}

// Copies the elements that a lane has loaded to shared memory.
template <class Loader, class Rows, int WIDTH>
DEVICE void store_terms(const Loader& loader, const Matrix<Rows>& matrix, int first_line,
                        real (&tile)[K_TILE][WIDTH]) {
#pragma unroll
  for (int i = 0; i < loader.count; i++) {
    const bool is_one = matrix.has_ones && first_line + loader.line(i) == matrix.rows.width;
    tile[loader.term(i)][loader.line(i)] = is_one ? real(1) : matrix.rows.value(loader.loaded[i]);
  }
}

// Row of the tile that is this lane's i-th row of results, and column that is its j-th column. A
// lane has four consecutive rows and columns, so it reads them as a Vector4. With THREAD_TILE = 8,
// four more of each follow those of the other lanes.
DEVICE int result_row(int i) {
  return (threadIdx.x % WARP_SIZE / LANE_COLUMNS + i / 4 * LANE_ROWS) * 4 + i % 4;
}
DEVICE int result_column(int j) {
  return (threadIdx.x % LANE_COLUMNS + j / 4 * LANE_COLUMNS) * 4 + j % 4;
}

// Adds the products of the terms in shared memory to the results of a lane.
DEVICE void multiply_terms(const WarpTiles& tiles, real (&sums)[THREAD_TILE][THREAD_TILE]) {
#pragma unroll 2  // unrolling further would exceed the registers
  for (int term = 0; term < K_TILE; term++) {
    Vector4 rows[THREAD_TILE / 4], columns[THREAD_TILE / 4];
#pragma unroll
    for (int i = 0; i < THREAD_TILE / 4; i++) {
      rows[i] = *reinterpret_cast<const Vector4*>(&tiles.left[term][result_row(4 * i)]);
      columns[i] = *reinterpret_cast<const Vector4*>(&tiles.right[term][result_column(4 * i)]);
    }
#pragma unroll
    for (int i = 0; i < THREAD_TILE; i++)
#pragma unroll
      for (int j = 0; j < THREAD_TILE; j++)
        sums[i][j] += rows[i / 4].elements[i % 4] * columns[j / 4].elements[j % 4];
  }
}

// Computes tile (tile_row, tile_column) of the product of two matrices, each transposed or not. The
// partial sums of the warps are in shared.partial_sums afterwards, visible to all threads.
template <bool left_transposed, bool right_transposed, class Left, class Right>
DEVICE void gemm_tile(const Matrix<Left>& left, const Matrix<Right>& right, int tile_row,
                      int tile_column, GemmShared& shared) {
  const int warp = threadIdx.x / WARP_SIZE;
  const int terms = left_transposed ? left.rows.count : left.rows.width;
  const int first_row = tile_row * TILE_ROWS, first_column = tile_column * TILE_COLUMNS;
  WarpTiles& tiles = shared.warp_tiles[warp];
  real sums[THREAD_TILE][THREAD_TILE] = {};
  TileLoader<!left_transposed, TILE_ROWS, Left> left_loader(left.rows, first_row, warp * K_TILE);
  TileLoader<right_transposed, TILE_COLUMNS, Right> right_loader(right.rows, first_column,
                                                                 warp * K_TILE);
  load_terms(left_loader, terms - warp * K_TILE);
  load_terms(right_loader, terms - warp * K_TILE);
#pragma unroll 1
  for (int first = warp * K_TILE; first < terms; first += K_STRIDE) {
    store_terms(left_loader, left, first_row, tiles.left);
    store_terms(right_loader, right, first_column, tiles.right);
    __syncwarp();
    // The loads of the next terms overlap with the multiplications.
    load_terms(left_loader, terms - first - K_STRIDE);
    load_terms(right_loader, terms - first - K_STRIDE);
    multiply_terms(tiles, sums);
    __syncwarp();  // all lanes have read the tiles before they are overwritten
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < THREAD_TILE; i++)
#pragma unroll
    for (int j = 0; j < THREAD_TILE; j++)
      shared.partial_sums[warp][result_row(i) * TILE_COLUMNS + result_column(j)] = sums[i][j];
  __syncthreads();
}

// Returns element `place` of the tile that gemm_tile() computed, counted row by row.
DEVICE real tile_element(const GemmShared& shared, int place) {
  real total = 0;
#pragma unroll
  for (int warp = 0; warp < TILE_WARPS; warp++) total += shared.partial_sums[warp][place];
  return total;
}

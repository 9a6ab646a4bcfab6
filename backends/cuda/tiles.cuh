// Products of matrices, a tile of the result for each block of 16×16 threads in one row.
//
// A thread computes one number: at the sizes of MNIST the grid is small, and what is short is work
// for all multiprocessors, not arithmetic for each thread. Tiles of both factors pass through shared
// memory, so every number is read once for 16 results. Needs rows.cuh.

#define TILE 16

// A column more than are used: a column of a tile then lies in different banks.
struct Tiles {
  real left[TILE][TILE + 1], right[TILE][TILE + 1];
};

template <class Rows>
struct Matrix {
  Rows row;  // there are row.count of row.size
  int ones = 0;  // columns of ones that follow
};

// Returns number (i, j) of a matrix or of its transpose, 0 beyond its end.
template <bool transposed, class Rows>
__device__ __forceinline__ real number(const Matrix<Rows>& m, int i, int j) {
  const int row = transposed ? j : i, column = transposed ? i : j;
  if (row >= m.row.count || column >= m.row.size + m.ones) return 0;
  return column < m.row.size ? m.row(row)[column] : real(1);
}

// Returns this thread's number of a tile of the product of two matrices, each transposed or not.
// Thread 16·y + x computes the number in line y and column x of the tile.
template <bool left_transposed, bool right_transposed, class Left, class Right>
__device__ __forceinline__ real product(const Matrix<Left>& left, const Matrix<Right>& right,
                                        int tile_row, int tile_column, Tiles& tiles) {
  const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
  const int row = tile_row * TILE, column = tile_column * TILE;
  const int terms = left_transposed ? left.row.count : left.row.size;
  real sum = 0;
  for (int first = 0; first < terms; first += TILE) {
    // Whichever way round a matrix is, neighbouring threads read neighbouring numbers.
    if (left_transposed)
      tiles.left[x][y] = number<true>(left, row + x, first + y);
    else
      tiles.left[y][x] = number<false>(left, row + y, first + x);
    if (right_transposed)
      tiles.right[x][y] = number<true>(right, first + x, column + y);
    else
      tiles.right[y][x] = number<false>(right, first + y, column + x);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE; k++) sum += tiles.left[y][k] * tiles.right[k][x];
    __syncthreads();  // nobody fills a tile that another still reads
  }
  return sum;
}

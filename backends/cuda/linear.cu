// The fully connected layer with its activation, and its gradients: three matrix products.
//
// Layout: x (B, in), W (in, out), y (B, out), all by rows. A block of 16×16 threads computes a tile
// of 16×16 numbers of the result, a thread one of them: at the sizes of MNIST the grid is small, and
// what is short is work for all multiprocessors, not arithmetic for each thread. Tiles of both
// factors pass through shared memory, so every number is read once for 16 results.
// Cost per image: in·out multiplications forward, and as many for each gradient.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH: of the outputs; for the gradient of x, of
// the stage that made x, whose derivative it takes along.
#include "common.cuh"

#define TILE 16

// A column more than are used: a column of a tile then lies in different banks.
struct Tiles {
  real left[TILE][TILE + 1], right[TILE][TILE + 1];
};

struct Matrix {
  const real* numbers;
  int rows, columns;
  int ones = 0;  // columns of ones that follow
};

// Returns number (i, j) of a matrix or of its transpose, 0 beyond its end.
template <bool transposed>
__device__ __forceinline__ real number(Matrix m, int i, int j) {
  const int row = transposed ? j : i, column = transposed ? i : j;
  if (row >= m.rows || column >= m.columns + m.ones) return 0;
  return column < m.columns ? m.numbers[int64(row) * m.columns + column] : real(1);
}

// Returns this thread's number of the product of two matrices, each transposed or not.
template <bool left_transposed, bool right_transposed>
__device__ __forceinline__ real product(Matrix left, Matrix right, Tiles& tiles) {
  const int x = threadIdx.x, y = threadIdx.y;
  const int row = blockIdx.y * TILE, column = blockIdx.x * TILE;
  const int terms = left_transposed ? left.rows : left.columns;
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

// Grid: (outputs / 16, images / 16). y = activation(x W + bias).
// At most 40 registers.
extern "C" __global__ void __launch_bounds__(256)
    linear(const real* __restrict__ x, const real* __restrict__ weight,
           const real* __restrict__ bias, int inputs, int outputs, count_t count,
           real* __restrict__ y) {
  __shared__ Tiles tiles;
  const int images = images_of(count);
  const int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
  const real sum = product<false, false>({x, images, inputs}, {weight, inputs, outputs}, tiles);
  if (row >= images || column >= outputs) return;
  y[int64(row) * outputs + column] = activate<ACTIVATION>(bias ? sum + bias[column] : sum);
}

// Grid: (inputs / 16, images / 16). dx = dy Wᵀ, times the derivative of what made x (`below`).
// At most 40 registers.
extern "C" __global__ void __launch_bounds__(256)
    linear_backward_x(const real* __restrict__ dy, const real* __restrict__ weight,
                      const real* __restrict__ below, int inputs, int outputs, count_t count,
                      real* __restrict__ dx) {
  __shared__ Tiles tiles;
  const int images = images_of(count);
  const int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
  const real sum = product<false, true>({dy, images, outputs}, {weight, inputs, outputs}, tiles);
  if (row >= images || column >= inputs) return;
  const int64 at = int64(row) * inputs + column;
  dx[at] = sum * derivative<ACTIVATION>(below[at]);
}

// Grid: (outputs / 16, (inputs + 1) / 16). dweight = xᵀ dy, and dbias, unless it is left out, is the
// row below: what a column of ones at the end of x would give.
// At most 40 registers.
extern "C" __global__ void __launch_bounds__(256)
    linear_backward_weight(const real* __restrict__ dy, const real* __restrict__ x, int inputs,
                           int outputs, count_t count, real* __restrict__ dweight,
                           real* __restrict__ dbias) {
  __shared__ Tiles tiles;
  const int images = images_of(count);
  const int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
  const real sum = product<true, false>({x, images, inputs, 1}, {dy, images, outputs}, tiles);
  if (column >= outputs) return;
  if (row < inputs)
    dweight[row * outputs + column] = sum;
  else if (row == inputs && dbias)
    dbias[column] = sum;
}

// The first linear layer of large batches of bytes, by tensor cores. linear.cu computes the same
// without tensor cores.
//
// Layout: x (N, in) bytes, of which the batch gathers rows; W (in, out), y (B, out), all row-major.
// `in` is a multiple of 4, so that four pixels are read as a word. A pixel is a byte / 255, without a
// shift.
// Cost per image: 3·in·out multiply-adds of tensor cores.
// Options: -DACTIVATION as in linear.cu; -DGATHER=1 and -DINPUT=uint8 as in stage_input.cuh;
// -DTILE_ROWS, -DTILE_COLUMNS and -DTILE_WARPS as in tensor_tile.cuh.
#include "common.cuh"
#include "stage_input.cuh"
#include "tensor_tile.cuh"

constexpr int MIN_BLOCKS = 2;  // resident blocks per multiprocessor

// y = activation(x W + bias). Grid: (images / TILE_ROWS, out / TILE_COLUMNS, members), rounded up.
// At most 255 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
    tensor_linear(const INPUT* __restrict__ x, StageInput input, const real* __restrict__ weight,
                  const real* __restrict__ bias, int inputs, int outputs, int64 member_stride,
                  real* __restrict__ y) {
  __shared__ TensorShared shared;
  const StageRows rows = stage_rows(x, input, inputs, member_stride);
  const int first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
  if (first_row >= rows.count) return;  // in all threads of the block
  const DenseRows weights = {of_member(weight, member_stride), outputs, inputs};
  const real* const biases = of_member(bias, member_stride);
  real* const results = of_member(y, member_stride);
  const TensorSums product = tensor_tile(PixelLoader(rows, first_row),
                                         FloatLoader(weights, first_column), inputs, shared);
  product.for_each([&](int tile_row, int tile_column, float sum) {
    const int row = first_row + tile_row, column = first_column + tile_column;
    if (row >= rows.count || column >= outputs) return;
    const float scaled = sum * BYTE_SCALE;
    const float total = biases ? scaled + biases[column] : scaled;
    results[int64(row) * outputs + column] = activate(ACTIVATION, total);
  });
}

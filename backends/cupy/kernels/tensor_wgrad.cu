// Partial sums of the gradient of the parameters of the first linear layer, for large batches of
// bytes, by tensor cores. wgrad_update.cu adds the sums and updates the parameters; it can also
// compute the gradient itself, without tensor cores.
//
// Layout: x as in tensor_linear.cu; dy (B, out), row-major.
// Cost per image: 3·in·out multiply-adds of tensor cores.
// Options: -DTILE_ROWS, -DTILE_COLUMNS and -DTILE_WARPS as in tensor_tile.cuh.
#include "common.cuh"
#include "tensor_tile.cuh"

constexpr int MIN_BLOCKS = 2;  // resident blocks per multiprocessor

// Where a split stores its sums; wgrad_update.cu adds those of all splits.
struct PartialSums {
  real* sums;        // (splits, parameters)
  int parameters;    // weights and biases of the layer
  int weight, bias;  // offsets in a row of `sums`; bias is -1 if the layer has none
};

// Sums dW = xᵀ dy, and the gradient of the bias, over the images of a split.
// Grid: ((in + 1) / TILE_ROWS · out / TILE_COLUMNS, both rounded up; splits; members).
// At most 255 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
    tensor_wgrad(const uint8* __restrict__ x, const int* __restrict__ rows, Batch batch,
                 const real* __restrict__ dy, int inputs, int outputs, int64 member_stride,
                 PartialSums partial) {
  __shared__ TensorShared shared;
  const Batch own = of_member(batch, member_stride);
  const int images = own.size(), split = blockIdx.y, splits = gridDim.y;
  const int begin = split_begin(images, split, splits);
  const int end = split_begin(images, split + 1, splits);
  const int columns = (outputs + TILE_COLUMNS - 1) / TILE_COLUMNS;
  const int first_row = blockIdx.x / columns * TILE_ROWS;
  const int first_column = blockIdx.x % columns * TILE_COLUMNS;
  TensorSums product;
  if (begin < end) {  // in all threads of the block
    const GatheredRows<uint8> pixels = {x, of_member(rows, member_stride) + own.first() + begin,
                                         0, inputs, end - begin};
    const DenseRows gradients = DenseRows{of_member(dy, member_stride), outputs, images}.from(begin);
    product = tensor_tile(TransposedPixelLoader(pixels, first_row),
                          FloatLoader(gradients, first_column), end - begin, shared);
  }
  real* const sums = of_member(partial.sums, member_stride) + int64(split) * partial.parameters;
  product.for_each([&](int tile_row, int tile_column, float sum) {
    const int row = first_row + tile_row, column = first_column + tile_column;
    if (row > inputs || column >= outputs) return;
    if (row < inputs)
      sums[partial.weight + row * outputs + column] = sum * BYTE_SCALE;
    else if (partial.bias >= 0)
      sums[partial.bias + column] = sum * BYTE_SCALE;
  });
}

// The end of a captured step: the gradient of every parameter, which changes the parameter as soon as
// its sum is complete, and the loss of the batch.
//
// The gradients of all layers wait for nothing but what the kernels before have left, so one launch
// does for them all: blocks are shared out among the layers. Nothing here reads a parameter but the
// thread that changes it. The last block of the grid adds up the losses and counts the step; no other
// reads that counter.
//
// Layout: as linear.cu and convolution.cu have it. A block has a tile of 16×16 numbers of dW = xᵀ dy,
// the row below W being the bias: what a column of ones at the end of x would give. Or it has one
// number of a filter, or its bias.
// Cost per image: as many multiplications as forward. Per parameter: as updates.cu.
// Options: -DRULE as rules.cuh has them; -DPIXEL=uint8 or real.
#include "common.cuh"
#include "rows.cuh"
#include "tiles.cuh"
#include "maps.cuh"
#include "rules.cuh"

#define MOST_LAYERS 16

// A layer with parameters; as descent.py writes it.
struct Layer {
  const real* x;      // what it took; 0 where that are images of the data set
  const real* dy;     // the gradient of what its activation took
  const uint8* mask;  // which outputs of a square receive dy; 0 where nothing is pooled
  int first_block;    // of those that have this layer
  int weight, bias;   // where they begin among the parameters; a bias that is left out: -1
  int inputs, outputs;  // of an image
  Maps maps;            // of a convolution; of a linear layer all 0
};

// Those that are left over begin behind the last block.
struct Layers {
  Layer of[MOST_LAYERS];
};

// Changes a parameter of this step by its gradient.
struct Descent {
  Rule rule;
  Rates rates;
  __device__ __forceinline__ void operator()(int parameter, real grad) const {
    rule.update(parameter, grad, rates);
  }
};

struct Shared {
  Tiles tiles;
  real sums[32];
  double loss_sums[32];
  int correct_sums[32];
};

template <class Rows>
__device__ __forceinline__ void descend_linear(const Layer& layer, int block, const Rows& x,
                                               const Descent& descent, Tiles& tiles) {
  const int across = (layer.outputs + TILE - 1) / TILE;
  const int tile_row = block / across, tile_column = block % across;
  const Matrix<Rows> inputs_and_ones = {x, 1};
  const Matrix<Numbers> gradients = {{layer.dy, layer.outputs, x.count}};
  const real sum = product<true, false>(inputs_and_ones, gradients, tile_row, tile_column, tiles);
  const int row = tile_row * TILE + threadIdx.x / TILE;
  const int column = tile_column * TILE + threadIdx.x % TILE;
  if (column >= layer.outputs) return;
  if (row < layer.inputs)
    descent(layer.weight + row * layer.outputs + column, sum);
  else if (row == layer.inputs && layer.bias >= 0)
    descent(layer.bias + column, sum);
}

template <class Rows>
__device__ __forceinline__ void descend_convolution(const Layer& layer, int block, const Rows& x,
                                                    const Descent& descent, real* sums) {
  const int weights = layer.maps.channels * layer.maps.taps();  // of a filter
  const int numbers = weights + (layer.bias >= 0);
  const int filter = block / numbers, number = block % numbers;
  const real part = part_of_filter_gradient(layer.dy, layer.mask, x, layer.maps, filter, number);
  const real sum = sum_of_block(part, sums);
  if (threadIdx.x > 0) return;
  const bool is_bias = number == weights;
  descent(is_bias ? layer.bias + filter : layer.weight + filter * weights + number, sum);
}

template <class Rows>
__device__ __forceinline__ void descend_layer(const Layer& layer, int block, const Rows& x,
                                              const Descent& descent, Shared& shared) {
  if (layer.maps.kernel_size)
    descend_convolution(layer, block, x, descent, shared.sums);
  else
    descend_linear(layer, block, x, descent, shared.tiles);
}

// Notes the loss of the batch, summed in one order, whatever the block's threads do first.
__device__ __forceinline__ void end_step(const real* row_losses, const int* row_correct, int count,
                                         int* step, double* losses, int* correct,
                                         Shared& shared) {
  double loss = 0;
  int hits = 0;
  for (int row = threadIdx.x; row < count; row += blockDim.x) {
    loss += double(row_losses[row]);
    hits += row_correct[row];
  }
  loss = sum_of_block(loss, shared.loss_sums);
  hits = sum_of_block(hits, shared.correct_sums);
  if (threadIdx.x > 0) return;
  losses[*step] = loss / double(count);
  correct[*step] = hits;
  *step += 1;
}

// Grid: the blocks of all layers, and one more.
// Four blocks fit a multiprocessor; left to itself, the compiler spills to make room for more.
// At most 64 registers.
extern "C" __global__ void __launch_bounds__(256, 4)
    descend(const __grid_constant__ Layers layers, const PIXEL* __restrict__ images,
            const int* __restrict__ rows, real shift, batch_t batch, RULE_ARGUMENTS,
            const real* __restrict__ step_rates, const real* __restrict__ row_losses,
            const int* __restrict__ row_correct, int* __restrict__ step,
            double* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
  const int count = images_of(batch), block = blockIdx.x;
  if (block == int(gridDim.x) - 1) {
    end_step(row_losses, row_correct, count, step, losses, correct, shared);
    return;
  }
  int own = 0;
  while (own + 1 < MOST_LAYERS && block >= layers.of[own + 1].first_block) own++;
  const Layer& layer = layers.of[own];
  const int place = block - layer.first_block;
  const Descent descent = {RULE_OF_ARGUMENTS, {step_rates[0], step_rates[1], step_rates[2]}};
  if (layer.x) {
    const Numbers x = {layer.x, layer.inputs, count};
    descend_layer(layer, place, x, descent, shared);
  } else {
    const Pixels x = {images, rows + beginning_of(batch), shift, layer.inputs, count};
    descend_layer(layer, place, x, descent, shared);
  }
}

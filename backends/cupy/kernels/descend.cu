// The end of a captured step: the gradient of every parameter, which changes the parameter as soon as
// its sum is complete, and the loss of the batch.
//
// The gradients of all layers wait for nothing but what the kernels before have left, so one launch
// does for them all: blocks are shared out among the layers. A block adds up the gradients of some
// parameters, its unit: a tile of dW = xᵀ dy, the row below W being the bias, which a column of ones at
// the end of x gives; or a patch of a filter. Where a layer has few units and many images, several
// blocks share out the images of a unit: each leaves its part, and the last to come adds them up, in
// one order whoever that is. The first block of the grid adds up the losses and counts the step.
// Nothing here reads a parameter but the thread that changes it, and no other block reads that counter.
//
// Layout: as linear.cu and convolution.cu have it.
// Cost per image: as many multiplications as forward, a quarter where outputs are pooled. Per
// parameter: as updates.cu.
// Options: -DRULE as rules.cuh has them; -DPIXEL=uint8 or real; -DPATCH as filter_gradient.cuh has it;
// -DSIDE as tiles.cuh has it.
#include "common.cuh"
#include "rows.cuh"
#include "tiles.cuh"
#include "maps.cuh"
#include "filter_gradient.cuh"
#include "rules.cuh"

#define MOST_LAYERS 16
#define BLOCKS (sizeof(real) == 8 ? 1 : SIDE == 4 ? 2 : 3)  // for whose registers there is room

// A layer with parameters; as descent.py writes it.
struct Layer {
  const real* x;      // what it took; 0 where that are images of the data set
  const real* dy;     // the gradient of what its activation took
  const uint8* mask;  // which outputs of a square receive dy; 0 where nothing is pooled
  real* parts;        // of gradients, a row of all parameters of the layer for each share
  int* tickets;       // how many shares of a unit are done
  int first_block;    // of those that have this layer
  int shares;         // blocks of a unit
  int parameters;     // how many there are; in the vector, the first is the weight's or the bias's
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

union Shared {
  Tiles tiles;
  real patches[TILE_WARPS * PATCH_NUMBERS];
  int ticket;
  struct {
    double losses[TILE_WARPS];
    int correct[TILE_WARPS];
  } step;
};

// A unit of a layer, and which share of the images a block has of it.
struct Share {
  int unit, number;
  int begin, end;  // of the images

  __device__ __forceinline__ Share(const Layer& layer, int block, int images)
      : unit(block / layer.shares), number(block % layer.shares) {
    begin = int(int64(images) * number / layer.shares);
    end = int(int64(images) * (number + 1) / layer.shares);
  }
};

// The rows and columns of a tile of dW.
struct TileOfWeights {
  int row, column;

  __device__ __forceinline__ TileOfWeights(const Layer& layer, int unit) {
    const int across = (layer.outputs + TILE_COLUMNS - 1) / TILE_COLUMNS;
    row = unit / across;
    column = unit % across;
  }
};

// Adds up the gradients of a unit by a share of the images. What the warps have is in `shared`
// afterwards, for each of them the numbers of the unit.
template <class Rows>
__device__ __forceinline__ void add_up(const Layer& layer, const Share& share, const Rows& all,
                                       Shared& shared) {
  Rows x = all.from(share.begin);
  x.count = share.end - share.begin;
  const Maps& maps = layer.maps;
  if (maps.kernel_size) {
    const int64 first = int64(share.begin) * layer.outputs * maps.cells();
    filter_gradient(layer.dy + first, layer.mask + first, x, maps, Patch(maps, share.unit),
                    shared.patches);
  } else {
    const TileOfWeights tile(layer, share.unit);
    const Numbers dy = {layer.dy, layer.outputs, share.end};
    const Matrix<Rows> inputs_and_ones = {x, true};
    product<true, false>(inputs_and_ones, Matrix<Numbers>{dy.from(share.begin)}, tile.row,
                         tile.column, shared.tiles);
  }
}

// Returns which parameter a number of a unit is; -1 if none.
__device__ __forceinline__ int parameter_of(const Layer& layer, int unit, int number) {
  if (layer.maps.kernel_size) {
    const Patch patch(layer.maps, unit);
    const int weight = patch.weight(layer.maps, number), bias = patch.bias(number);
    if (weight >= 0) return layer.weight + weight;
    return bias >= 0 && layer.bias >= 0 ? layer.bias + bias : -1;
  }
  const TileOfWeights tile(layer, unit);
  const int row = tile.row * TILE_ROWS + number / TILE_COLUMNS;
  const int column = tile.column * TILE_COLUMNS + number % TILE_COLUMNS;
  if (row > layer.inputs || column >= layer.outputs) return -1;
  if (row < layer.inputs) return layer.weight + row * layer.outputs + column;
  return layer.bias < 0 ? -1 : layer.bias + column;
}

// Returns, to all threads of a block, whether it is the last of those that share a unit. What the others
// have written can be read then, and the counter is 0 for the next step.
__device__ __forceinline__ bool is_last(int* ticket, int shares, Shared& shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.ticket = atomicAdd(ticket, 1);
    if (shared.ticket == shares - 1) *ticket = 0;
  }
  __syncthreads();
  __threadfence();
  return shared.ticket == shares - 1;
}

// Descends with the gradients of a unit, or leaves this share of them to the last block that has one.
__device__ __forceinline__ void finish(const Layer& layer, const Share& share, const Descent& descent,
                                       Shared& shared) {
  const bool is_convolution = layer.maps.kernel_size;
  const int numbers = is_convolution ? PATCH_NUMBERS : TILE_NUMBERS;
  const real* const sums = is_convolution ? shared.patches : shared.tiles.sums[0];
  const int first = layer.bias < 0 ? layer.weight : min(layer.weight, layer.bias);
  real* const parts = layer.parts - first;
#pragma unroll 1
  for (int number = threadIdx.x; number < numbers; number += TILE_THREADS) {
    const int parameter = parameter_of(layer, share.unit, number);
    if (parameter < 0) continue;
    real total = 0;
    for (int warp = 0; warp < TILE_WARPS; warp++) total += sums[warp * numbers + number];
    if (layer.shares == 1)
      descent(parameter, total);
    else
      parts[int64(share.number) * layer.parameters + parameter] = total;
  }
  if (layer.shares == 1 || !is_last(&layer.tickets[share.unit], layer.shares, shared)) return;
#pragma unroll 1
  for (int number = threadIdx.x; number < numbers; number += TILE_THREADS) {
    const int parameter = parameter_of(layer, share.unit, number);
    if (parameter < 0) continue;
    real total = 0;
    for (int other = 0; other < layer.shares; other++)
      total += parts[int64(other) * layer.parameters + parameter];
    descent(parameter, total);
  }
}

// Notes the loss of the batch, summed in one order, whatever the block's threads do first.
__device__ __forceinline__ void end_step(const real* row_losses, const int* row_correct, int count,
                                         int* step, double* losses, int* correct,
                                         Shared& shared) {
  double loss = 0;
  int hits = 0;
#pragma unroll 8
  for (int row = threadIdx.x; row < count; row += TILE_THREADS) {
    loss += double(row_losses[row]);
    hits += row_correct[row];
  }
  loss = sum_of_block(loss, shared.step.losses);
  hits = sum_of_block(hits, shared.step.correct);
  if (threadIdx.x > 0) return;
  losses[*step] = loss / double(count);
  correct[*step] = hits;
  *step += 1;
}

// Grid: one block for the losses, which many images keep busy, and the blocks of all layers.
// Left to itself, the compiler spills to make room for more blocks.
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, BLOCKS)
    descend(const __grid_constant__ Layers layers, const PIXEL* __restrict__ images,
            const int* __restrict__ rows, real shift, batch_t batch, RULE_ARGUMENTS,
            const real* __restrict__ step_rates, const real* __restrict__ row_losses,
            const int* __restrict__ row_correct, int* __restrict__ step,
            double* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
  const int count = images_of(batch), block = int(blockIdx.x) - 1;
  if (block < 0) {
    end_step(row_losses, row_correct, count, step, losses, correct, shared);
    return;
  }
  int own = 0;
  while (own + 1 < MOST_LAYERS && block >= layers.of[own + 1].first_block) own++;
  const Layer& layer = layers.of[own];
  const Share share(layer, block - layer.first_block, count);
  if (layer.x)
    add_up(layer, share, Numbers{layer.x, layer.inputs, count}, shared);
  else
    add_up(layer, share, Pixels{images, rows + beginning_of(batch), shift, layer.inputs, count}, shared);
  const Descent descent = {RULE_OF_ARGUMENTS, {step_rates[0], step_rates[1], step_rates[2]}};
  finish(layer, share, descent, shared);
}

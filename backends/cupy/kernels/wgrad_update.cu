// The end of a graph step: the gradient of every parameter, the update of the parameters, and the
// loss of the batch.
//
// The gradients of all layers depend only on what earlier kernels have computed, so one launch
// computes them all. Each block computes one *unit* of a layer: a tile of dW = xᵀ dy, whose last
// row is the gradient of the bias (a column of ones is appended to x), some rows of dW if the layer is
// *narrow*, or a filter tile. It updates the parameters of the unit as soon as their gradients are
// complete.
//
// If a layer has few units and many images, the sum over the images is split (split-K):
//
//   block          0         1         2         3         4         5       ..
//   unit           0         0         0         1         1         1
//   split          0         1         2         0         1         2
//   images       0..B/3  B/3..2B/3  2B/3..B    0..B/3  B/3..2B/3  2B/3..B
//                  |         |         |
//                  +-> partial_sums <--+    the last block to finish adds them in order of splits
//
// The partial sums of a layer may also be complete already, from tensor_wgrad.cu, fused_cnn.cu or
// fused_shallow_cnn.cu. Its blocks then divide the parameters, and a thread or, if there are enough, a
// warp adds the sums of one.
//
// Block 0 of the grid adds the losses of the images and advances the step counter of the chunk; the
// blocks of the layers follow it. No block reads a parameter that another block updates, and only
// block 0 reads the step counter.
//
// Layout: as in linear.cu and convolution.cu.
// Cost per image: as many multiply-adds as the forward pass, or a quarter of them for a convolution
// with pooling. Cost per parameter: the same as in updates.cu.
// Options: -DRULE as in update_rules.cuh; -DPIXEL=uint8, float or double, the element type of the
// data set; -DFILTER_TILE and -DFILTERS_PER_TILE as in conv_wgrad.cuh; -DNARROW_COLUMNS as in
// narrow_wgrad.cuh, 1 also if no layer is narrow; -DTHREAD_TILE and the other tile sizes as in
// gemm_tile.cuh; -DMAX_LAYERS as in wgrad_layers.cuh.
#include "common.cuh"
#include "conv_wgrad.cuh"
#include "gemm_tile.cuh"
#include "narrow_wgrad.cuh"
#include "wgrad_layers.cuh"

// Resident blocks per multiprocessor. Without this bound, the compiler spills registers so that
// more blocks are resident.
constexpr int MIN_BLOCKS = sizeof(real) == 8 ? 1 : THREAD_TILE == 4 ? 2 : 3;

DEVICE bool is_narrow(const WgradLayer& layer) {
  return layer.conv.kernel_size == 0 && layer.outputs == NARROW_COLUMNS;
}

union Shared {
  GemmShared gemm;
  real narrow_sums[TILE_WARPS * NARROW_SIZE];
  real filter_sums[TILE_WARPS * FILTER_TILE_SUMS];
  int finished_splits;
  BatchResults results;
};

// The unit of a block, and the images of its split.
struct Split {
  int unit, number;
  int begin, end;  // images

  DEVICE Split(const WgradLayer& layer, int block, int images)
      : unit(block), number(0), begin(0), end(images) {
    const int splits = layer.split.splits;
    if (splits == 1) return;  // divisions take many instructions
    unit = block / splits;
    number = block % splits;
    begin = split_begin(images, number, splits);
    end = split_begin(images, number + 1, splits);
  }
};

// Position of a tile of dW in the grid of tiles.
struct WeightTile {
  int row, column;

  DEVICE WeightTile(const WgradLayer& layer, int unit) {
    const int columns = (layer.outputs + TILE_COLUMNS - 1) / TILE_COLUMNS;
    row = unit / columns;
    column = unit % columns;
  }
};

// Computes the gradient of a unit for the images of a split. The partial sums of the warps are in
// `shared` afterwards.
template <class Rows>
DEVICE void unit_gradient(const WgradLayer& layer, const Split& split, const Rows& batch,
                          int64 member_stride, Shared& shared) {
  Rows x = batch.from(split.begin);
  x.count = split.end - split.begin;
  const ConvShape& conv = layer.conv;
  if (conv.kernel_size) {
    const int64 first = int64(split.begin) * layer.outputs * conv.cells();
    conv_wgrad(of_member(layer.dy, member_stride) + first,
               of_member(layer.mask, member_stride) + first, x, conv, FilterTile(conv, split.unit),
               shared.filter_sums);
    return;
  }
  const DenseRows all = {of_member(layer.dy, member_stride), layer.outputs, split.end};
  const DenseRows dy = all.from(split.begin);
  if (is_narrow(layer)) {
    narrow_wgrad(x, dy, split.unit * NARROW_ROWS, shared.narrow_sums);
  } else {
    const WeightTile tile(layer, split.unit);
    const Matrix<Rows> x_and_ones = {x, true};
    gemm_tile<true, false>(x_and_ones, Matrix<DenseRows>{dy}, tile.row, tile.column, shared.gemm);
  }
}

// Returns the offset in the parameter vector of element `number` of a unit; -1 if it is no
// parameter.
DEVICE int parameter_index(const WgradLayer& layer, int unit, int number) {
  if (layer.conv.kernel_size) {
    const FilterTile tile(layer.conv, unit);
    const int weight = tile.weight_index(layer.conv, number), bias = tile.bias_index(number);
    if (weight >= 0) return layer.weight + weight;
    return bias >= 0 && layer.bias >= 0 ? layer.bias + bias : -1;
  }
  int row, column;
  if (is_narrow(layer)) {
    row = unit * NARROW_ROWS + number / NARROW_COLUMNS;
    column = number % NARROW_COLUMNS;
  } else {
    const WeightTile tile(layer, unit);
    row = tile.row * TILE_ROWS + number / TILE_COLUMNS;
    column = tile.column * TILE_COLUMNS + number % TILE_COLUMNS;
  }
  if (row > layer.inputs || column >= layer.outputs) return -1;
  if (row < layer.inputs) return layer.weight + row * layer.outputs + column;
  return layer.bias < 0 ? -1 : layer.bias + column;
}

// Returns, in all threads, whether this block is the last block of its unit that calls this
// function. If so, it can read the partial sums of the other blocks, and the counter is 0 again for
// the next step.
DEVICE bool is_last_split(int* tile_counter, int splits, Shared& shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.finished_splits = atomicAdd(tile_counter, 1);
    if (shared.finished_splits == splits - 1) *tile_counter = 0;
  }
  __syncthreads();
  __threadfence();
  return shared.finished_splits == splits - 1;
}

// Returns the offset in the parameter vector of the first element of a row of partial sums.
DEVICE int first_parameter(const WgradLayer& layer) {
  return layer.bias < 0 ? layer.weight : min(layer.weight, layer.bias);
}

// Returns the sum of the partial sums of a parameter over the splits `first`, `first + step`, ..
DEVICE real sum_of_splits(const WgradLayer& layer, int64 member_stride, int parameter,
                          int first = 0, int step = 1) {
  const real* const sums =
      of_member(layer.partial_sums, member_stride) + parameter - first_parameter(layer);
  real total = 0;
#pragma unroll 16  // loads that are under way together
  for (int split = first; split < layer.split.splits; split += step)
    total += sums[int64(split) * layer.split.parameters];
  return total;
}

// Adds the partial sums of all splits of a filter tile. It has few parameters, so each warp adds a
// part of the splits. The sums of the warps are in shared.filter_sums afterwards.
DEVICE void add_splits_of_filters(const WgradLayer& layer, int unit, int64 member_stride,
                                  Shared& shared) {
  const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  const int parameter = lane < FILTER_TILE_SUMS ? parameter_index(layer, unit, lane) : -1;
  real total = 0;
  if (parameter >= 0) total = sum_of_splits(layer, member_stride, parameter, warp, TILE_WARPS);
  __syncthreads();  // all threads have read shared.finished_splits, in the same memory
  if (lane < FILTER_TILE_SUMS) shared.filter_sums[warp * FILTER_TILE_SUMS + lane] = total;
  __syncthreads();
}

// Updates the parameters of a unit by their gradients, or, with several splits, stores partial sums
// and leaves the update to the last block of the unit. `l2` and `diverged` as in
// `apply_with_penalty`.
DEVICE void apply_gradient(const WgradLayer& layer, const Split& split, const Updater& updater,
                           real l2, int* diverged, int64 member_stride, Shared& shared) {
  const int splits = layer.split.splits, parameters = layer.split.parameters;
  const bool is_convolution = layer.conv.kernel_size, narrow = is_narrow(layer);
  const int numbers = is_convolution ? FILTER_TILE_SUMS : narrow ? NARROW_SIZE : TILE_SIZE;
  const real* const warp_sums = reinterpret_cast<const real*>(&shared);  // a member of the union
  real* const partial_sums = of_member(layer.partial_sums, member_stride) - first_parameter(layer);
  const auto sum_of_warps = [&](int number) {
    real total = 0;
    for (int warp = 0; warp < TILE_WARPS; warp++) total += warp_sums[warp * numbers + number];
    return total;
  };
#pragma unroll 1
  for (int number = threadIdx.x; number < numbers; number += TILE_THREADS) {
    const int parameter = parameter_index(layer, split.unit, number);
    if (parameter < 0) continue;
    const real total = sum_of_warps(number);
    if (splits == 1)
      apply_with_penalty(layer, updater, l2, parameter, total, diverged);
    else
      partial_sums[int64(split.number) * parameters + parameter] = total;
  }
  if (splits == 1) return;
  int* const tile_counters = of_member(layer.tile_counters, member_stride);
  if (!is_last_split(&tile_counters[split.unit], splits, shared)) return;
  if (is_convolution) add_splits_of_filters(layer, split.unit, member_stride, shared);
#pragma unroll 1
  for (int number = threadIdx.x; number < numbers; number += TILE_THREADS) {
    const int parameter = parameter_index(layer, split.unit, number);
    if (parameter < 0) continue;
    const real grad = is_convolution ? sum_of_warps(number)
                                     : sum_of_splits(layer, member_stride, parameter);
    apply_with_penalty(layer, updater, l2, parameter, grad, diverged);
  }
}

// Updates the parameters of a layer whose partial sums are complete. `block` counts its blocks.
DEVICE void apply_complete_sums(const WgradLayer& layer, int block, const Updater& updater, real l2,
                                int* diverged, int64 member_stride) {
  const int threads = layer.split.units * layer.split.splits * TILE_THREADS;
  const int count = layer.split.parameters - (layer.bias < 0 ? layer.outputs : 0);
  // Lanes that add the sums of a parameter.
  const int lanes = threads / WARP_SIZE >= count ? WARP_SIZE : 1;
  const int thread = block * TILE_THREADS + threadIdx.x, lane = threadIdx.x % lanes;
#pragma unroll 1
  for (int i = thread / lanes; i < count; i += threads / lanes) {
    const int parameter = first_parameter(layer) + i;
    real grad = sum_of_splits(layer, member_stride, parameter, lane, lanes);
    if (lanes == WARP_SIZE) grad = warp_reduce_sum(grad);  // all lanes of a warp have the same i
    if (lane == 0) apply_with_penalty(layer, updater, l2, parameter, grad, diverged);
  }
}

// Grid: one block for the losses, then the blocks of all layers; once per member. `rows` is
// chunk.rows; it is a parameter because __restrict__ has no effect on members of structs. `l2` is
// the factor of the L2 penalty, 0 without one; the penalty itself is in state.image_losses already
// (penalty.cu).
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
    wgrad_update(const __grid_constant__ WgradLayers layers, const PIXEL* __restrict__ images,
                 const int* __restrict__ rows, real pixel_shift, Chunk chunk, StepState state,
                 real* __restrict__ weights, real* __restrict__ state0, real* __restrict__ state1,
                 RuleSettings settings, real l2, int64 member_stride) {
  __shared__ Shared shared;
  state = of_member(state, member_stride);
  const int count = state.batch[0], block = int(blockIdx.x) - 1;
  if (count == 0) return;  // the steps of this member are done
  if (block < 0) {
    finish_step(of_member(chunk, member_stride), state, count, shared.results);
    return;
  }
  const WgradLayer& layer = layers.of_block(block);
  const auto updater = [&] {  // not before it is needed, so that it occupies no registers
    const Rates rates = {state.rates[0], state.rates[1], state.rates[2]};
    return Updater{of_member(weights, member_stride), of_member(state0, member_stride),
                   of_member(state1, member_stride), settings, rates};
  };
  int* const diverged = of_member(chunk.diverged, member_stride);
  if (layer.partial_sums && !layer.tile_counters) {
    apply_complete_sums(layer, block - layer.first_block, updater(), l2 / real(count), diverged,
                        member_stride);
    return;
  }
  const Split split(layer, block - layer.first_block, count);
  if (layer.x) {
    const DenseRows x = {of_member(layer.x, member_stride), layer.inputs, count};
    unit_gradient(layer, split, x, member_stride, shared);
  } else {
    const int* const batch_rows = of_member(rows, member_stride) + state.batch[1];
    const GatheredRows<PIXEL> x = {images, batch_rows, pixel_shift, layer.inputs, count};
    unit_gradient(layer, split, x, member_stride, shared);
  }
  apply_gradient(layer, split, updater(), l2 / real(count), diverged, member_stride, shared);
}

// The linear layers of fused_cnn.cu and the loss, forward and backward, for the images of a
// cluster.
//
// Numbers of all images are adjacent in shared memory, so that one instruction reads them.
#pragma once

#include "fused_cnn.cuh"
#include "image_loss.cuh"

constexpr int TERM_LANES = 8;  // lanes that divide a sum in sums_by_lanes()

// Weights of the first layer: of the rows that begin at first_row(), and of the columns
// lane % COLUMN_LANES and COLUMN_LANES further.
typedef real FirstWeights[ROWS][COLUMNS];

// Returns the first row of the weights of this thread.
DEVICE int first_row() { return int(threadIdx.x) / COLUMN_LANES * ROWS; }

DEVICE void load_first_weights(const real* weight, const Place& place, FirstWeights& weights) {
  const int lane = threadIdx.x % COLUMN_LANES;
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
      const int row = first_row() + i, column = lane + j * COLUMN_LANES;
      const bool exists = row < INPUTS && place.has(column);
      weights[i][j] = exists ? weight[row * FIRST + place.first_column() + column] : real(0);
    }
}

// Calls store(item, sum) for each of `items` items, with the sum of term(item, k) over `terms`
// values of k. TERM_LANES lanes divide a sum.
template <int items, int terms, class Term, class Store>
DEVICE void sums_by_lanes(const Term& term, const Store& store) {
  for (int begin = 0; begin < items; begin += THREADS / TERM_LANES) {
    const int item = begin + int(threadIdx.x) / TERM_LANES, place = min(item, items - 1);
    real sum = 0;
#pragma unroll
    for (int first = 0; first < terms; first += TERM_LANES) {
      const int k = first + threadIdx.x % TERM_LANES;
      if (k < terms) sum += term(place, k);
    }
    for (int offset = TERM_LANES / 2; offset > 0; offset /= 2)
      sum += __shfl_xor_sync(FULL_MASK, sum, offset);
    if (item < items && threadIdx.x % TERM_LANES == 0) store(item, sum);
  }
  __syncthreads();
}

// Sets shared.first to the outputs of this block's columns.
DEVICE void forward_first(const FirstWeights& weights, Activation activation, const Place& place,
                          Shared& shared) {
  const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  real sums[COLUMNS * IMAGES] = {};
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const Numbers x = shared.stage.forward.x[first_row() + i];
#pragma unroll
    for (int j = 0; j < COLUMNS * IMAGES; j++) sums[j] += weights[i][j / IMAGES] * x.of[j % IMAGES];
  }
  // Lanes 16 to 31 keep the second column, and lanes 8 to 15 of each half the last two images.
  reduce_scatter_step<8>(sums, 16);
  reduce_scatter_step<4>(sums, 8);
  Numbers& column_sums =
      shared.stage.forward.sums[warp][lane % COLUMN_LANES + lane / 16 * COLUMN_LANES];
  column_sums.of[lane / 8 % 2 * 2] = sums[0];
  column_sums.of[lane / 8 % 2 * 2 + 1] = sums[1];
  __syncthreads();
  for (int i = threadIdx.x; i < COLUMNS_PER_BLOCK * IMAGES; i += THREADS) {
    const int column = i / IMAGES, image = i % IMAGES;
    real total = shared.first_bias[column];
#pragma unroll
    for (int other = 0; other < WARPS; other++)
      total += shared.stage.forward.sums[other][column].of[image];
    shared.first[column].of[image] = place.has(column) ? activate(activation, total) : real(0);
  }
  __syncthreads();
}

// Sends the partial sums of the second layer to all blocks.
DEVICE void send_second(const Place& place, Shared& shared) {
  for (int i = threadIdx.x; i < SECOND * IMAGES; i += THREADS) {
    const int output = i / IMAGES, image = i % IMAGES;
    real sum = 0;
#pragma unroll
    for (int k = 0; k < USED_COLUMNS; k++)
      sum += shared.first[k].of[image] * shared.second_weight[k * SECOND + output];
    real* const target = &shared.buffer.second_sums[place.rank][output].of[image];
#pragma unroll
    for (int rank = 0; rank < CLUSTER_BLOCKS; rank++) *in_block(target, rank) = sum;
  }
}

// Sets the logits from the partial sums of the second layer.
DEVICE void forward_last(const CnnLayers& layers, Shared& shared) {
  Numbers* const y = LAYERS == 3 ? shared.second : shared.logits;
  const Activation activation = LAYERS == 3 ? layers.linear[1].activation : IDENTITY;
  for (int i = threadIdx.x; i < SECOND * IMAGES; i += THREADS) {
    const int output = i / IMAGES, image = i % IMAGES;
    real total = shared.second_bias[output];
#pragma unroll
    for (int rank = 0; rank < CLUSTER_BLOCKS; rank++)
      total += shared.buffer.second_sums[rank][output].of[image];
    y[output].of[image] = activate(activation, total);
  }
  __syncthreads();
  if constexpr (LAYERS == 3)
    sums_by_lanes<CLASSES * IMAGES, SECOND>(
        [&](int i, int k) {
          return shared.second[k].of[i % IMAGES] * shared.third_weight[k * CLASSES + i / IMAGES];
        },
        [&](int i, real sum) {
          shared.logits[i / IMAGES].of[i % IMAGES] = sum + shared.third_bias[i / IMAGES];
        });
}

// Sets dlogits to the gradient of the mean loss of `images` images, and losses and correctness.
DEVICE void compute_losses(const Place& place, int images, Shared& shared) {
  const int image = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  if (image < IMAGES) {
    const real logit = shared.logits[min(lane, CLASSES - 1)].of[image];
    const ImageLoss result = image_loss<LOSS>(logit, CLASSES, shared.labels[image]);
    const bool exists = image < place.count;
    if (lane < CLASSES)
      shared.dlogits[lane].of[image] = exists ? result.dlogit / real(images) : real(0);
    if (lane == 0) {
      shared.losses[image] = result.loss;
      shared.correct[image] = result.is_correct;
    }
  }
  __syncthreads();
}

// Sets dsecond and dfirst.
DEVICE void backward_last(const CnnLayers& layers, Shared& shared) {
  if constexpr (LAYERS == 3) {
    for (int i = threadIdx.x; i < SECOND * IMAGES; i += THREADS) {
      const int k = i / IMAGES, image = i % IMAGES;
      real sum = 0;
#pragma unroll
      for (int output = 0; output < CLASSES; output++)
        sum += shared.dlogits[output].of[image] * shared.third_weight[k * CLASSES + output];
      shared.dsecond[k].of[image] =
          sum * derivative(layers.linear[1].activation, shared.second[k].of[image]);
    }
    __syncthreads();
  }
  const Numbers* const dy = LAYERS == 3 ? shared.dsecond : shared.dlogits;
  sums_by_lanes<COLUMNS_PER_BLOCK * IMAGES, SECOND>(
      [&](int i, int output) {
        return dy[output].of[i % IMAGES] * shared.second_weight[i / IMAGES * SECOND + output];
      },
      [&](int i, real sum) {
        const real y = shared.first[i / IMAGES].of[i % IMAGES];
        shared.dfirst[i / IMAGES].of[i % IMAGES] = sum * derivative(layers.linear[0].activation, y);
      });
}

// Sends the partial sums of the gradient of the input to the blocks of each image.
DEVICE void send_input_gradient(const FirstWeights& weights, const Place& place, Shared& shared) {
  const int lane = threadIdx.x % COLUMN_LANES;
  const Numbers dy[COLUMNS] = {shared.dfirst[lane], shared.dfirst[lane + COLUMN_LANES]};
  real sums[ROWS * IMAGES];
#pragma unroll
  for (int i = 0; i < ROWS * IMAGES; i++)
    sums[i] = weights[i / IMAGES][0] * dy[0].of[i % IMAGES] +
              weights[i / IMAGES][1] * dy[1].of[i % IMAGES];
  group_reduce_scatter<ROWS * IMAGES, COLUMN_LANES / 2>(sums);  // each lane keeps one row
  const int k = first_row() + lane;
  if (k >= INPUTS) return;
  real* const target = &shared.stage.dx[place.rank][k];
#pragma unroll
  for (int rank = 0; rank < CLUSTER_BLOCKS; rank++)
    *in_block(target, rank) = sums[rank / BLOCKS_PER_IMAGE];
}

// Stores the outputs and gradients of a linear layer, with `width` of them per image, for this
// block's columns from `first_column` on.
DEVICE void store_units(const Numbers* numbers, int columns, int first_column, int width,
                        const Place& place, real* target) {
  for (int i = threadIdx.x; i < columns * place.count; i += THREADS) {
    const int image = i / columns, column = i % columns;
    target[int64(place.first + image) * width + first_column + column] = numbers[column].of[image];
  }
}

// Stores what wgrad_update.cu reads of the linear layers. The first block stores what all blocks
// have.
DEVICE void store_linear(const CnnLayers& layers, const Place& place, int64 member_stride,
                         const Shared& shared) {
  const auto store = [&](const Numbers* numbers, int columns, int first_column, int width,
                         real* target) {
    store_units(numbers, columns, first_column, width, place, of_member(target, member_stride));
  };
  const int first_column = place.first_column();
  const int columns = max(0, min(USED_COLUMNS, FIRST - first_column));
  store(shared.first, columns, first_column, FIRST, layers.linear[0].y);
  store(shared.dfirst, columns, first_column, FIRST, layers.linear[0].dy);
  if (place.rank > 0) return;
  if constexpr (LAYERS == 3) {
    store(shared.second, SECOND, 0, SECOND, layers.linear[1].y);
    store(shared.dsecond, SECOND, 0, SECOND, layers.linear[1].dy);
  }
  store(shared.dlogits, CLASSES, 0, CLASSES, layers.linear[LAYERS - 1].dy);
}

// Stores the loss and correctness of each image, which all blocks have.
DEVICE void store_losses(const Place& place, int64 member_stride, real* losses, int* correct,
                         const Shared& shared) {
  const int image = threadIdx.x;
  if (place.rank > 0 || image >= place.count) return;
  of_member(losses, member_stride)[place.first + image] = shared.losses[image];
  of_member(correct, member_stride)[place.first + image] = shared.correct[image];
}

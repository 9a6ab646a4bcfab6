// What fused_classifier.cu computes, by a cluster of CLUSTER_BLOCKS blocks for IMAGES images: two or
// three linear layers, the loss, and the gradients back through these layers and the convolution
// before them.
//
// One block per image would leave half of a large GPU idle and read all weights for one image. A
// cluster reads each weight once for IMAGES images, and each block reads only its part:
//
//   first layer     block r has a part of the columns of W, in registers: it computes these outputs,
//                   and partial sums over these columns of the gradient of the input
//   second layer    block r has the same part of the rows of W: it computes partial sums over these
//                   rows of the outputs, and the gradient of its outputs of the first layer
//   third layer     every block computes all of it, bit-identically
//   convolution     CLUSTER_BLOCKS / IMAGES blocks divide the rows of an image
//
// So blocks exchange numbers twice, through distributed shared memory: the partial sums of the second
// layer, which every block needs, and those of the gradient of the convolution. Each receiver adds
// them in the order of the blocks. After each exchange is a cluster barrier. Other blocks write to a
// buffer only once, and after a barrier if it had another use before, so the exchanges need no
// further barriers.
//
// Numbers of all images are adjacent in shared memory, so that one instruction reads them.
//
// Layout: as in fused_classifier.cu. Results are stored between arriving and waiting at the second
// barrier, because a barrier waits for stores that precede it.
// Cost per image: as in fused_classifier.cu for linear layers; per filter, channel and pixel of the
// convolution, 0.67 to 0.71 · K² multiply-adds with the sizes of the recipes.
// Options: -DLOSS as in losses.cu; -DLAYERS=2 or 3; -DINPUTS (up to THREADS) and -DFIRST outputs (up
// to CLUSTER_BLOCKS · COLUMNS_PER_BLOCK) of the first layer, -DSECOND of the second; -DCLASSES (up to
// WARP_SIZE), the outputs of the last; -DIMAGES per cluster; -DCLUSTER_BLOCKS; -DCOLUMNS_PER_BLOCK;
// -DMAX_LAYERS; the options of conv_input_strips.cuh.
#include "common.cuh"
#include "conv_input_strips.cuh"
#include "fused_classifier.cuh"
#include "image_loss.cuh"

constexpr int WARPS = THREADS / WARP_SIZE;
// The lanes of a warp divide the columns of a block, COLUMN_LANES apart, and groups of ROWS rows.
constexpr int COLUMN_LANES = 8, ROWS = 8, COLUMNS = COLUMNS_PER_BLOCK / COLUMN_LANES;
static_assert(COLUMNS == 2 && IMAGES == 4, "forward_first() exchanges 2·4 sums among 4 lanes");
static_assert(ROWS * THREADS / COLUMN_LANES >= INPUTS && INPUTS <= THREADS, "a row per thread");
constexpr int USED_COLUMNS = (FIRST + CLUSTER_BLOCKS - 1) / CLUSTER_BLOCKS;  // of the first block
constexpr int BLOCKS_PER_IMAGE = CLUSTER_BLOCKS / IMAGES;
constexpr int TERM_LANES = 8;  // lanes that divide a sum in sums_by_lanes()

// One number for each image.
struct alignas(16) Numbers {
  real of[IMAGES];
};

// Weights of the first layer: of the rows that begin at first_row(), and of the columns
// lane % COLUMN_LANES and COLUMN_LANES further.
typedef real FirstWeights[ROWS][COLUMNS];

struct Shared {
  union {  // one after the other
    struct {
      Numbers x[THREADS];
      Numbers sums[WARPS][COLUMNS_PER_BLOCK];
    } forward;
    real dx[CLUSTER_BLOCKS][INPUTS];  // from each block: partial sums for the image of this block
    real maps[FILTERS * MAP_STRIDE];
  } stage;
  Numbers second_sums[CLUSTER_BLOCKS][SECOND];  // from each block
  real filters[FILTERS * FILTER_STRIDE];
  real second_weight[COLUMNS_PER_BLOCK * SECOND], first_bias[COLUMNS_PER_BLOCK];
  real second_bias[SECOND], third_bias[CLASSES];
  real third_weight[LAYERS == 3 ? SECOND * CLASSES : 1];
  // Outputs of the activations, and gradients of the pre-activations.
  Numbers y1[COLUMNS_PER_BLOCK], dy1[COLUMNS_PER_BLOCK], y2[SECOND], dy2[SECOND];
  Numbers logits[CLASSES], dlogits[CLASSES];
  real losses[IMAGES];
  int labels[IMAGES], correct[IMAGES];
};

// The place of a block.
struct Place {
  int rank;          // of the block in its cluster
  int first, count;  // images of the cluster

  DEVICE int first_column() const { return rank * USED_COLUMNS; }
  // Returns whether a column of the block exists.
  DEVICE bool has(int column) const {
    return column < USED_COLUMNS && first_column() + column < FIRST;
  }
};

// Returns the address in block `rank` of the cluster of a number in shared memory.
DEVICE real* in_block(real* number, int rank) {
  return static_cast<real*>(__cluster_map_shared_rank(number, unsigned(rank)));
}

// Returns the first row of the weights of this thread.
DEVICE int first_row() { return int(threadIdx.x) / COLUMN_LANES * ROWS; }

// Copies `count` parameters from offset `offset` on; elements from `available` on, and all if the
// offset is negative, are 0.
template <int count>
DEVICE void copy_or_zero(const real* parameters, int offset, int available, real* target) {
#pragma unroll  // without a loop, the loads of all copies are under way together
  for (int begin = 0; begin < count; begin += THREADS) {
    const int i = begin + threadIdx.x;
    if (i < count) target[i] = offset >= 0 && i < available ? parameters[offset + i] : real(0);
  }
}

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

// Copies the inputs of all images, the parameters except the first weights and filters, and labels.
DEVICE void load_shared(const ClassifierLayers& layers, const real* x, const real* parameters,
                        const int* labels, const int* rows, const Place& place, Shared& shared) {
  const int k = threadIdx.x, column = place.first_column();
#pragma unroll
  for (int image = 0; image < IMAGES; image++)
    shared.stage.forward.x[k].of[image] =
        k < INPUTS && image < place.count ? x[image * INPUTS + k] : real(0);
  const ClassifierLayer *const first = layers.linear, *const second = first + 1;
  const int columns = max(0, min(USED_COLUMNS, FIRST - column));
  copy_or_zero<COLUMNS_PER_BLOCK * SECOND>(parameters, second->weight + column * SECOND,
                                           columns * SECOND, shared.second_weight);
  copy_or_zero<COLUMNS_PER_BLOCK>(parameters, first->bias < 0 ? -1 : first->bias + column, columns,
                                  shared.first_bias);
  copy_or_zero<SECOND>(parameters, second->bias, SECOND, shared.second_bias);
  if constexpr (LAYERS == 3) {
    constexpr int weights = SECOND * CLASSES;
    copy_or_zero<weights>(parameters, second[1].weight, weights, shared.third_weight);
    copy_or_zero<CLASSES>(parameters, second[1].bias, CLASSES, shared.third_bias);
  }
  if (k < IMAGES) shared.labels[k] = k < place.count ? labels[rows[k]] : 0;
  __syncthreads();
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

// Sets y1 to the outputs of this block's columns.
DEVICE void forward_first(const FirstWeights& weights, Activation activation, const Place& place,
                          Shared& shared) {
  const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  real sums[COLUMNS * IMAGES] = {};
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const Numbers x = shared.stage.forward.x[first_row() + i];
#pragma unroll
    for (int j = 0; j < COLUMNS * IMAGES; j++)
      sums[j] += weights[i][j / IMAGES] * x.of[j % IMAGES];
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
    shared.y1[column].of[image] = place.has(column) ? activate(activation, total) : real(0);
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
      sum += shared.y1[k].of[image] * shared.second_weight[k * SECOND + output];
    real* const target = &shared.second_sums[place.rank][output].of[image];
#pragma unroll
    for (int rank = 0; rank < CLUSTER_BLOCKS; rank++) *in_block(target, rank) = sum;
  }
}

// Sets the logits from the partial sums of the second layer.
DEVICE void forward_last(const ClassifierLayers& layers, Shared& shared) {
  Numbers* const y = LAYERS == 3 ? shared.y2 : shared.logits;
  const Activation activation = LAYERS == 3 ? layers.linear[2].activation : IDENTITY;
  for (int i = threadIdx.x; i < SECOND * IMAGES; i += THREADS) {
    const int output = i / IMAGES, image = i % IMAGES;
    real total = shared.second_bias[output];
#pragma unroll
    for (int rank = 0; rank < CLUSTER_BLOCKS; rank++)
      total += shared.second_sums[rank][output].of[image];
    y[output].of[image] = activate(activation, total);
  }
  __syncthreads();
  if constexpr (LAYERS == 3)
    sums_by_lanes<CLASSES * IMAGES, SECOND>(
        [&](int i, int k) {
          return shared.y2[k].of[i % IMAGES] * shared.third_weight[k * CLASSES + i / IMAGES];
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

// Sets dy2 and dy1.
DEVICE void backward_last(const ClassifierLayers& layers, Shared& shared) {
  if constexpr (LAYERS == 3) {
    for (int i = threadIdx.x; i < SECOND * IMAGES; i += THREADS) {
      const int k = i / IMAGES, image = i % IMAGES;
      real sum = 0;
#pragma unroll
      for (int output = 0; output < CLASSES; output++)
        sum += shared.dlogits[output].of[image] * shared.third_weight[k * CLASSES + output];
      shared.dy2[k].of[image] = sum * derivative(layers.linear[2].activation, shared.y2[k].of[image]);
    }
    __syncthreads();
  }
  const Numbers* const dy = LAYERS == 3 ? shared.dy2 : shared.dlogits;
  sums_by_lanes<COLUMNS_PER_BLOCK * IMAGES, SECOND>(
      [&](int i, int output) {
        return dy[output].of[i % IMAGES] * shared.second_weight[i / IMAGES * SECOND + output];
      },
      [&](int i, real sum) {
        const real y = shared.y1[i / IMAGES].of[i % IMAGES];
        shared.dy1[i / IMAGES].of[i % IMAGES] = sum * derivative(layers.linear[1].activation, y);
      });
}

// Sends the partial sums of the gradient of the input to the blocks of each image.
DEVICE void send_input_gradient(const FirstWeights& weights, const Place& place, Shared& shared) {
  const int lane = threadIdx.x % COLUMN_LANES;
  const Numbers dy[COLUMNS] = {shared.dy1[lane], shared.dy1[lane + COLUMN_LANES]};
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

// Stores what wgrad_update.cu reads. The first block stores what all blocks have.
DEVICE void store_results(const ClassifierLayers& layers, const Place& place, int64 member_stride,
                          const Shared& shared, real* dlogits, real* losses, int* correct) {
  const ClassifierLayer& second = layers.linear[1];
  const int columns = max(0, min(USED_COLUMNS, FIRST - place.first_column()));
  store_units(shared.y1, columns, place.first_column(), FIRST, place,
              of_member(second.x, member_stride));
  store_units(shared.dy1, columns, place.first_column(), FIRST, place,
              of_member(second.dx, member_stride));
  if (place.rank > 0) return;
  if constexpr (LAYERS == 3) {
    const ClassifierLayer& third = layers.linear[2];
    store_units(shared.y2, SECOND, 0, SECOND, place, of_member(third.x, member_stride));
    store_units(shared.dy2, SECOND, 0, SECOND, place, of_member(third.dx, member_stride));
  }
  store_units(shared.dlogits, CLASSES, 0, CLASSES, place, of_member(dlogits, member_stride));
  const int image = threadIdx.x;
  if (image >= place.count) return;
  of_member(losses, member_stride)[place.first + image] = shared.losses[image];
  of_member(correct, member_stride)[place.first + image] = shared.correct[image];
}

// Sets the gradients of the outputs and of the inputs of the convolution. `y` and `mask` are the
// output of this thread's cell and its tie mask.
DEVICE void backward_convolution(const ClassifierLayers& layers, const Place& place, real y,
                                 unsigned mask, int64 member_stride, Shared& shared) {
  const ClassifierConv& conv = layers.convolutions[0];
  const int image = place.rank / BLOCKS_PER_IMAGE, part = place.rank % BLOCKS_PER_IMAGE;
  const int cell = threadIdx.x;
  real gradient = 0;
  if (cell < INPUTS) {
#pragma unroll
    for (int rank = 0; rank < CLUSTER_BLOCKS; rank++) gradient += shared.stage.dx[rank][cell];
    gradient *= derivative(layers.linear[0].activation, y);
  }
  __syncthreads();  // the maps overwrite the partial sums
  if (cell < INPUTS) set_map_of_cell(cell, gradient, mask, shared.stage.maps);
  __syncthreads();
  const int64 at = place.first + image;
  if (part == 0 && cell < INPUTS)
    of_member(layers.linear[0].dx, member_stride)[at * INPUTS + cell] = gradient;
  constexpr int PIXELS = CHANNELS * HEIGHT * WIDTH;
  conv_input_strips(shared.stage.maps, shared.filters, part, BLOCKS_PER_IMAGE, conv.activation,
                    of_member(conv.x, member_stride) + at * PIXELS,
                    of_member(conv.dx, member_stride) + at * PIXELS);
}

// The arguments are those of fused_classifier(), with two or three linear layers and one convolution.
// Grid: images / IMAGES, rounded up, clusters, once per member.
// At most 128 registers.
extern "C" __global__ void __cluster_dims__(CLUSTER_BLOCKS, 1, 1) __launch_bounds__(THREADS, 1)
    clustered_classifier(const __grid_constant__ ClassifierLayers layers,
                         const real* __restrict__ parameters, const int* __restrict__ labels,
                         const int* __restrict__ rows, Batch batch, int64 member_stride,
                         real* dlogits, real* losses, int* correct) {
  __shared__ Shared shared;
  parameters = of_member(parameters, member_stride);
  batch = of_member(batch, member_stride);
  const int cluster = blockIdx.x / CLUSTER_BLOCKS, images = batch.size();
  const Place place = {int(blockIdx.x) % CLUSTER_BLOCKS, cluster * IMAGES,
                       min(IMAGES, images - cluster * IMAGES)};
  __cluster_barrier_arrive_relaxed();  // releases no writes
  FirstWeights weights;
  load_first_weights(parameters + layers.linear[0].weight, place, weights);
  if (place.count <= 0) {  // in all blocks of the cluster
    __cluster_barrier_wait();
    return;
  }
  const int64 first = int64(place.first) * INPUTS;
  const real* const x = of_member(layers.linear[0].x, member_stride) + first;
  const uint8* const masks = of_member(layers.convolutions[0].mask, member_stride);
  const int image = place.rank / BLOCKS_PER_IMAGE, cell = threadIdx.x;
  const bool has_image = image < place.count, has_cell = has_image && cell < INPUTS;
  const real y = has_cell ? x[image * INPUTS + cell] : real(0);
  const unsigned mask = POOL == 1 ? 1 : has_cell ? masks[first + image * INPUTS + cell] : 0;
  rows = of_member(rows, member_stride) + batch.first() + place.first;
  load_shared(layers, x, parameters, labels, rows, place, shared);

  forward_first(weights, layers.linear[1].activation, place, shared);
  __cluster_barrier_wait();  // all blocks have started, so their shared memory can be written
  send_second(place, shared);
  __cluster_barrier_arrive();
  copy_filters(parameters + layers.convolutions[0].weight, shared.filters);
  __cluster_barrier_wait();
  forward_last(layers, shared);
  compute_losses(place, images, shared);
  backward_last(layers, shared);
  send_input_gradient(weights, place, shared);
  __cluster_barrier_arrive();
  store_results(layers, place, member_stride, shared, dlogits, losses, correct);
  __cluster_barrier_wait();
  if (has_image)  // in all threads of the block
    backward_convolution(layers, place, y, mask, member_stride, shared);
}

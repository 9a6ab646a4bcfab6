// Two linear layers and the loss, forward and backward to both pre-activations, in one launch of a
// graph step. Needs thread block clusters (compute capability 9.0 or higher).
//
// The first layer has almost all of the arithmetic, and too few outputs to keep a large GPU busy. So
// the BLOCKS blocks of a cluster divide the inputs (split-K). What follows depends on whole sums, and
// has little arithmetic for each image. So the blocks then divide the images, and one warp computes
// an image to its end:
//
//                   inputs                                     images of the cluster
//            +---------+---------+----                        +-----------+
//   images   | block 0 | block 1 | ..     x W1, partial sums  |  block 0  | IMAGES_PER_BLOCK
//   of the   |         |         |       ------------------>  +-----------+
//   cluster  |         |         |        to shared memory    |  block 1  |
//            +---------+---------+----    of the block of     +-----------+
//                                         the image                ..
//
//   sums of the blocks, in their order -> hidden units -> logits -> loss -> dlogits -> dhidden
//
// Within a block, a thread computes a tile of 8 images × 4 columns, so that 12 elements of shared
// memory serve 32 multiply-adds, and SPLITS threads divide the inputs of a tile.
//
// The sums are stored asynchronously, and a barrier of the receiving block counts them. A cluster
// barrier would make each block wait until its own stores are visible to the whole GPU. No block ends
// before it has received all of its sums, so its shared memory exists as long as others store in it.
//
// Layout: x (B, INPUTS), W1 (INPUTS, HIDDEN), W2 (HIDDEN, OUTPUTS), all row-major.
// Cost per image: INPUTS·HIDDEN + 2·HIDDEN·OUTPUTS multiply-adds. A cluster reads each weight once,
// W2 once per block.
// Options: -DINPUTS, -DHIDDEN (up to THREADS) and -DOUTPUTS (up to WARP_SIZE); -DACTIVATION of the
// hidden units; -DLOSS as in losses.cu; -DWEIGHTED=1 if the examples have weights, else 0; -DGATHER=1
// and -DINPUT as in stage_input.cuh; -DBLOCKS=8 per cluster; -DIMAGES_PER_BLOCK=1, 2 or 4; -DSPLITS;
// -DTHREADS=256 per block.
#include "common.cuh"
#include "image_loss.cuh"
#include "mbarrier.cuh"
#include "stage_input.cuh"

constexpr int IMAGES = BLOCKS * IMAGES_PER_BLOCK;                   // of a cluster
constexpr int BLOCK_INPUTS = (INPUTS + BLOCKS - 1) / BLOCKS;        // of a block
constexpr int SPLIT_INPUTS = (BLOCK_INPUTS + SPLITS - 1) / SPLITS;  // of a thread
constexpr int TILE_IMAGES = 8, TILE_COLUMNS = 4;                    // of a thread
constexpr int COLUMN_TILES = (HIDDEN + TILE_COLUMNS - 1) / TILE_COLUMNS;
constexpr int TILES = IMAGES / TILE_IMAGES * COLUMN_TILES, COLUMNS = COLUMN_TILES * TILE_COLUMNS;
constexpr int WARPS = THREADS / WARP_SIZE;
constexpr int MIN_BLOCKS = sizeof(real) == 8 ? 1 : 2;  // resident blocks per multiprocessor

static_assert(TILES * SPLITS <= THREADS, "a thread computes at most one tile");
static_assert(IMAGES_PER_BLOCK <= WARPS, "a warp computes at most one image");

struct alignas(16) Shared {
  union {
    struct {
      real x[BLOCK_INPUTS][IMAGES + 4];  // the padding prevents bank conflicts in ImageLoader
      real weight[BLOCK_INPUTS][COLUMNS];
    } factors;
    real split_sums[SPLITS][IMAGES][COLUMNS];  // after the last product
  };
  real block_sums[BLOCKS][IMAGES_PER_BLOCK][COLUMNS];  // received from all blocks of the cluster
  Mbarrier received;                                   // counts the bytes of block_sums
  real weight2[HIDDEN * OUTPUTS], bias1[HIDDEN], bias2[OUTPUTS];
  real hidden[IMAGES_PER_BLOCK][HIDDEN], dlogits[IMAGES_PER_BLOCK][OUTPUTS];
};

// Offsets in the parameter vector; that of a bias is -1 if the layer has none.
struct MlpParameters {
  int weight1, bias1, weight2, bias2;
};

// A thread loads all that it copies to shared memory into registers first, so that its loads are under
// way together.

// The rows of W1 for this block, of which `inputs` exist. Each thread has elements of one column.
struct WeightLoader {
  static constexpr int STRIDE = THREADS / HIDDEN;  // rows that the threads copy at a time
  static constexpr int count = (BLOCK_INPUTS + STRIDE - 1) / STRIDE;
  real loaded[count];
  int first = threadIdx.x / HIDDEN, column = threadIdx.x % HIDDEN;

  DEVICE WeightLoader(const real* weight, int inputs) {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int k = first + i * STRIDE;
      loaded[i] = first < STRIDE && k < inputs ? weight[k * HIDDEN + column] : real(0);
    }
  }

  DEVICE void store(Shared& shared) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int k = first + i * STRIDE;
      if (first < STRIDE && (i < count - 1 || k < BLOCK_INPUTS))
        shared.factors.weight[k][column] = loaded[i];
    }
  }
};

// The inputs of this block from `begin` on, of which `inputs` exist, for the images of the cluster. A
// warp copies 8 inputs of 4 images at a time, which are different banks of shared memory. After the
// last image, repeats it. After the last input, the weights are 0.
struct ImageLoader {
  static constexpr int QUADS = IMAGES / 4, STRIDE = WARPS / QUADS * 8;
  static constexpr int count = (BLOCK_INPUTS + STRIDE - 1) / STRIDE;
  StageRows::Element loaded[count];
  int image, first;  // image, and first input of this thread

  static_assert(WARPS % QUADS == 0, "a thread copies inputs of one image");

  DEVICE ImageLoader(const StageRows& images, int begin, int inputs) {
    const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    image = warp % QUADS * 4 + lane % 4;
    first = warp / QUADS * 8 + lane / 4;
    const auto* const next = images.address(min(image, images.count - 1), begin + first);
#pragma unroll
    for (int i = 0; i < count; i++) {
      loaded[i] = 0;
      if (first + i * STRIDE < inputs) loaded[i] = next[i * STRIDE];
    }
  }

  DEVICE void store(const StageRows& images, Shared& shared) const {
#pragma unroll
    for (int i = 0; i < count; i++)
      if (i < count - 1 || first + i * STRIDE < BLOCK_INPUTS)
        shared.factors.x[first + i * STRIDE][image] = images.value(loaded[i]);
  }
};

// `size` parameters from an offset on; 0 if the offset is negative.
template <int size>
struct ParameterLoader {
  static constexpr int count = (size + THREADS - 1) / THREADS;
  real loaded[count];

  DEVICE ParameterLoader(const real* parameters, int offset) {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int place = threadIdx.x + i * THREADS;
      loaded[i] = offset >= 0 && place < size ? parameters[offset + place] : real(0);
    }
  }

  DEVICE void store(real (&target)[size]) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int place = threadIdx.x + i * THREADS;
      if (place < size) target[place] = loaded[i];
    }
  }
};

// Adds the products of inputs `begin` to `end` of this block to a tile.
DEVICE void multiply(const Shared& shared, int image, int column, int begin, int end,
                     real (&sums)[TILE_IMAGES][TILE_COLUMNS]) {
#pragma unroll 4
  for (int k = begin; k < end; k++) {
    const Vector4* const x = reinterpret_cast<const Vector4*>(&shared.factors.x[k][image]);
    const Vector4 left[2] = {x[0], x[1]};
    const Vector4 right = *reinterpret_cast<const Vector4*>(&shared.factors.weight[k][column]);
#pragma unroll
    for (int i = 0; i < TILE_IMAGES; i++)
#pragma unroll
      for (int j = 0; j < TILE_COLUMNS; j++)
        sums[i][j] += left[i / 4].elements[i % 4] * right.elements[j];
  }
}

// Sets shared.split_sums: x W1, summed over the inputs of each split.
DEVICE void multiply_splits(Shared& shared) {
  const int tile = threadIdx.x % TILES, split = threadIdx.x / TILES;
  const int image = tile / COLUMN_TILES * TILE_IMAGES, column = tile % COLUMN_TILES * TILE_COLUMNS;
  const int begin = split * SPLIT_INPUTS, end = min(begin + SPLIT_INPUTS, BLOCK_INPUTS);
  real sums[TILE_IMAGES][TILE_COLUMNS] = {};
  if (split < SPLITS) multiply(shared, image, column, begin, end, sums);
  __syncthreads();  // all threads have read the factors before they are overwritten
  if (split < SPLITS)
#pragma unroll
    for (int i = 0; i < TILE_IMAGES; i++) {
      Vector4& target = reinterpret_cast<Vector4&>(shared.split_sums[split][image + i][column]);
      target = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
    }
  __syncthreads();
}

// Adds the sums of the splits, and sends the results to the block that computes the image.
DEVICE void send_block_sums(Shared& shared, int rank) {
  constexpr int VECTORS = IMAGES * COLUMN_TILES;
#pragma unroll
  for (int first = 0; first < VECTORS; first += THREADS) {
    const int i = first + int(threadIdx.x);
    const int image = i / COLUMN_TILES, column = i % COLUMN_TILES * TILE_COLUMNS;
    if (i >= VECTORS) break;
    Vector4 total = {};
#pragma unroll
    for (int split = 0; split < SPLITS; split++) {
      const Vector4 sums =
          reinterpret_cast<const Vector4&>(shared.split_sums[split][image][column]);
#pragma unroll
      for (int j = 0; j < TILE_COLUMNS; j++) total.elements[j] += sums.elements[j];
    }
    real* const target = &shared.block_sums[rank][image % IMAGES_PER_BLOCK][column];
#pragma unroll
    for (int j = 0; j < TILE_COLUMNS; j += VECTOR)
      store_async(target + j, reinterpret_cast<const Vector&>(total.elements[j]), shared.received,
                  image / IMAGES_PER_BLOCK);
  }
}

// The following functions compute image `image` of a block. All lanes of a warp must call them.

// Sets the hidden units, in shared memory and in `y`.
DEVICE void add_block_sums(Shared& shared, int image, real* y) {
#pragma unroll
  for (int j = threadIdx.x % WARP_SIZE; j < HIDDEN; j += WARP_SIZE) {
    real sum = shared.bias1[j];
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) sum += shared.block_sums[block][image][j];
    shared.hidden[image][j] = y[j] = activate(ACTIVATION, sum);
  }
  __syncwarp();
}

// Returns the logit of the lane's class, or that of the last class in lanes without a class. As many
// lanes as possible divide the sum of a class.
DEVICE real logit_of_lane(const Shared& shared, int image) {
  constexpr int LANES_PER_CLASS = WARP_SIZE / OUTPUTS;
  const int lane = threadIdx.x % WARP_SIZE;
  const int first = min(lane / OUTPUTS, LANES_PER_CLASS - 1);  // a lane without a class repeats one
  real sum = 0;
#pragma unroll
  for (int i = 0; i < HIDDEN; i += LANES_PER_CLASS)
    if (i + LANES_PER_CLASS <= HIDDEN || i + first < HIDDEN)
      sum += shared.hidden[image][i + first] *
             shared.weight2[(i + first) * OUTPUTS + lane % OUTPUTS];
  const int own_class = min(lane, OUTPUTS - 1);
  real logit = shared.bias2[own_class];
#pragma unroll
  for (int i = 0; i < LANES_PER_CLASS; i++)
    logit += __shfl_sync(FULL_MASK, sum, i * OUTPUTS + own_class);
  return logit;
}

// Sets dhidden, the gradient of the pre-activations of the hidden units.
DEVICE void backward_hidden(const Shared& shared, int image, real* dhidden) {
  __syncwarp();
#pragma unroll
  for (int j = threadIdx.x % WARP_SIZE; j < HIDDEN; j += WARP_SIZE) {
    real sum = 0;
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
      sum += shared.dlogits[image][o] * shared.weight2[j * OUTPUTS + o];
    dhidden[j] = sum * derivative(ACTIVATION, shared.hidden[image][j]);
  }
}

// Sets the hidden units (B, HIDDEN), the gradients dhidden and dlogits (B, OUTPUTS) of the mean loss,
// and the loss and correctness of each image. `sample_weights` are factors of the losses, which are
// read only if WEIGHTED.
// Grid: (BLOCKS for each IMAGES images, rounded up, 1, members).
// At most 128 registers.
extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(THREADS, MIN_BLOCKS)
    fused_mlp(const INPUT* __restrict__ x, StageInput input, const int* __restrict__ labels,
              const real* __restrict__ sample_weights, const real* __restrict__ parameters,
              MlpParameters offsets, int64 member_stride, real* __restrict__ hidden,
              real* __restrict__ dhidden, real* __restrict__ dlogits, real* __restrict__ losses,
              int* __restrict__ correct) {
  __shared__ Shared shared;
  begin_exchange(shared.received, sizeof shared.block_sums);
  const int rank = blockIdx.x % BLOCKS, begin = rank * BLOCK_INPUTS;
  const int inputs = max(0, min(BLOCK_INPUTS, INPUTS - begin));
  parameters = of_member(parameters, member_stride);
  const WeightLoader weight1(parameters + offsets.weight1 + begin * HIDDEN, inputs);
  const ParameterLoader<HIDDEN * OUTPUTS> weight2(parameters, offsets.weight2);
  const ParameterLoader<HIDDEN> bias1(parameters, offsets.bias1);
  const ParameterLoader<OUTPUTS> bias2(parameters, offsets.bias2);
  const StageRows batch = gathered_rows(x, input, INPUTS, member_stride);
  const int first = blockIdx.x / BLOCKS * IMAGES;
  const bool sets_state = blockIdx.x == 0 && threadIdx.x == 0;
  if (first >= batch.count) {  // in all threads of the cluster
    if (sets_state) set_state(input, member_stride);
    __cluster_barrier_wait();
    return;
  }
  const StageRows images = batch.from(first);
  const ImageLoader pixels(images, begin, inputs);
  // The image of this warp. Its label is loaded long before it is needed.
  const int lane = threadIdx.x % WARP_SIZE, own = threadIdx.x / WARP_SIZE;
  const int64 image = first + rank * IMAGES_PER_BLOCK + own;
  const int row = batch.rows[min(int(image), batch.count - 1)], label = labels[row];
  const real factor = WEIGHTED ? sample_weights[row] : real(1);
  if (sets_state) set_state(input, member_stride);  // while the other loads are under way
  weight1.store(shared);
  weight2.store(shared.weight2);
  bias1.store(shared.bias1);
  bias2.store(shared.bias2);
  pixels.store(images, shared);
  __syncthreads();
  multiply_splits(shared);
  __cluster_barrier_wait();  // all blocks have initialized their barriers
  send_block_sums(shared, rank);

  if (own >= IMAGES_PER_BLOCK) return;  // in all lanes of the warp, as below
  mbarrier_wait(shared.received, 0);    // also without an image, so that the block does not end before
  if (image >= batch.count) return;
  add_block_sums(shared, own, of_member(hidden, member_stride) + image * HIDDEN);
  const ImageLoss result = image_loss<LOSS>(logit_of_lane(shared, own), OUTPUTS, label);
  if (lane < OUTPUTS)
    shared.dlogits[own][lane] = of_member(dlogits, member_stride)[image * OUTPUTS + lane] =
        result.dlogit / real(batch.count) * factor;
  if (lane == 0) {
    of_member(losses, member_stride)[image] = result.loss * factor;
    of_member(correct, member_stride)[image] = result.is_correct;
  }
  backward_hidden(shared, own, of_member(dhidden, member_stride) + image * HIDDEN);
}

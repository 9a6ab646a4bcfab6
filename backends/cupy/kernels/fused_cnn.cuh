// Sizes, shared memory and arguments of fused_cnn.cu, whose comment lists the options.
#pragma once

#include "common.cuh"
#include "mbarrier.cuh"

constexpr int WARPS = THREADS / WARP_SIZE;
constexpr int BLOCKS_PER_IMAGE = CLUSTER_BLOCKS / IMAGES;
static_assert(BLOCKS_PER_IMAGE == 2, "two blocks exchange the sums of the second convolution");

// Returns whether two elements under the taps of a filter are in the same bank of shared memory.
constexpr bool has_conflicts(int row_stride, int kernel_size) {
  for (int i = 1; i < kernel_size; i++) {
    const int distance = i * row_stride % 32;  // of two rows, in banks
    if (distance < kernel_size || distance > 32 - kernel_size) return true;
  }
  return false;
}

// Returns the elements from one row of an image to the next: an even number, so that the patches of
// all cells begin at a pair of elements that one instruction reads; if possible without conflicts.
constexpr int row_stride(int columns, int kernel_size) {
  const int smallest = (columns + 1) / 2 * 2;
  for (int stride = smallest; stride < smallest + 32; stride += 2)
    if (!has_conflicts(stride, kernel_size)) return stride;
  return smallest;
}

// Sizes of a convolution with 2×2 max-pooling, whose input in shared memory is padded with zeros.
template <int channels, int height, int width, int filters, int kernel_size, int padding>
struct PooledConv {
  static constexpr int CHANNELS = channels, HEIGHT = height, WIDTH = width, FILTERS = filters;
  static constexpr int KERNEL_SIZE = kernel_size, PADDING = padding,
                       TAPS = kernel_size * kernel_size;
  static constexpr int ROWS = height + 2 * padding, COLUMNS = width + 2 * padding;
  static constexpr int ROW_STRIDE = row_stride(COLUMNS, kernel_size);
  static constexpr int CHANNEL_STRIDE = ROWS * ROW_STRIDE;
  static constexpr int CELL_ROWS = (ROWS - kernel_size + 1) / 2;
  static constexpr int CELL_COLUMNS = (COLUMNS - kernel_size + 1) / 2;
  static constexpr int CELLS = CELL_ROWS * CELL_COLUMNS;
  // Elements of the input. The last pair may end one element after the last channel.
  static constexpr int SIZE = channels * CHANNEL_STRIDE + 2;

  // Returns the index in the input of a pixel.
  DEVICE static int at(int channel, int row, int column) {
    return channel * CHANNEL_STRIDE + (row + padding) * ROW_STRIDE + column + padding;
  }
};

// The blocks of an image divide the filters of the first convolution, and with them the channels of
// the second one: these are the sizes for a block.
constexpr int CHANNELS2 = FILTERS1 / BLOCKS_PER_IMAGE;
typedef PooledConv<IMAGE_CHANNELS, IMAGE_HEIGHT, IMAGE_WIDTH, CHANNELS2, KERNEL_SIZE1, PADDING1>
    Conv1;
typedef PooledConv<CHANNELS2, Conv1::CELL_ROWS, Conv1::CELL_COLUMNS, FILTERS2, KERNEL_SIZE2,
                   PADDING2>
    Conv2;
static_assert(FILTERS1 % BLOCKS_PER_IMAGE == 0 && FILTERS2 % 4 == 0,
              "both blocks of an image have as many filters, of the second convolution in pairs");
// Filters of the first convolution that a thread computes.
constexpr int FILTERS_PER_THREAD = CHANNELS2 % 3 == 0 ? 3 : CHANNELS2 % 2 == 0 ? 2 : 1;
// Pairs of filters of the second convolution.
constexpr int PAIRS = FILTERS2 / 2, BLOCK_PAIRS = PAIRS / BLOCKS_PER_IMAGE;
// Elements from one tap of all filters to the next: pairs of filters are read by one instruction,
// and the transposed copy from the parameters has few bank conflicts.
constexpr int TAP_STRIDE = FILTERS2 + 2;
// Elements from the taps of one channel to those of the next: the smallest number with which the
// taps of 8 filters in 4 channels are in different banks.
constexpr int TAPS_STRIDE = (Conv2::TAPS * TAP_STRIDE + 23) / 32 * 32 + 8;

// The gradients of all outputs of the second convolution before pooling. Rows are read in pairs,
// and lanes that read different filters read different banks.
constexpr int MAP_ROWS = 2 * Conv2::CELL_ROWS, MAP_COLUMNS = 2 * Conv2::CELL_COLUMNS;
constexpr int MAP_STRIDE = (MAP_ROWS * MAP_COLUMNS / 2 | 1) * 2;

constexpr int INPUTS = FILTERS2 * Conv2::CELLS;  // of the first linear layer
// The lanes of a warp divide the columns of a block, COLUMN_LANES apart, and groups of ROWS rows.
constexpr int COLUMN_LANES = 8, ROWS = 8, COLUMNS = COLUMNS_PER_BLOCK / COLUMN_LANES;
static_assert(COLUMNS == 2 && IMAGES == 4, "forward_first() exchanges 2·4 sums among 4 lanes");
static_assert(ROWS * THREADS / COLUMN_LANES >= INPUTS && INPUTS <= THREADS, "a row per thread");
constexpr int USED_COLUMNS = (FIRST + CLUSTER_BLOCKS - 1) / CLUSTER_BLOCKS;  // of the first block

// A layer with parameters.
struct CnnLayer {
  real* y;             // output (B, outputs); null for the first convolution and for the last layer
  real* dy;            // gradient of the pre-activation of a linear layer, in the shape of y
  real* partial_sums;  // gradient of the parameters of a convolution for each image
  int weight, bias;    // offsets in the parameter vector; bias is -1 if the layer has none
  Activation activation;
};

struct CnnLayers {
  CnnLayer convolutions[2];
  CnnLayer linear[3];
};

// `count` adjacent elements, which one instruction reads if `count` is 2 or 4.
template <int count>
struct alignas((count % 2 ? 1 : count) * sizeof(real)) Elements {
  real of[count];

  DEVICE static Elements at(const real* address) {
    return *reinterpret_cast<const Elements*>(address);
  }
};

// One number for each image.
struct alignas(16) Numbers {
  real of[IMAGES];
};

// The sums of a pair of filters for the outputs of a cell.
struct alignas(16) PairSums {
  real of[8];
};

// The gradient of a cell, and the index of the patch of its largest output in the padded input.
struct alignas(2 * sizeof(real)) CellGradient {
  real gradient;
  int patch;
};

// Warps that divide the cells of a channel of the first convolution, and its sums in a warp: for
// all taps, and for the bias.
constexpr int CHANNEL_WARPS = WARPS / CHANNELS2;
constexpr int FILTER_SUMS = Conv1::CHANNELS * Conv1::TAPS + 1;
static_assert(CHANNEL_WARPS > 0, "a warp adds the gradient of one filter of the first convolution");

struct alignas(16) Shared {
  union {  // one after the other
    struct {
      Numbers x[THREADS];
      Numbers sums[WARPS][COLUMNS_PER_BLOCK];
    } forward;
    real dx[CLUSTER_BLOCKS][INPUTS];  // from each block: partial sums for the image of this block
    struct {
      real maps[FILTERS2 * MAP_STRIDE];
      real image[Conv1::SIZE];
    } backward;
  } stage;
  union {  // one after the other
    struct {
      PairSums conv_sums[Conv2::CELLS * BLOCK_PAIRS];  // received from the other block of the image
      real image[Conv1::SIZE];
    } forward;
    Numbers second_sums[CLUSTER_BLOCKS][SECOND];  // received from each block
    struct {
      CellGradient conv1[CHANNELS2 * Conv1::CELLS];
      union {  // one after the other
        CellGradient conv2[INPUTS];
        real warp_sums[CHANNELS2][CHANNEL_WARPS][FILTER_SUMS];
      };
    } backward;
  } buffer;
  Mbarrier conv_sums_received;       // counts the bytes of conv_sums
  alignas(16) real y1[Conv2::SIZE];  // input of the second convolution
  alignas(
      16) real filters1[Conv1::CHANNELS * Conv1::TAPS * CHANNELS2];  // (channels, taps, filters)
  alignas(16) real filters2[CHANNELS2 * TAPS_STRIDE];                // (channels, taps, filters)
  real conv_bias1[CHANNELS2], conv_bias2[FILTERS2];
  // Which output of a cell is the largest; of the second convolution, partly from the other block.
  uint8 largest1[CHANNELS2 * Conv1::CELLS], largest2[INPUTS];
  real second_weight[COLUMNS_PER_BLOCK * SECOND], first_bias[COLUMNS_PER_BLOCK];
  real second_bias[SECOND], third_bias[CLASSES];
  real third_weight[LAYERS == 3 ? SECOND * CLASSES : 1];
  // Outputs of the linear layers, and gradients of their pre-activations.
  Numbers first[COLUMNS_PER_BLOCK], dfirst[COLUMNS_PER_BLOCK], second[SECOND], dsecond[SECOND];
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
  // The image whose convolutions the block computes, in the cluster, and which half of them.
  DEVICE int image() const { return rank / BLOCKS_PER_IMAGE; }
  DEVICE int half() const { return rank % BLOCKS_PER_IMAGE; }
  DEVICE bool has_image() const { return image() < count; }
  // The number of the image in the batch.
  DEVICE int64 batch_image() const { return first + image(); }
};

// Returns the address in block `rank` of the cluster of a variable in shared memory.
template <class Variable>
DEVICE Variable* in_block(Variable* variable, int rank) {
  return static_cast<Variable*>(__cluster_map_shared_rank(variable, unsigned(rank)));
}

// `size` numbers on their way from global to shared memory. A thread loads all numbers that it
// copies into registers first, so that its loads are under way together.
template <int size>
struct Copy {
  static constexpr int count = (size + THREADS - 1) / THREADS;
  real loaded[count];

  // Loads load(i) for each number i.
  template <class Load>
  DEVICE explicit Copy(const Load& load) {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int number = threadIdx.x + i * THREADS;
      if (number < size) loaded[i] = load(number);
    }
  }

  // Stores number i at target[place(i)].
  template <class Function>
  DEVICE void store(real* target, const Function& place) const {
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int number = threadIdx.x + i * THREADS;
      if (number < size) target[place(number)] = loaded[i];
    }
  }
  DEVICE void store(real* target) const {
    store(target, [](int number) { return number; });
  }
};

// The same as wgrad_update.cu for linear layers with few outputs and many images: the gradient of
// every parameter, the update of the parameters, and the loss of the batch. Needs thread block
// clusters (compute capability 9.0 or higher).
//
// Each tile of ROWS rows of dW, with all columns, has SPLITS blocks, which divide the images. So no
// block reads all of dy, and as many blocks as a large GPU has multiprocessors take part. Each block
// sends its partial sums to the others, and then adds and updates a part of the tile:
//
//                        images of block
//                     0      1      2      3          part of the tile
//              ROWS +------+------+------+------+    +----------------+
//   tile of xᵀ      |      |      |      |      |    | 0: sum, update |
//                   +------+------+------+------+    +----------------+
//                      x dy, partial sums       -->  | 1: sum, update |   each block receives its
//                                                    +----------------+   part from all blocks
//                                                           ..
//
// Within a block, a thread computes 4×4 results for some of the images, and THREAD_SPLITS threads
// divide the images. The last row of dW is the gradient of the bias: a column of ones is appended
// to x. The sums of threads and blocks are added in a fixed order.
//
// The partial sums are stored asynchronously, as in fused_mlp.cu. No block ends before it has received
// all of its sums, so its shared memory exists as long as others store in it.
//
// Layout: as in linear.cu.
// Cost per image: as many multiply-adds as the forward pass.
// Options: -DRULE and -DMAX_LAYERS as in wgrad_layers.cuh; -DPIXEL=uint8, float or double, the element
// type of the data set; -DBLOCKS=8 per cluster; -DSPLITS=4; -DROWS and -DCOLUMNS, multiples of 4;
// -DIMAGES of a block that are in shared memory at a time; -DTHREADS.
#include "common.cuh"
#include "mbarrier.cuh"
#include "rows.cuh"
#include "wgrad_layers.cuh"

constexpr int WARPS = THREADS / WARP_SIZE;
constexpr int COLUMN_TILES = COLUMNS / 4, TILES = ROWS / 4 * COLUMN_TILES;  // of a thread
constexpr int THREAD_SPLITS = THREADS / TILES;
constexpr int VECTORS = ROWS * COLUMNS / VECTOR, PART_VECTORS = VECTORS / SPLITS;
constexpr int PART = PART_VECTORS * VECTOR;  // results that a block updates

static_assert(THREAD_SPLITS > 0, "a thread computes at most one tile");
static_assert(PART * SPLITS == ROWS * COLUMNS && WARPS <= MAX_WARPS, "whole parts");

struct alignas(16) Shared {
  union {
    struct {
      real x[IMAGES][ROWS], dy[IMAGES][COLUMNS];
    } factors;
    real thread_sums[THREAD_SPLITS][ROWS][COLUMNS];  // after the last image
    BatchResults results;
  };
  real received[SPLITS][PART];  // from all blocks of the tile
  Mbarrier arrived;             // counts the bytes of `received`
};

// The elements of x and dy that a thread copies to shared memory for IMAGES images: one column of dy and
// one row of the tile, for every n-th image. It loads them all into registers first, so that its loads
// are under way together.
template <class Rows>
struct Factors {
  static constexpr int DY_STRIDE = THREADS / COLUMNS, X_STRIDE = THREADS / ROWS;
  static constexpr int DY_COUNT = (IMAGES + DY_STRIDE - 1) / DY_STRIDE;
  static constexpr int X_COUNT = (IMAGES + X_STRIDE - 1) / X_STRIDE;
  const Rows rows;  // images of the block
  const DenseRows dy;
  const int row;  // row of dW of this thread, and its column below
  typename Rows::Element x_loaded[X_COUNT];
  real dy_loaded[DY_COUNT];

  DEVICE Factors(const Rows& rows, const DenseRows& dy, int tile)
      : rows(rows), dy(dy), row(tile * ROWS + threadIdx.x % ROWS) {}

  // Loads images from `first` on; elements that do not exist are 0.
  DEVICE void load(int first) {
    const int column = threadIdx.x % COLUMNS, image = first + threadIdx.x / COLUMNS;
    const real* next = dy.first + (image * dy.width + column);
#pragma unroll
    for (int i = 0; i < DY_COUNT; i++) {
      dy_loaded[i] = 0;
      if (image + i * DY_STRIDE < dy.count && column < dy.width) dy_loaded[i] = *next;
      next += DY_STRIDE * dy.width;  // one address at a time takes fewer registers than all
    }
#pragma unroll
    for (int i = 0; i < X_COUNT; i++) {
      const int image = first + threadIdx.x / ROWS + i * X_STRIDE;
      x_loaded[i] = 0;
      if (image < rows.count && row < rows.width) x_loaded[i] = *rows.address(image, row);
    }
  }

  DEVICE void store(Shared& shared) const {
    const int dy_image = threadIdx.x / COLUMNS, x_image = threadIdx.x / ROWS;
#pragma unroll
    for (int i = 0; i < DY_COUNT; i++)
      if (dy_image < DY_STRIDE && (i < DY_COUNT - 1 || dy_image + i * DY_STRIDE < IMAGES))
        shared.factors.dy[dy_image + i * DY_STRIDE][threadIdx.x % COLUMNS] = dy_loaded[i];
#pragma unroll
    for (int i = 0; i < X_COUNT; i++)
      if (x_image < X_STRIDE && (i < X_COUNT - 1 || x_image + i * X_STRIDE < IMAGES))
        shared.factors.x[x_image + i * X_STRIDE][threadIdx.x % ROWS] =
            row == rows.width ? real(1) : rows.value(x_loaded[i]);
  }
};

// Adds the products of `count` images in shared memory to the results of a thread.
DEVICE void multiply(const Shared& shared, int count, real (&sums)[4][4]) {
  const int tile = threadIdx.x % TILES, split = threadIdx.x / TILES;
  if (split >= THREAD_SPLITS) return;
  const int row = tile / COLUMN_TILES * 4, column = tile % COLUMN_TILES * 4;
#pragma unroll 4
  for (int image = split; image < count; image += THREAD_SPLITS) {
    const Vector4 left = reinterpret_cast<const Vector4&>(shared.factors.x[image][row]);
    const Vector4 right = reinterpret_cast<const Vector4&>(shared.factors.dy[image][column]);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) sums[i][j] += left.elements[i] * right.elements[j];
  }
}

// Sets shared.thread_sums: the gradient of the tile, summed over the images of each thread.
template <class Rows>
DEVICE void multiply_images(Factors<Rows> factors, Shared& shared) {
  const int tile = threadIdx.x % TILES, split = threadIdx.x / TILES, images = factors.dy.count;
  real sums[4][4] = {};
  factors.load(0);
#pragma unroll 1
  for (int first = 0; first < images; first += IMAGES) {
    factors.store(shared);
    __syncthreads();
    if (first + IMAGES < images) factors.load(first + IMAGES);  // overlaps with the products
    multiply(shared, min(IMAGES, images - first), sums);
    __syncthreads();  // all threads have read the factors before they are overwritten
  }
  if (split < THREAD_SPLITS)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = tile / COLUMN_TILES * 4 + i, column = tile % COLUMN_TILES * 4;
      reinterpret_cast<Vector4&>(shared.thread_sums[split][row][column]) = {
          sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
    }
  __syncthreads();
}

// Adds the sums of the threads, and sends them to the blocks of the tile; the first one has rank
// `first` in the cluster, and this one is block `number`.
DEVICE void send_parts(Shared& shared, int first, int number) {
#pragma unroll
  for (int begin = 0; begin < VECTORS; begin += THREADS) {
    const int vector = begin + int(threadIdx.x);
    if (vector >= VECTORS) break;
    Vector total = {};
#pragma unroll
    for (int split = 0; split < THREAD_SPLITS; split++) {
      const Vector sums =
          reinterpret_cast<const Vector*>(&shared.thread_sums[split][0][0])[vector];
#pragma unroll
      for (int i = 0; i < VECTOR; i++) total.elements[i] += sums.elements[i];
    }
    store_async(&shared.received[number][vector % PART_VECTORS * VECTOR], total, shared.arrived,
                first + vector / PART_VECTORS);
  }
}

// Returns the offset in the parameter vector of element `number` of a tile; -1 if it is no parameter.
DEVICE int parameter_index(const WgradLayer& layer, int tile, int number) {
  const int row = tile * ROWS + number / COLUMNS, column = number % COLUMNS;
  if (row > layer.inputs || column >= layer.outputs) return -1;
  if (row < layer.inputs) return layer.weight + row * layer.outputs + column;
  return layer.bias < 0 ? -1 : layer.bias + column;
}

// Grid: the blocks of all layers, SPLITS for each tile, and one block for the losses, rounded up to
// whole clusters; once per member. The parameters are those of wgrad_update.cu.
// At most 168 registers.
extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(THREADS, 1)
    clustered_wgrad(const __grid_constant__ WgradLayers layers, int blocks,
                    const PIXEL* __restrict__ images, const int* __restrict__ rows,
                    real pixel_shift, Chunk chunk, StepState state, real* __restrict__ weights,
                    real* __restrict__ state0, real* __restrict__ state1, RuleSettings settings,
                    real l2, int64 member_stride) {
  __shared__ Shared shared;
  begin_exchange(shared.arrived, sizeof shared.received);
  state = of_member(state, member_stride);
  const int block = blockIdx.x, count = state.batch[0];
  const bool has_tile = count > 0 && block < blocks;
  const WgradLayer& layer = layers.of_block(block);
  const int tile = (block - layer.first_block) / SPLITS, split = block % SPLITS;
  const int begin = split_begin(count, split, SPLITS), end = split_begin(count, split + 1, SPLITS);
  const DenseRows dy =
      DenseRows{of_member(layer.dy, member_stride), layer.outputs, end}.from(begin);
  if (has_tile && layer.x) {
    const DenseRows x = {of_member(layer.x, member_stride), layer.inputs, end};
    multiply_images(Factors<DenseRows>(x.from(begin), dy, tile), shared);
  } else if (has_tile) {
    const int* const batch_rows = of_member(rows, member_stride) + state.batch[1];
    const GatheredRows<PIXEL> x = {images, batch_rows, pixel_shift, layer.inputs, end};
    multiply_images(Factors<GatheredRows<PIXEL>>(x.from(begin), dy, tile), shared);
  } else if (count > 0 && block == blocks) {
    finish_step(of_member(chunk, member_stride), state, count, shared.results);
  }
  __cluster_barrier_wait();  // all blocks have initialized their barriers
  if (!has_tile) return;
  send_parts(shared, block % BLOCKS / SPLITS * SPLITS, split);
  const Rates rates = {state.rates[0], state.rates[1], state.rates[2]};
  const Updater updater = {of_member(weights, member_stride), of_member(state0, member_stride),
                           of_member(state1, member_stride), settings, rates};
  int* const diverged = of_member(chunk.diverged, member_stride);
  mbarrier_wait(shared.arrived, 0);
#pragma unroll
  for (int i = threadIdx.x; i < PART; i += THREADS) {
    const int parameter = parameter_index(layer, tile, split * PART + i);
    if (parameter < 0) continue;
    real grad = 0;
#pragma unroll
    for (int from = 0; from < SPLITS; from++) grad += shared.received[from][i];
    apply_with_penalty(layer, updater, l2 / real(count), parameter, grad, diverged);
  }
}

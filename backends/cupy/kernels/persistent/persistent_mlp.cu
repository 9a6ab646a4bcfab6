// Trains two linear layers with small batches: BLOCKS blocks per member that are resident together
// run all steps of a chunk in one launch. The first layer's weights stay in registers between the
// steps, the other parameters in shared memory. The optimizer is SGD.
//
// Layout: block r has INPUTS_PER_BLOCK rows of the first layer's weights, and the same columns of
// the batch.
//
//            x (BATCH, INPUTS)                 W1 (INPUTS, HIDDEN)
//            +---------+---------+----         +-----------+
//            | block 0 | block 1 | ..          |  block 0  | INPUTS_PER_BLOCK
//            +---------+---------+----         +-----------+
//                                              |  block 1  |
//                                              +-----------+
//                                                   ..
//
// The weights of a block are divided into tiles of TILE inputs by TILE hidden units. Each thread has
// one of every SLICES·GROUPS tiles, so it uses a value that it reads for TILE multiply-adds:
//
//   lane = 8 s + g of warp w:   hidden units 4 g .. 4 g + 3, inputs 16 w + 4 s .. 16 w + 4 s + 3,
//                               and those that are multiples of 32 and 128 further
//
// A step: each block computes the partial sums of the hidden units over its inputs. Blocks exchange
// them. The rest of the forward pass and the gradients of the pre-activations are computed per
// image, by one warp, and stored as a `Record`. Then each block updates its rows of the first
// layer, and its copy of the other parameters; all copies are bit-identical.
//
// What blocks exchange, and how, is in one of two headers. In a cluster each image is computed by one
// block, and partial sums and records are sent to where they are needed. Without clusters each block
// computes all images, because a grid barrier takes longer than this. The order of all sums is the
// same, and so are the results, bit for bit.
//
// The images of the next step are read from global memory during a step. Losses are stored per
// image, and added after the last step.
// Cost per image: 2·INPUTS·HIDDEN multiply-adds, split over the blocks, and 4·HIDDEN·OUTPUTS.
// docs/gpu.md has an estimate of the time.
// Options: -DPIXEL=uint8, float or double, the element type of the data set; -DBATCH, the largest
// batch; -DIMAGES_PER_PASS, number of images whose partial sums are in shared memory at the same
// time; -DINPUTS, -DHIDDEN and -DOUTPUTS (up to WARP_SIZE); -DACTIVATION of the hidden units; -DLOSS
// as in losses.cu; -DTHREADS per block; -DBLOCKS and -DCLUSTER as in grid_barrier.cuh.
#include "common.cuh"
#include "image_loss.cuh"
#include "persistent/grid_barrier.cuh"

constexpr int TILE = 4;
constexpr int WARPS = THREADS / WARP_SIZE;
constexpr int GROUPS = 8;                          // lanes with tiles of the same inputs
constexpr int SLICES_PER_WARP = WARP_SIZE / GROUPS;  // lanes with tiles of the same hidden units
constexpr int SLICES = WARPS * SLICES_PER_WARP;
constexpr int INPUTS_PER_BLOCK = (INPUTS + BLOCKS - 1) / BLOCKS;
constexpr int INPUT_TILES = (INPUTS_PER_BLOCK + SLICES * TILE - 1) / (SLICES * TILE);  // per thread
constexpr int UNIT_TILES = (HIDDEN + GROUPS * TILE - 1) / (GROUPS * TILE);             // per thread
constexpr int PADDED_INPUTS = INPUT_TILES * SLICES * TILE;
constexpr int PADDED_UNITS = UNIT_TILES * GROUPS * TILE;
// Warps that have inputs. The others would only add zeros.
constexpr int INPUTS_PER_WARP = SLICES_PER_WARP * TILE;  // of one tile per thread
constexpr int INPUT_WARPS =
    INPUT_TILES > 1 ? WARPS : (INPUTS_PER_BLOCK + INPUTS_PER_WARP - 1) / INPUTS_PER_WARP;
constexpr int PASSES = (BATCH + IMAGES_PER_PASS - 1) / IMAGES_PER_PASS;
constexpr int IMAGES_PER_WARP = (BATCH + WARPS - 1) / WARPS;
constexpr int PIXELS_PER_LANE = (INPUTS_PER_BLOCK + WARP_SIZE - 1) / WARP_SIZE;

// Small networks leave registers for two blocks, of two members, per multiprocessor.
constexpr int BLOCKS_PER_MULTIPROCESSOR =
    INPUT_TILES * UNIT_TILES * sizeof(real) * TILE * TILE <= 64 ? 2 : 1;

constexpr int ROW = (HIDDEN + VECTOR - 1) / VECTOR * VECTOR;  // hidden units, and padding

// The results of an image that the updates need.
struct alignas(16) Record {
  real dhidden[PADDED_UNITS];  // gradients of the pre-activations; 0 for units that do not exist
  real hidden[ROW];            // outputs of the activation
  real dlogits[(OUTPUTS + VECTOR - 1) / VECTOR * VECTOR];
};

#ifdef CLUSTER
#include "persistent/cluster_exchange.cuh"
#else
#include "persistent/grid_exchange.cuh"
#endif

struct MlpSettings {
  int steps;  // of the member with the most steps
  real pixel_shift, weight_decay;
};

struct Shared {
  // 0 for inputs that do not exist. The last pass may compute images beyond the batch.
  alignas(16) real x[PASSES * IMAGES_PER_PASS][PADDED_INPUTS];
  alignas(16) real warp_sums[INPUT_WARPS][IMAGES_PER_PASS][PADDED_UNITS];
  Record records[BATCH];
  ExchangeBuffers buffers;
  real weight2[HIDDEN * OUTPUTS];
  real bias1[HIDDEN], bias2[OUTPUTS];
  int labels[BATCH];
};

// The weights of a thread: element [i][j][k][c] is that of input input_of(i) + k and unit
// unit_of(j) + c. Those that do not exist are 0.
typedef real ThreadWeights[INPUT_TILES][UNIT_TILES][TILE][TILE];

DEVICE int slice() { return int(threadIdx.x) / GROUPS; }
DEVICE int input_of(int tile) { return (tile * SLICES + slice()) * TILE; }
DEVICE int unit_of(int tile) { return (tile * GROUPS + int(threadIdx.x) % GROUPS) * TILE; }

DEVICE void read_tile(const real* shared_memory, real (&values)[TILE]) {
#pragma unroll
  for (int i = 0; i < TILE / VECTOR; i++) {
    const Vector vector = ((const Vector*)shared_memory)[i];
#pragma unroll
    for (int j = 0; j < VECTOR; j++) values[i * VECTOR + j] = vector.elements[j];
  }
}

// Calls use(weight, position in W1) for each weight of the thread that exists.
template <class Function>
DEVICE void for_each_weight(ThreadWeights& weights, int inputs, Function use) {
#pragma unroll
  for (int i = 0; i < INPUT_TILES; i++)
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j++)
#pragma unroll
      for (int element = 0; element < TILE * TILE; element++) {
        const int input = input_of(i) + element / TILE, unit = unit_of(j) + element % TILE;
        if (input < inputs && unit < HIDDEN)
          use(weights[i][j][element / TILE][element % TILE], input * HIDDEN + unit);
      }
}

// --------------------------------------------------------------------------- images of a step

// A step and its images, which are read in parts, because each part needs the previous one.
struct StepInput {
  int begin, count;  // positions of the images in `rows`
  real lr;
  int rows[IMAGES_PER_WARP];  // of the images of this warp, as are the following
  int labels[IMAGES_PER_WARP];
  PIXEL pixels[IMAGES_PER_WARP][PIXELS_PER_LANE];
};

DEVICE int image_of(int i) { return threadIdx.x / WARP_SIZE + i * WARPS; }

// After the last step, the batch is empty.
DEVICE void read_bounds(StepInput& batch, const int* bounds, const real* rates, int step,
                        int steps) {
  batch.count = 0;
  if (step >= steps) return;
  batch.begin = bounds[2 * step];
  batch.count = bounds[2 * step + 1] - batch.begin;
  batch.lr = rates[3 * step];
}

DEVICE void read_rows(StepInput& batch, const int* rows) {
#pragma unroll
  for (int i = 0; i < IMAGES_PER_WARP; i++)
    if (image_of(i) < batch.count) batch.rows[i] = rows[batch.begin + image_of(i)];
}

DEVICE void read_pixels(StepInput& batch, const PIXEL* images, const int* labels, int first,
                        int inputs) {
#pragma unroll
  for (int i = 0; i < IMAGES_PER_WARP; i++) {
    if (image_of(i) >= batch.count) continue;
    batch.labels[i] = labels[batch.rows[i]];
    const PIXEL* const pixels = images + int64(batch.rows[i]) * INPUTS + first;
#pragma unroll
    for (int j = 0; j < PIXELS_PER_LANE; j++) {
      const int input = threadIdx.x % WARP_SIZE + j * WARP_SIZE;
      if (input < inputs) batch.pixels[i][j] = pixels[input];
    }
  }
}

DEVICE void store_pixels(Shared& shared, const StepInput& batch, int inputs, real pixel_shift) {
#pragma unroll
  for (int i = 0; i < IMAGES_PER_WARP; i++) {
    if (image_of(i) >= batch.count) continue;
    if (threadIdx.x % WARP_SIZE == 0) shared.labels[image_of(i)] = batch.labels[i];
#pragma unroll
    for (int j = 0; j < PIXELS_PER_LANE; j++) {
      const int input = threadIdx.x % WARP_SIZE + j * WARP_SIZE;
      if (input < inputs) shared.x[image_of(i)][input] = normalize(batch.pixels[i][j], pixel_shift);
    }
  }
}

// ------------------------------------------------------------------------------------ forward

// Sets the sums of x W1 over the inputs of this warp, for IMAGES_PER_PASS images.
DEVICE void compute_warp_sums(Shared& shared, const ThreadWeights& weights, int first_image) {
  const int warp = threadIdx.x / WARP_SIZE;
  if (warp >= INPUT_WARPS) return;
#pragma unroll
  for (int image = 0; image < IMAGES_PER_PASS; image++) {
    real sums[UNIT_TILES][TILE] = {};
#pragma unroll
    for (int i = 0; i < INPUT_TILES; i++) {
      real x[TILE];
      read_tile(&shared.x[first_image + image][input_of(i)], x);
#pragma unroll
      for (int j = 0; j < UNIT_TILES; j++)
#pragma unroll
        for (int element = 0; element < TILE * TILE; element++)
          sums[j][element % TILE] +=
              x[element / TILE] * weights[i][j][element / TILE][element % TILE];
    }
    // Of the TILE lanes with the same hidden units, each gets the sum of one of them.
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j++) {
      reduce_scatter_step<4>(sums[j], 2 * GROUPS);
      reduce_scatter_step<2>(sums[j], GROUPS);
      shared.warp_sums[warp][image][unit_of(j) + slice() % TILE] = sums[j][0];
    }
  }
}

// Adds the sums of all warps, and sends them.
DEVICE void send_sums(const Shared& shared, Exchange& exchange, int step, int first_image,
                      int count) {
  constexpr int VECTORS = ROW / VECTOR;
  const int images = min(IMAGES_PER_PASS, count - first_image);
  for (int i = threadIdx.x; i < images * VECTORS; i += THREADS) {
    const int image = i / VECTORS, unit = i % VECTORS * VECTOR;
    Vector total = {};
#pragma unroll
    for (int warp = 0; warp < INPUT_WARPS; warp++) {
      const Vector sums = *(const Vector*)&shared.warp_sums[warp][image][unit];
#pragma unroll
      for (int j = 0; j < VECTOR; j++) total.elements[j] += sums.elements[j];
    }
    exchange.send_sums(step, first_image + image, unit, total);
  }
}

// Computes the record of an image, and its loss. All lanes of a warp must call this.
DEVICE ImageLoss compute_record(Shared& shared, Exchange& exchange, int step, int image,
                                int images) {
  const int lane = threadIdx.x % WARP_SIZE, own_class = min(lane, OUTPUTS - 1);
  Record& record = exchange.record(image);
  for (int unit = lane; unit < HIDDEN; unit += WARP_SIZE) {
    real sum = shared.bias1[unit];
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) sum += exchange.sum(step, image, block, unit);
    record.hidden[unit] = activate(ACTIVATION, sum);
  }
  __syncwarp();
  real logit = shared.bias2[own_class];
  for (int unit = 0; unit < HIDDEN; unit++)
    logit += record.hidden[unit] * shared.weight2[unit * OUTPUTS + own_class];
  // The gradient is sent before the loss is computed, because all blocks wait for it.
  const int label = shared.labels[image];
  return image_loss<LOSS, power_of_two(OUTPUTS)>(logit, OUTPUTS, label, [&](real dlogit) {
    if (lane < OUTPUTS) record.dlogits[lane] = dlogit / real(images);
    __syncwarp();
    for (int unit = lane; unit < PADDED_UNITS; unit += WARP_SIZE) {
      real sum = 0;
      if (unit < HIDDEN) {
        for (int o = 0; o < OUTPUTS; o++)
          sum += record.dlogits[o] * shared.weight2[unit * OUTPUTS + o];
        sum *= derivative(ACTIVATION, record.hidden[unit]);
      }
      record.dhidden[unit] = sum;
    }
    exchange.send_record(image);
  });
}

// ------------------------------------------------------------------------------------- update

// The settings of an update by SGD.
struct Sgd {
  real lr, weight_decay;

  // Returns an updated parameter; `gradient` contains weight_decay · weight.
  DEVICE real updated(real weight, real gradient) const { return weight - lr * gradient; }
};

// Updates the first layer's weights of a thread with gradient xᵀ dhidden.
DEVICE void update_weights(const Shared& shared, ThreadWeights& weights, int count,
                           const Sgd& sgd) {
#pragma unroll
  for (int i = 0; i < INPUT_TILES; i++)
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j++) {
      real gradient[TILE * TILE];
#pragma unroll
      for (int element = 0; element < TILE * TILE; element++)
        gradient[element] = sgd.weight_decay * weights[i][j][element / TILE][element % TILE];
#pragma unroll 2
      for (int image = 0; image < count; image++) {
        real x[TILE], dhidden[TILE];
        read_tile(&shared.x[image][input_of(i)], x);
        read_tile(&shared.records[image].dhidden[unit_of(j)], dhidden);
#pragma unroll
        for (int element = 0; element < TILE * TILE; element++)
          gradient[element] += x[element / TILE] * dhidden[element % TILE];
      }
#pragma unroll
      for (int element = 0; element < TILE * TILE; element++) {
        real& weight = weights[i][j][element / TILE][element % TILE];
        weight = sgd.updated(weight, gradient[element]);
      }
    }
}

// Updates the parameters in shared memory. Each is updated by one thread.
DEVICE void update_shared(Shared& shared, int count, const Sgd& sgd) {
  const Record* const records = shared.records;
  for (int i = threadIdx.x; i < HIDDEN * OUTPUTS; i += THREADS) {
    const int unit = i / OUTPUTS, o = i % OUTPUTS;
    real gradient = sgd.weight_decay * shared.weight2[i];
    for (int image = 0; image < count; image++)
      gradient += records[image].hidden[unit] * records[image].dlogits[o];
    shared.weight2[i] = sgd.updated(shared.weight2[i], gradient);
  }
  for (int i = threadIdx.x; i < HIDDEN + OUTPUTS; i += THREADS) {
    real& bias = i < HIDDEN ? shared.bias1[i] : shared.bias2[i - HIDDEN];
    real gradient = sgd.weight_decay * bias;
    for (int image = 0; image < count; image++)
      gradient += i < HIDDEN ? records[image].dhidden[i] : records[image].dlogits[i - HIDDEN];
    bias = sgd.updated(bias, gradient);
  }
}

// ------------------------------------------------------------------------------------- kernel

DEVICE void copy(const real* source, int count, real* target) {
  for (int i = threadIdx.x; i < count; i += THREADS) target[i] = source[i];
}

// Copies parameters to global memory; returns whether those of this thread are finite.
DEVICE bool store(const real* source, int count, real* target) {
  bool finite = true;
  for (int i = threadIdx.x; i < count; i += THREADS) {
    target[i] = source[i];
    finite &= is_finite(source[i]);
  }
  return finite;
}

// The loss and the correctness of each image of each step (steps, BATCH).
struct ImageResults {
  real* losses;
  int* correct;
};

// Sets the mean loss and the number of correct predictions of each step.
DEVICE void store_results(const ImageResults& images, const int* bounds, int steps, double* losses,
                          int* correct) {
  for (int step = threadIdx.x; step < steps; step += THREADS) {
    const int count = bounds[2 * step + 1] - bounds[2 * step];
    double total = 0;
    int hits = 0;
    for (int image = 0; image < count; image++) {
      total += double(images.losses[step * BATCH + image]);
      hits += images.correct[step * BATCH + image];
    }
    losses[step] = total / count;
    correct[step] = hits;
  }
}

// Step i trains with the rows bounds[2 · i] .. bounds[2 · i + 1] of `rows` and the learning rate
// rates[3 · i], and stores its mean loss and its number of correct predictions. A member with fewer
// steps than another ends with steps without images. `partial_sums` has 2·BLOCKS·BATCH·ROW elements,
// which only blocks without cluster use, and `image_losses` and `image_correct` have BATCH elements
// per step. Sets `diverged` if a parameter is not finite at the end.
// Grid: (BLOCKS, 1, members) blocks of THREADS threads; those of a member are resident together.
// Long: the pointers are parameters, not members of a struct, because __restrict__ has no effect on
// members.
// At most 168 registers.
extern "C" __global__ void CLUSTER_DIMS __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR)
    persistent_mlp(const PIXEL* __restrict__ images, const int* __restrict__ labels,
                   const int* __restrict__ rows, const int* __restrict__ bounds,
                   const real* __restrict__ rates, MlpSettings settings, int64 member_stride,
                   real* __restrict__ weight1, real* __restrict__ bias1,
                   real* __restrict__ weight2, real* __restrict__ bias2, real* partial_sums,
                   unsigned* barrier, real* image_losses, int* image_correct,
                   double* __restrict__ losses, int* __restrict__ correct, int* diverged) {
  __shared__ Shared shared;
  const int first = blockIdx.x * INPUTS_PER_BLOCK;
  const int inputs = max(0, min(INPUTS_PER_BLOCK, INPUTS - first));  // inputs of this block
  rows = of_member(rows, member_stride);
  bounds = of_member(bounds, member_stride);
  rates = of_member(rates, member_stride);
  const ImageResults results = {of_member(image_losses, member_stride),
                                of_member(image_correct, member_stride)};
  real* const own_weight1 = of_member(weight1, member_stride) + first * HIDDEN;

  Exchange exchange(shared.buffers, shared.records, of_member(partial_sums, member_stride),
                    of_member(barrier, member_stride));
  ThreadWeights weights = {};
  for_each_weight(weights, inputs, [&](real& weight, int i) { weight = own_weight1[i]; });
  copy(of_member(weight2, member_stride), HIDDEN * OUTPUTS, shared.weight2);
  copy(of_member(bias1, member_stride), HIDDEN, shared.bias1);
  copy(of_member(bias2, member_stride), OUTPUTS, shared.bias2);
  for (int i = threadIdx.x; i < int(sizeof shared.x / sizeof(real)); i += THREADS)
    shared.x[i / PADDED_INPUTS][i % PADDED_INPUTS] = 0;
  StepInput next;
  read_bounds(next, bounds, rates, 0, settings.steps);
  read_rows(next, rows);
  read_pixels(next, images, labels, first, inputs);
  __syncthreads();
  store_pixels(shared, next, inputs, settings.pixel_shift);
  __syncthreads();

  int step = 0;
  for (; next.count > 0; step++) {  // the same number in all blocks of this member
    const int count = next.count;
    const Sgd sgd = {next.lr, settings.weight_decay};
    read_bounds(next, bounds, rates, step + 1, settings.steps);
    exchange.begin_step(count);
    for (int image = 0; image < BATCH && image < count; image += IMAGES_PER_PASS) {
      if (image > 0) __syncthreads();
      compute_warp_sums(shared, weights, image);
      __syncthreads();
      send_sums(shared, exchange, step, image, count);
    }
    read_rows(next, rows);
    exchange.wait_for_sums(step);
    for (int image = exchange.first_image(); image < count; image += Exchange::IMAGE_STRIDE) {
      const ImageLoss loss = compute_record(shared, exchange, step, image, count);
      if (exchange.stores_results() && threadIdx.x % WARP_SIZE == 0) {
        results.losses[step * BATCH + image] = loss.loss;
        results.correct[step * BATCH + image] = loss.is_correct;
      }
    }
    read_pixels(next, images, labels, first, inputs);
    exchange.wait_for_records(step);
    update_weights(shared, weights, count, sgd);
    update_shared(shared, count, sgd);
    __syncthreads();
    store_pixels(shared, next, inputs, settings.pixel_shift);
    __syncthreads();
  }

  // All blocks have read the old parameters: they have exchanged data since, or waited for the
  // start of the others. A member without steps writes the values that it has read.
  exchange.finish();
  bool finite = true;
  for_each_weight(weights, inputs, [&](real& weight, int i) {
    own_weight1[i] = weight;
    finite &= is_finite(weight);
  });
  if (blockIdx.x == 0) {  // the copies of the other blocks are identical
    finite &= store(shared.weight2, HIDDEN * OUTPUTS, of_member(weight2, member_stride));
    finite &= store(shared.bias1, HIDDEN, of_member(bias1, member_stride));
    finite &= store(shared.bias2, OUTPUTS, of_member(bias2, member_stride));
    store_results(results, bounds, step, of_member(losses, member_stride),
                  of_member(correct, member_stride));
  }
  if (!finite) *of_member(diverged, member_stride) = 1;
}

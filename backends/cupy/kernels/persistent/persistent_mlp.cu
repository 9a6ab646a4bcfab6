// Trains two linear layers with small batches: BLOCKS blocks per member that are resident together
// run all steps of a chunk in one launch. The weights stay in shared memory between the steps. The
// optimizer is SGD.
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
// Each block writes its partial sums of the hidden units to global memory. After one grid barrier
// per step, every block adds the partial sums of all blocks in the same order and computes the rest
// of the step itself, so all blocks have bit-identical copies of the second layer. The partial sums
// are double-buffered: a fast block can write the sums of the next step while a slow block still
// reads the sums of this step.
// Cost per image: 2·INPUTS·HIDDEN multiply-adds, split over the blocks, and 4·HIDDEN·OUTPUTS in
// each block.
// Options: -DPIXEL=uint8, float or double, the element type of the data set; -DBATCH, the largest
// batch; -DINPUTS, -DHIDDEN and -DOUTPUTS (up to WARP_SIZE); -DACTIVATION of the hidden units;
// -DLOSS as in losses.cu; -DTHREADS per block; -DBLOCKS and -DCLUSTER as in grid_barrier.cuh.
#include "common.cuh"
#include "image_loss.cuh"
#include "persistent/grid_barrier.cuh"

constexpr int INPUTS_PER_BLOCK = (INPUTS + BLOCKS - 1) / BLOCKS;
constexpr int UNITS = BATCH * HIDDEN;  // hidden units of a batch

struct MlpSettings {
  int steps;  // of the member with the most steps
  real pixel_shift, weight_decay;
};

struct Shared {
  real weight1[INPUTS_PER_BLOCK * HIDDEN];
  real weight2[HIDDEN * OUTPUTS];
  real bias1[HIDDEN], bias2[OUTPUTS];
  real x[BATCH * INPUTS_PER_BLOCK];
  real hidden[UNITS], dhidden[UNITS];  // outputs of the activation; gradients of the pre-activation
  real dlogits[BATCH * OUTPUTS];
  real losses[BATCH];
  int correct[BATCH];
};

// Sets the partial sums of this block: x W1, summed over the inputs of this block only.
DEVICE void forward_partial(const Shared& shared, int count, int inputs,
                            volatile real* partial_sums) {
  for (int i = threadIdx.x; i < count * HIDDEN; i += THREADS) {
    const int image = i / HIDDEN, j = i % HIDDEN;
    real sum = 0;
    for (int k = 0; k < inputs; k++)
      sum += shared.x[image * INPUTS_PER_BLOCK + k] * shared.weight1[k * HIDDEN + j];
    partial_sums[i] = sum;
  }
}

// Sets the hidden units from the partial sums (BLOCKS, UNITS) of all blocks.
DEVICE void add_partial_sums(Shared& shared, int count, const volatile real* partial_sums) {
  for (int i = threadIdx.x; i < count * HIDDEN; i += THREADS) {
    real sum = shared.bias1[i % HIDDEN];
    for (int block = 0; block < BLOCKS; block++) sum += partial_sums[block * UNITS + i];
    shared.hidden[i] = activate(ACTIVATION, sum);
  }
}

// Sets dlogits, loss and correctness of an image. All lanes of a warp must call this; lane i
// computes class i.
DEVICE void compute_loss(Shared& shared, int image, int images, int label) {
  const int lane = threadIdx.x % WARP_SIZE, own_class = min(lane, OUTPUTS - 1);
  real logit = shared.bias2[own_class];
  for (int j = 0; j < HIDDEN; j++)
    logit += shared.hidden[image * HIDDEN + j] * shared.weight2[j * OUTPUTS + own_class];
  const ImageLoss result = image_loss<LOSS>(logit, OUTPUTS, label);
  if (lane < OUTPUTS) shared.dlogits[image * OUTPUTS + lane] = result.dlogit / real(images);
  if (lane == 0) {
    shared.losses[image] = result.loss;
    shared.correct[image] = result.is_correct;
  }
}

DEVICE void backward_hidden(Shared& shared, int count) {
  for (int i = threadIdx.x; i < count * HIDDEN; i += THREADS) {
    const int image = i / HIDDEN, j = i % HIDDEN;
    real sum = 0;
    for (int o = 0; o < OUTPUTS; o++)
      sum += shared.dlogits[image * OUTPUTS + o] * shared.weight2[j * OUTPUTS + o];
    shared.dhidden[i] = sum * derivative(ACTIVATION, shared.hidden[i]);
  }
}

// Updates W (rows, width) by SGD with gradient xᵀ dy. x has one row of `x_stride` elements per
// image, dy one of `width`. Each weight is updated by one thread.
DEVICE void update_weight(real* weight, int rows, int width, const real* x, int x_stride,
                          const real* dy, int count, real lr, real weight_decay) {
  for (int i = threadIdx.x; i < rows * width; i += THREADS) {
    real gradient = weight_decay * weight[i];
    for (int image = 0; image < count; image++)
      gradient += x[image * x_stride + i / width] * dy[image * width + i % width];
    weight[i] -= lr * gradient;
  }
}

DEVICE void update_bias(real* bias, int width, const real* dy, int count, real lr,
                        real weight_decay) {
  for (int i = threadIdx.x; i < width; i += THREADS) {
    real gradient = weight_decay * bias[i];
    for (int image = 0; image < count; image++) gradient += dy[image * width + i];
    bias[i] -= lr * gradient;
  }
}

DEVICE void store_results(const Shared& shared, int count, double* loss, int* correct) {
  double total = 0;
  int hits = 0;
  for (int image = 0; image < count; image++) {
    total += double(shared.losses[image]);
    hits += shared.correct[image];
  }
  *loss = total / count;
  *correct = hits;
}

DEVICE void copy(const real* source, int count, real* target) {
  for (int i = threadIdx.x; i < count; i += THREADS) target[i] = source[i];
}

// Copies parameters to global memory; sets `diverged` if one is not finite.
DEVICE void store(const real* source, int count, real* target, int* diverged) {
  for (int i = threadIdx.x; i < count; i += THREADS) {
    target[i] = source[i];
    if (!is_finite(source[i])) *diverged = 1;
  }
}

// Step i trains with the rows bounds[2 · i] .. bounds[2 · i + 1] of `rows` and the learning rate
// rates[3 · i], and stores its mean loss and its number of correct predictions. `partial_sums` has
// 2·BLOCKS·UNITS elements. Sets `diverged` if a parameter is not finite at the end. A member with fewer steps than another ends with steps without images.
// Grid: (BLOCKS, 1, members) blocks of THREADS threads; those of a member are resident together.
// Long: the pointers are parameters, not members of a struct, because __restrict__ has no effect on
// members.
// At most 112 registers.
extern "C" __global__ void CLUSTER_DIMS __launch_bounds__(THREADS, 1)
    persistent_mlp(const PIXEL* __restrict__ images, const int* __restrict__ labels,
                   const int* __restrict__ rows, const int* __restrict__ bounds,
                   const real* __restrict__ rates, MlpSettings settings, int64 member_stride,
                   real* __restrict__ weight1, real* __restrict__ bias1,
                   real* __restrict__ weight2, real* __restrict__ bias2, real* partial_sums,
                   unsigned* barrier, double* __restrict__ losses,
                   int* __restrict__ correct, int* diverged) {
  __shared__ Shared shared;
  const int thread = threadIdx.x, block = blockIdx.x, first = block * INPUTS_PER_BLOCK;
  const int inputs = max(0, min(INPUTS_PER_BLOCK, INPUTS - first));  // inputs of this block
  const real weight_decay = settings.weight_decay;
  rows = of_member(rows, member_stride);
  bounds = of_member(bounds, member_stride);
  rates = of_member(rates, member_stride);
  weight1 = of_member(weight1, member_stride);
  bias1 = of_member(bias1, member_stride);
  weight2 = of_member(weight2, member_stride);
  bias2 = of_member(bias2, member_stride);
  partial_sums = of_member(partial_sums, member_stride);
  barrier = of_member(barrier, member_stride);
  losses = of_member(losses, member_stride);
  correct = of_member(correct, member_stride);
  diverged = of_member(diverged, member_stride);
  copy(weight1 + first * HIDDEN, inputs * HIDDEN, shared.weight1);
  copy(weight2, HIDDEN * OUTPUTS, shared.weight2);
  copy(bias1, HIDDEN, shared.bias1);
  copy(bias2, OUTPUTS, shared.bias2);

  for (int step = 0; step < settings.steps; step++) {
    const int begin = bounds[2 * step], count = bounds[2 * step + 1] - begin;
    if (count == 0) break;  // in all blocks of this member
    const real lr = rates[3 * step];
    volatile real* const step_sums = partial_sums + step % 2 * BLOCKS * UNITS;
    for (int i = thread; i < count * inputs; i += THREADS) {
      const int image = i / inputs, k = i % inputs;
      const int64 row = rows[begin + image];
      shared.x[image * INPUTS_PER_BLOCK + k] =
          normalize(images[row * INPUTS + first + k], settings.pixel_shift);
    }
    __syncthreads();
    forward_partial(shared, count, inputs, step_sums + block * UNITS);
    grid_barrier_wait(barrier);
    add_partial_sums(shared, count, step_sums);
    __syncthreads();
    for (int image = thread / WARP_SIZE; image < count; image += THREADS / WARP_SIZE)
      compute_loss(shared, image, count, labels[rows[begin + image]]);
    __syncthreads();
    backward_hidden(shared, count);
    if (block == 0 && thread == 0) store_results(shared, count, losses + step, correct + step);
    __syncthreads();
    update_weight(shared.weight1, inputs, HIDDEN, shared.x, INPUTS_PER_BLOCK, shared.dhidden, count,
                  lr, weight_decay);
    update_weight(shared.weight2, HIDDEN, OUTPUTS, shared.hidden, HIDDEN, shared.dlogits, count, lr,
                  weight_decay);
    update_bias(shared.bias1, HIDDEN, shared.dhidden, count, lr, weight_decay);
    update_bias(shared.bias2, OUTPUTS, shared.dlogits, count, lr, weight_decay);
    __syncthreads();
  }

  // All blocks have passed a grid barrier, so all have read the old weights from global memory. A
  // member without steps writes the values that it has read.
  store(shared.weight1, inputs * HIDDEN, weight1 + first * HIDDEN, diverged);
  if (block > 0) return;  // the copies of the other blocks are identical
  store(shared.weight2, HIDDEN * OUTPUTS, weight2, diverged);
  store(shared.bias1, HIDDEN, bias1, diverged);
  store(shared.bias2, OUTPUTS, bias2, diverged);
}

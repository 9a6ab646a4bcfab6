// Training of two linear layers by small batches: some blocks, resident together, do all steps of a
// section in one launch. Between steps nothing is launched, and the weights stay on the chip.
//
// Layout: block r has rows r·SHARE ... of the first layer's weights in shared memory, and the same
// columns of the batch: what it adds to the hidden units goes through memory, all else stays in the
// block. Every block adds up the parts in the same order and computes the rest of the step itself,
// so all have the same second layer to the last bit, and one barrier of the grid a step is enough;
// two buffers for the parts, taken in turn, keep a fast block from overwriting what a slow one reads.
// Cost per image: INPUTS·HIDDEN multiplications forward and as many back, shared out among the
// blocks, and 4·HIDDEN·OUTPUTS in each.
// Options: -DPIXEL=uint8 or real; -DBLOCKS; -DCLUSTER where they are a cluster; -DBATCH, images of a step at most; -DINPUTS, -DHIDDEN and
// -DOUTPUTS (up to 32); -DACTIVATION of the hidden units; -DLOSS=SOFTMAX_CROSS_ENTROPY,
// BINARY_CROSS_ENTROPY or QUADRATIC.
#include "common.cuh"
#include "grid.cuh"
#include "loss_of_image.cuh"

#define THREADS 256
#define SHARE ((INPUTS + BLOCKS - 1) / BLOCKS)
#define UNITS (BATCH * HIDDEN)  // hidden units of a batch

struct Shared {
  real weight1[SHARE * HIDDEN];
  real weight2[HIDDEN * OUTPUTS];
  real bias1[HIDDEN], bias2[OUTPUTS];
  real x[BATCH * SHARE];
  real hidden[UNITS], dhidden[UNITS];  // outputs of the activation, gradients of its inputs
  real dlogits[BATCH * OUTPUTS];
  real losses[BATCH];
  int correct[BATCH];
};

// Sets loss and gradient of an image; a lane for each class, those left over repeat the last class.
__device__ __forceinline__ void note_loss(Shared& shared, int image, int images, int label) {
  const int lane = threadIdx.x % 32, own = min(lane, OUTPUTS - 1);
  real logit = shared.bias2[own];
  for (int j = 0; j < HIDDEN; j++)
    logit += shared.hidden[image * HIDDEN + j] * shared.weight2[j * OUTPUTS + own];
  const LossOfImage result = loss_of_image(logit, OUTPUTS, label);
  if (lane < OUTPUTS) shared.dlogits[image * OUTPUTS + lane] = result.dlogit / real(images);
  if (lane == 0) {
    shared.losses[image] = result.loss;
    shared.correct[image] = result.is_correct;
  }
}

// Grid: BLOCKS blocks of THREADS, which run at the same time; grid.cuh says how. `parts` are
// 2·BLOCKS·UNITS numbers.
// At most 96 registers.
extern "C" __global__ void TOGETHER __launch_bounds__(256, 1)
    train_small_batches(const PIXEL* __restrict__ images, const int* __restrict__ labels,
                        const int* __restrict__ rows, const int* __restrict__ bounds,
                        const real* __restrict__ rates, int steps, real shift, real weight_decay,
                        real* __restrict__ weight1, real* __restrict__ bias1,
                        real* __restrict__ weight2, real* __restrict__ bias2, real* parts,
                        unsigned* barrier, double* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
  const int thread = threadIdx.x, block = blockIdx.x, first = block * SHARE;
  const int inputs = max(0, min(SHARE, INPUTS - first));  // of this block
  for (int i = thread; i < inputs * HIDDEN; i += THREADS)
    shared.weight1[i] = weight1[first * HIDDEN + i];
  for (int i = thread; i < HIDDEN * OUTPUTS; i += THREADS) shared.weight2[i] = weight2[i];
  for (int i = thread; i < HIDDEN; i += THREADS) shared.bias1[i] = bias1[i];
  if (thread < OUTPUTS) shared.bias2[thread] = bias2[thread];

  for (int step = 0; step < steps; step++) {
    const int begin = bounds[2 * step], count = bounds[2 * step + 1] - begin;
    const real lr = rates[3 * step];
    volatile real* const all_parts = parts + step % 2 * BLOCKS * UNITS;

    // Forward: what these inputs add to the hidden units.
    for (int i = thread; i < count * inputs; i += THREADS) {
      const int image = i / inputs, k = i % inputs;
      const int64 row = rows[begin + image];
      shared.x[image * SHARE + k] = normalised(images[row * INPUTS + first + k], shift);
    }
    __syncthreads();
    for (int i = thread; i < count * HIDDEN; i += THREADS) {
      const int image = i / HIDDEN, j = i % HIDDEN;
      real sum = 0;
      for (int k = 0; k < inputs; k++)
        sum += shared.x[image * SHARE + k] * shared.weight1[k * HIDDEN + j];
      all_parts[block * UNITS + i] = sum;
    }
    wait_for_grid(barrier);
    for (int i = thread; i < count * HIDDEN; i += THREADS) {
      real sum = shared.bias1[i % HIDDEN];
      for (int other = 0; other < BLOCKS; other++) sum += all_parts[other * UNITS + i];
      shared.hidden[i] = activate<ACTIVATION>(sum);
    }
    __syncthreads();
    for (int image = thread / 32; image < count; image += THREADS / 32)
      note_loss(shared, image, count, labels[rows[begin + image]]);
    __syncthreads();

    // Back to the hidden units.
    for (int i = thread; i < count * HIDDEN; i += THREADS) {
      const int image = i / HIDDEN, j = i % HIDDEN;
      real sum = 0;
      for (int o = 0; o < OUTPUTS; o++)
        sum += shared.dlogits[image * OUTPUTS + o] * shared.weight2[j * OUTPUTS + o];
      shared.dhidden[i] = sum * derivative<ACTIVATION>(shared.hidden[i]);
    }
    if (block == 0 && thread == 0) {
      double loss = 0;
      int hits = 0;
      for (int image = 0; image < count; image++) {
        loss += double(shared.losses[image]);
        hits += shared.correct[image];
      }
      losses[step] = loss / count;
      correct[step] = hits;
    }
    __syncthreads();

    // Each weight belongs to one thread of the block.
    for (int i = thread; i < inputs * HIDDEN; i += THREADS) {
      real gradient = weight_decay * shared.weight1[i];
      for (int image = 0; image < count; image++)
        gradient += shared.x[image * SHARE + i / HIDDEN] *
                    shared.dhidden[image * HIDDEN + i % HIDDEN];
      shared.weight1[i] -= lr * gradient;
    }
    for (int i = thread; i < HIDDEN * OUTPUTS; i += THREADS) {
      real gradient = weight_decay * shared.weight2[i];
      for (int image = 0; image < count; image++)
        gradient += shared.hidden[image * HIDDEN + i / OUTPUTS] *
                    shared.dlogits[image * OUTPUTS + i % OUTPUTS];
      shared.weight2[i] -= lr * gradient;
    }
    for (int j = thread; j < HIDDEN; j += THREADS) {
      real gradient = weight_decay * shared.bias1[j];
      for (int image = 0; image < count; image++) gradient += shared.dhidden[image * HIDDEN + j];
      shared.bias1[j] -= lr * gradient;
    }
    if (thread < OUTPUTS) {
      real gradient = weight_decay * shared.bias2[thread];
      for (int image = 0; image < count; image++)
        gradient += shared.dlogits[image * OUTPUTS + thread];
      shared.bias2[thread] -= lr * gradient;
    }
    __syncthreads();
  }

  // Whoever is here met all others at least once, so nobody still reads the weights in memory.
  for (int i = thread; i < inputs * HIDDEN; i += THREADS)
    weight1[first * HIDDEN + i] = shared.weight1[i];
  if (block > 0) return;  // the others have the same
  for (int i = thread; i < HIDDEN * OUTPUTS; i += THREADS) weight2[i] = shared.weight2[i];
  for (int i = thread; i < HIDDEN; i += THREADS) bias1[i] = shared.bias1[i];
  if (thread < OUTPUTS) bias2[thread] = shared.bias2[thread];
}

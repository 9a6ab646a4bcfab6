// Training of a small convolutional network, one image a step: a single block does all steps of a
// section in one launch. Between steps nothing is launched, and no weight leaves the chip.
//
// The network: filters (no bias, no padding) on one channel, an activation, the maximum of each 2×2
// window, a linear layer with bias, any loss, plain descent of the gradient.
//
// Layout: features are numbered as in the network's vector, filter by filter; thread t has features
// t, t + THREADS, ..., and keeps their rows of the linear layer in registers. The image, the filters
// and what threads tell each other are in shared memory.
// Cost per image: FEATURES·(4·TAPS + 3·CLASSES) multiplications forward and back, and five barriers.
// One multiprocessor does all of it: at a batch of one there is nothing to do for the others.
// Options: -DPIXEL=uint8 or real; -DACTIVATION; -DKERNEL_SIZE (up to 5); -DFILTERS (up to 16);
// -DHEIGHT and -DWIDTH of an image; -DCLASSES (up to 32); -DLOSS=SOFTMAX_CROSS_ENTROPY,
// BINARY_CROSS_ENTROPY or QUADRATIC.
#include "common.cuh"
#include "loss_of_image.cuh"

#define THREADS 512
#define WARPS (THREADS / 32)
#define TAPS (KERNEL_SIZE * KERNEL_SIZE)
#define PIXELS (HEIGHT * WIDTH)
#define PIXELS_A_THREAD ((PIXELS + THREADS - 1) / THREADS)
#define DOWN ((HEIGHT - KERNEL_SIZE + 1) / 2)  // windows
#define ACROSS ((WIDTH - KERNEL_SIZE + 1) / 2)
#define CELLS (DOWN * ACROSS)
#define FEATURES (FILTERS * CELLS)
#define FEATURES_A_THREAD ((FEATURES + THREADS - 1) / THREADS)
#define WARPS_A_FILTER (WARPS / FILTERS)

struct Shared {
  real image[PIXELS];
  real filters[FILTERS][TAPS];
  real bias[CLASSES];
  real logits[WARPS][CLASSES];  // what the features of each warp add
  real dlogits[CLASSES];
  real gradients[FEATURES];  // of the windows' maxima, before the activation
  uint8 masks[FEATURES];     // which outputs of a window receive its gradient
  real filter_gradients[WARPS_A_FILTER][FILTERS][TAPS];
};

// Returns where in the image the first tap of a window's first output lies.
__device__ __forceinline__ int corner(int cell) {
  return cell / ACROSS * 2 * WIDTH + cell % ACROSS * 2;
}

// Returns the maximum of a window, and sets which outputs have it, or the first that has.
__device__ __forceinline__ real largest_of_window(const Shared& shared, int feature, int all_ties,
                                                  uint8& mask) {
  const real* const taps = shared.filters[feature / CELLS];
  const real* const patch = shared.image + corner(feature % CELLS);
  real largest = 0;
  unsigned bits = 0;
#pragma unroll
  for (int bit = 0; bit < 4; bit++) {
    real sum = 0;
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++)
      sum += taps[tap] * patch[(bit / 2 + tap / KERNEL_SIZE) * WIDTH + bit % 2 + tap % KERNEL_SIZE];
    if (bit == 0 || sum > largest || sum != sum) {
      largest = sum;
      bits = 1u << bit;
    } else if (all_ties && sum == largest) {
      bits |= 1u << bit;
    }
  }
  mask = uint8(bits);
  return largest;
}

// Grid: one block of THREADS. `rows` holds an image of the data set for each step, `rates` three
// numbers, of which the first is the learning rate.
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(512)
    train_one_by_one(const PIXEL* __restrict__ images, const int* __restrict__ labels,
                     const int* __restrict__ rows, const real* __restrict__ rates, int steps,
                     real shift, real weight_decay, int all_ties, real* __restrict__ filters,
                     real* __restrict__ weight, real* __restrict__ bias,
                     double* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  real own_weight[FEATURES_A_THREAD][CLASSES];
  for (int j = 0; j < FEATURES_A_THREAD; j++)
    for (int c = 0; c < CLASSES; c++) {
      const int feature = thread + j * THREADS;
      own_weight[j][c] = feature < FEATURES ? weight[feature * CLASSES + c] : real(0);
    }
  for (int i = thread; i < FILTERS * TAPS; i += THREADS)
    shared.filters[i / TAPS][i % TAPS] = filters[i];
  if (thread < CLASSES) shared.bias[thread] = bias[thread];
  for (int i = thread; i < PIXELS; i += THREADS)
    shared.image[i] = normalised(images[int64(rows[0]) * PIXELS + i], shift);
  __syncthreads();

  for (int step = 0; step < steps; step++) {
    const real lr = rates[3 * step];
    const int label = labels[rows[step]];

    // Forward: features, and what they add to the logits.
    real features[FEATURES_A_THREAD];
    real sums[CLASSES];
#pragma unroll
    for (int c = 0; c < CLASSES; c++) sums[c] = 0;
#pragma unroll
    for (int j = 0; j < FEATURES_A_THREAD; j++) {
      const int feature = thread + j * THREADS;
      features[j] = 0;
      if (feature < FEATURES)
        features[j] = activate<ACTIVATION>(
            largest_of_window(shared, feature, all_ties, shared.masks[feature]));
#pragma unroll
      for (int c = 0; c < CLASSES; c++) sums[c] += features[j] * own_weight[j][c];
    }
#pragma unroll
    for (int c = 0; c < CLASSES; c++) {
      const real sum = sum_of_warp(sums[c]);
      if (lane == 0) shared.logits[warp][c] = sum;
    }
    __syncthreads();

    // Loss: a lane of the first warp for each class; the lanes left over repeat the last class.
    if (warp == 0) {
      const int own = min(lane, CLASSES - 1);
      real logit = shared.bias[own];
      for (int w = 0; w < WARPS; w++) logit += shared.logits[w][own];
      const LossOfImage result = loss_of_image(logit, CLASSES, label);
      if (lane < CLASSES) {
        shared.dlogits[lane] = result.dlogit;
        shared.bias[lane] -= lr * (result.dlogit + weight_decay * shared.bias[lane]);
      }
      if (lane == 0) {
        losses[step] = double(result.loss);
        correct[step] = result.is_correct;
      }
    }
    __syncthreads();

    // Back through the linear layer, which is updated on the way.
#pragma unroll
    for (int j = 0; j < FEATURES_A_THREAD; j++) {
      const int feature = thread + j * THREADS;
      real gradient = 0;
#pragma unroll
      for (int c = 0; c < CLASSES; c++) {
        const real dlogit = shared.dlogits[c];
        gradient += dlogit * own_weight[j][c];
        own_weight[j][c] -= lr * (features[j] * dlogit + weight_decay * own_weight[j][c]);
      }
      if (feature < FEATURES)
        shared.gradients[feature] = gradient * derivative<ACTIVATION>(features[j]);
    }
    __syncthreads();

    // Back to the filters: some warps for each, a lane every 32nd cell of its share.
    const int filter = warp % FILTERS, share = warp / FILTERS;
    if (share < WARPS_A_FILTER) {
      real taps[TAPS];
#pragma unroll
      for (int tap = 0; tap < TAPS; tap++) taps[tap] = 0;
      for (int cell = share * 32 + lane; cell < CELLS; cell += WARPS_A_FILTER * 32) {
        const real gradient = shared.gradients[filter * CELLS + cell];
        const int mask = shared.masks[filter * CELLS + cell];
        for (int bit = 0; bit < 4; bit++) {
          if (!(mask >> bit & 1)) continue;
          const real* const patch = shared.image + corner(cell) + bit / 2 * WIDTH + bit % 2;
#pragma unroll
          for (int tap = 0; tap < TAPS; tap++)
            taps[tap] += gradient * patch[tap / KERNEL_SIZE * WIDTH + tap % KERNEL_SIZE];
        }
      }
#pragma unroll
      for (int tap = 0; tap < TAPS; tap++) {
        const real sum = sum_of_warp(taps[tap]);
        if (lane == 0) shared.filter_gradients[share][filter][tap] = sum;
      }
    }
    // Asked for here, the next image is there when it is needed.
    real next[PIXELS_A_THREAD];
    for (int j = 0; j < PIXELS_A_THREAD; j++) {
      const int i = thread + j * THREADS;
      const bool is_needed = step + 1 < steps && i < PIXELS;
      next[j] = is_needed ? normalised(images[int64(rows[step + 1]) * PIXELS + i], shift) : real(0);
    }
    __syncthreads();

    for (int i = thread; i < FILTERS * TAPS; i += THREADS) {
      real& own = shared.filters[i / TAPS][i % TAPS];
      real gradient = weight_decay * own;
      for (int s = 0; s < WARPS_A_FILTER; s++)
        gradient += shared.filter_gradients[s][i / TAPS][i % TAPS];
      own -= lr * gradient;
    }
    for (int j = 0; j < PIXELS_A_THREAD; j++)
      if (thread + j * THREADS < PIXELS) shared.image[thread + j * THREADS] = next[j];
    __syncthreads();
  }

  for (int j = 0; j < FEATURES_A_THREAD; j++)
    for (int c = 0; c < CLASSES; c++) {
      const int feature = thread + j * THREADS;
      if (feature < FEATURES) weight[feature * CLASSES + c] = own_weight[j][c];
    }
  for (int i = thread; i < FILTERS * TAPS; i += THREADS)
    filters[i] = shared.filters[i / TAPS][i % TAPS];
  if (thread < CLASSES) bias[thread] = shared.bias[thread];
}

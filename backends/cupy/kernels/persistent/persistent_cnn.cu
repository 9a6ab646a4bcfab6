// Trains a small convolutional network with batches of one image: one block per member runs all
// steps of a chunk in one launch. The weights stay in registers and shared memory between the steps.
//
// The network: a convolution (one input channel, no bias, no padding), an activation, 2×2
// max-pooling, a linear layer with bias, and any loss. The optimizer is SGD.
//
// Layout: a *feature* is an output of the pooling, numbered filter by filter as in the parameter
// vector. Thread t keeps the features t, t + THREADS, .. and their rows of the linear layer's
// weights in registers. The image, the filters and the data that threads exchange are in shared
// memory.
//
//   phase                          work of a thread                             ends with
//   features and partial logits    FEATURES_PER_THREAD pooled outputs           barrier
//   loss, update of the bias       warp 0, one lane per class                   barrier
//   linear layer backward, update  its rows of the weights                      barrier
//   filter gradients               WARPS_PER_FILTER warps per filter            barrier
//   update of the filters          one tap; copies its pixels of the next image barrier
//
// Cost per image: FEATURES·(4·TAPS + 3·CLASSES) multiply-adds forward and backward, and five
// barriers. It uses one multiprocessor: a batch of one image has too little work for more.
// Options: -DPIXEL=uint8, float or double, the element type of the data set; -DACTIVATION; -DLOSS
// as in losses.cu; -DKERNEL_SIZE, -DFILTERS, -DHEIGHT, -DWIDTH and -DCLASSES, sizes of the
// network; -DTHREADS per block. backends/cupy/launch/persistent_cnn.py has their limits.
#include "common.cuh"
#include "image_loss.cuh"

constexpr int WARPS = THREADS / WARP_SIZE;
constexpr int TAPS = KERNEL_SIZE * KERNEL_SIZE;
constexpr int PIXELS = HEIGHT * WIDTH;
constexpr int PIXELS_PER_THREAD = (PIXELS + THREADS - 1) / THREADS;
constexpr int CELL_ROWS = (HEIGHT - KERNEL_SIZE + 1) / 2,
              CELL_COLUMNS = (WIDTH - KERNEL_SIZE + 1) / 2;
constexpr int CELLS = CELL_ROWS * CELL_COLUMNS;
constexpr int FEATURES = FILTERS * CELLS;
constexpr int FEATURES_PER_THREAD = (FEATURES + THREADS - 1) / THREADS;
constexpr int WARPS_PER_FILTER = WARPS / FILTERS;

struct CnnSettings {
  int steps;  // of the member with the most steps
  real pixel_shift, weight_decay;
  int all_ties;  // tie rule of the pooling, as in pooling.cu
};

struct Shared {
  real image[PIXELS];
  real filters[FILTERS][TAPS];
  real bias[CLASSES];
  real partial_logits[WARPS][CLASSES];  // sums over the features of each warp
  real dlogits[CLASSES];
  real gradients[FEATURES];  // gradients of the pre-activations
  uint8 masks[FEATURES];     // tie masks
  real filter_gradients[WARPS_PER_FILTER][FILTERS][TAPS];
  // In float64, no register is left for these two.
  real lr;  // of this step
  int64 member_stride;
};

// Returns the array of the member of this block.
template <class Element>
DEVICE Element* own(const Shared& shared, Element* array) {
  return of_member(array, shared.member_stride);
}

typedef real ThreadFeatures[FEATURES_PER_THREAD];
typedef real ThreadWeights[FEATURES_PER_THREAD][CLASSES];

// Returns the index in the image of the first pixel that a cell depends on.
DEVICE int patch_begin(int cell) {
  return cell / CELL_COLUMNS * 2 * WIDTH + cell % CELL_COLUMNS * 2;
}

// Returns the maximum of a feature's four convolution outputs, and sets its tie mask.
DEVICE real max_of_patch(const Shared& shared, int feature, int all_ties, uint8& mask) {
  const real* const taps = shared.filters[feature / CELLS];
  const real* const patch = shared.image + patch_begin(feature % CELLS);
  PatchMaximum<unsigned> maximum;
#pragma unroll
  for (int bit = 0; bit < 4; bit++) {
    real sum = 0;
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++)
      sum += taps[tap] * patch[(bit / 2 + tap / KERNEL_SIZE) * WIDTH + bit % 2 + tap % KERNEL_SIZE];
    if (bit == 0)
      maximum = {sum, 1};
    else
      maximum.add(sum, 1u << bit, all_ties);
  }
  mask = uint8(maximum.mask);
  return maximum.value;
}

// Computes the features of a thread, and sets the partial logits of its warp.
DEVICE void compute_features(Shared& shared, const ThreadWeights& weights, int all_ties,
                             ThreadFeatures& features) {
  real sums[CLASSES] = {};
#pragma unroll
  for (int j = 0; j < FEATURES_PER_THREAD; j++) {
    const int feature = threadIdx.x + j * THREADS;
    features[j] = 0;
    if (feature < FEATURES)
      features[j] =
          activate(ACTIVATION, max_of_patch(shared, feature, all_ties, shared.masks[feature]));
#pragma unroll
    for (int c = 0; c < CLASSES; c++) sums[c] += features[j] * weights[j][c];
  }
#pragma unroll
  for (int c = 0; c < CLASSES; c++) {
    const real sum = warp_reduce_sum(sums[c]);
    if (threadIdx.x % WARP_SIZE == 0) shared.partial_logits[threadIdx.x / WARP_SIZE][c] = sum;
  }
}

// Computes the loss and dlogits, and updates the bias. All lanes of the first warp must call this;
// lane i computes class i.
DEVICE ImageLoss compute_loss(Shared& shared, int label, real lr, real weight_decay) {
  const int lane = threadIdx.x, own_class = min(lane, CLASSES - 1);
  real logit = shared.bias[own_class];
  for (int warp = 0; warp < WARPS; warp++) logit += shared.partial_logits[warp][own_class];
  const ImageLoss result = image_loss<LOSS>(logit, CLASSES, label);
  if (lane < CLASSES) {
    shared.dlogits[lane] = result.dlogit;
    shared.bias[lane] -= lr * (result.dlogit + weight_decay * shared.bias[lane]);
  }
  return result;
}

// Computes the gradients of a thread's pre-activations, and updates its rows of the linear layer.
DEVICE void backward_linear(Shared& shared, const ThreadFeatures& features, real lr,
                            real weight_decay, ThreadWeights& weights) {
#pragma unroll
  for (int j = 0; j < FEATURES_PER_THREAD; j++) {
    const int feature = threadIdx.x + j * THREADS;
    real gradient = 0;
#pragma unroll
    for (int c = 0; c < CLASSES; c++) {
      const real dlogit = shared.dlogits[c];
      gradient += dlogit * weights[j][c];
      weights[j][c] -= lr * (features[j] * dlogit + weight_decay * weights[j][c]);
    }
    if (feature < FEATURES)
      shared.gradients[feature] = gradient * derivative(ACTIVATION, features[j]);
  }
}

// Computes the gradients of the filters. WARPS_PER_FILTER warps split the cells of a filter.
DEVICE void compute_filter_gradients(Shared& shared) {
  const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  const int filter = warp % FILTERS, split = warp / FILTERS;
  if (split >= WARPS_PER_FILTER) return;
  real taps[TAPS] = {};
  for (int cell = split * WARP_SIZE + lane; cell < CELLS; cell += WARPS_PER_FILTER * WARP_SIZE) {
    const real gradient = shared.gradients[filter * CELLS + cell];
    const int mask = shared.masks[filter * CELLS + cell];
    for (int bit = 0; bit < 4; bit++) {
      if (!(mask >> bit & 1)) continue;
      const real* const patch = shared.image + patch_begin(cell) + bit / 2 * WIDTH + bit % 2;
#pragma unroll
      for (int tap = 0; tap < TAPS; tap++)
        taps[tap] += gradient * patch[tap / KERNEL_SIZE * WIDTH + tap % KERNEL_SIZE];
    }
  }
#pragma unroll
  for (int tap = 0; tap < TAPS; tap++) {
    const real sum = warp_reduce_sum(taps[tap]);
    if (lane == 0) shared.filter_gradients[split][filter][tap] = sum;
  }
}

DEVICE void update_filters(Shared& shared, real lr, real weight_decay) {
  for (int i = threadIdx.x; i < FILTERS * TAPS; i += THREADS) {
    real& tap = shared.filters[i / TAPS][i % TAPS];
    real gradient = weight_decay * tap;
    for (int split = 0; split < WARPS_PER_FILTER; split++)
      gradient += shared.filter_gradients[split][i / TAPS][i % TAPS];
    tap -= lr * gradient;
  }
}

// Copies a parameter to global memory if `stores`, else from global memory. Returns whether it is
// finite.
template <bool stores>
DEVICE bool copy(real& memory, real& held) {
  if constexpr (stores)
    memory = held;
  else
    held = memory;
  return is_finite(held);
}

// Copies all parameters to global memory if `stores`, else from global memory. Rows of `weights`
// without a feature are 0. Returns whether the parameters of this thread are finite.
template <bool stores>
DEVICE bool copy_parameters(real* filters, real* weight, real* bias, ThreadWeights& weights,
                            Shared& shared) {
  bool finite = true;
  for (int j = 0; j < FEATURES_PER_THREAD; j++)
    for (int c = 0; c < CLASSES; c++) {
      const int feature = threadIdx.x + j * THREADS;
      if constexpr (!stores) weights[j][c] = 0;
      if (feature < FEATURES) finite &= copy<stores>(weight[feature * CLASSES + c], weights[j][c]);
    }
  for (int i = threadIdx.x; i < FILTERS * TAPS; i += THREADS)
    finite &= copy<stores>(filters[i], shared.filters[i / TAPS][i % TAPS]);
  if (threadIdx.x < CLASSES) finite &= copy<stores>(bias[threadIdx.x], shared.bias[threadIdx.x]);
  return finite;
}

// Step i trains with row rows[i] of the data set and the learning rate rates[3 · i], and stores its
// loss and whether the prediction was correct. `bounds` is as in persistent_mlp.cu: the last step
// ends after the last image of the member, and each of its images is a step. Sets `diverged` if a
// parameter is not finite at the end.
// Grid: one block of THREADS threads per member, which is blockIdx.z.
// At most 128 registers.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    persistent_cnn(const PIXEL* __restrict__ images, const int* __restrict__ labels,
                   const int* __restrict__ rows, const int* __restrict__ bounds,
                   const real* __restrict__ rates, CnnSettings settings, int64 member_stride,
                   real* __restrict__ filters, real* __restrict__ weight, real* __restrict__ bias,
                   double* __restrict__ losses, int* __restrict__ correct, int* diverged) {
  __shared__ Shared shared;
  const int thread = threadIdx.x;
  const int steps = of_member(bounds, member_stride)[2 * settings.steps - 1];
  if (steps == 0) return;  // the row of the first image is not set
  if (thread == 0) shared.member_stride = member_stride;
  __syncthreads();
  const real weight_decay = settings.weight_decay, pixel_shift = settings.pixel_shift;
  ThreadWeights weights;
  copy_parameters<false>(own(shared, filters), own(shared, weight), own(shared, bias), weights,
                         shared);
  for (int i = thread; i < PIXELS; i += THREADS)
    shared.image[i] = normalize(images[int64(own(shared, rows)[0]) * PIXELS + i], pixel_shift);
  __syncthreads();

  for (int step = 0; step < steps; step++) {
    const real lr = own(shared, rates)[3 * step];
    const int label = labels[own(shared, rows)[step]];
    ThreadFeatures features;
    compute_features(shared, weights, settings.all_ties, features);
    if (thread == 0) shared.lr = lr;
    __syncthreads();
    if (thread < WARP_SIZE) {
      const ImageLoss result = compute_loss(shared, label, shared.lr, weight_decay);
      if (thread == 0) {
        own(shared, losses)[step] = double(result.loss);
        own(shared, correct)[step] = result.is_correct;
      }
    }
    __syncthreads();
    backward_linear(shared, features, shared.lr, weight_decay, weights);
    __syncthreads();
    compute_filter_gradients(shared);
    // Loads the next image early, so that the latency overlaps with the barrier and the update.
    real next_pixels[PIXELS_PER_THREAD];
    for (int j = 0; j < PIXELS_PER_THREAD; j++) {
      const int i = thread + j * THREADS;
      const bool exists = step + 1 < steps && i < PIXELS;
      next_pixels[j] = 0;
      if (exists) {
        const int64 row = own(shared, rows)[step + 1];
        next_pixels[j] = normalize(images[row * PIXELS + i], pixel_shift);
      }
    }
    __syncthreads();
    update_filters(shared, shared.lr, weight_decay);
    for (int j = 0; j < PIXELS_PER_THREAD; j++)
      if (thread + j * THREADS < PIXELS) shared.image[thread + j * THREADS] = next_pixels[j];
    __syncthreads();
  }
  if (!copy_parameters<true>(own(shared, filters), own(shared, weight), own(shared, bias), weights,
                             shared))
    *own(shared, diverged) = 1;
}

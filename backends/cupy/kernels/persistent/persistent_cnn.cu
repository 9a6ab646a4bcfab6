// Trains a small convolutional network with batches of one image: one block per member runs all
// steps of a chunk in one launch. The weights stay in registers between the steps.
//
// The network: a convolution (one input channel, no bias, no padding), an activation, 2×2
// max-pooling, a linear layer with bias, and any loss. The optimizer is SGD.
//
// Layout: a *feature* is an output of the pooling, numbered filter by filter as in the parameter
// vector. WARPS_PER_FILTER consecutive warps compute the features of a filter; a thread has up to
// CELLS_PER_THREAD of them, and keeps their rows of the linear layer's weights in registers. Each
// lane of a warp has one tap of the warp's filter. Images and the data that warps exchange are in
// shared memory.
//
//   phase                                          work of                     ends with
//   features, partial logits                       all threads                 barrier
//   loss, update of the bias                       warp 0, one lane per class
//   store of the next image                        the other warps             barrier
//   linear layer backward and update,              all threads                 barrier
//   partial gradients of the filters
//   update of the filters                          each warp, one lane per tap
//
// All warps of a filter compute the same update of its taps, so no barrier is needed after it.
// Cost per image: FEATURES·(8·TAPS + 3·CLASSES) multiply-adds forward and backward, and three
// barriers. It uses one multiprocessor: a batch of one image has too little work for more.
// Options: -DPIXEL=uint8, float or double, the element type of the data set; -DACTIVATION; -DLOSS
// as in losses.cu; -DALL_TIES=1 or 0, the tie rule of the pooling as in pooling.cu; -DKERNEL_SIZE,
// -DFILTERS, -DHEIGHT, -DWIDTH and -DCLASSES, sizes of the network; -DWARPS_PER_FILTER.
// backends/cupy/launch/persistent_cnn.py has their limits.
#include "cell_patches.cuh"
#include "common.cuh"
#include "image_loss.cuh"

constexpr int WARPS = FILTERS * WARPS_PER_FILTER, THREADS = WARPS * WARP_SIZE;
constexpr int THREADS_PER_FILTER = WARPS_PER_FILTER * WARP_SIZE;
constexpr int TAP_SUMS = power_of_two(TAPS), CLASS_SUMS = power_of_two(CLASSES);
constexpr int LOADERS = THREADS - WARP_SIZE;  // threads that load the next image: all but warp 0
constexpr int PIXELS_PER_LOADER = (PIXELS + LOADERS - 1) / LOADERS;
constexpr int CELLS_PER_THREAD = (CELLS + THREADS_PER_FILTER - 1) / THREADS_PER_FILTER;

static_assert(WARPS > 1, "warp 0 does not load the next image");
static_assert(TAPS <= WARP_SIZE && CLASSES <= WARP_SIZE, "one lane per tap and per class");

struct CnnSettings {
  int steps;  // of the member with the most steps
  real pixel_shift, weight_decay;
};

// What a step reads besides the parameters.
struct StepInput {
  alignas(PixelPair) real image[IMAGE_SIZE];
  real lr;
  int label;
};

struct Shared {
  StepInput inputs[2];  // of this step and of the next one
  real bias[CLASSES];
  real partial_logits[WARPS][CLASSES];  // sums over the features of each warp
  real dlogits[CLASSES];
  real rate_dlogits[CLASSES];          // learning rate times dlogits
  real filter_gradients[WARPS][TAPS];  // sums over the cells of each warp
  int64 member_stride;                 // no register is left for it
};

// Returns the array of the member of this block.
template <class Element>
DEVICE Element* own(const Shared& shared, Element* array) {
  return of_member(array, shared.member_stride);
}

typedef real ThreadWeights[CELLS_PER_THREAD][CLASSES];

// The features of a thread, and their tie masks.
struct ThreadFeatures {
  real values[CELLS_PER_THREAD];
  unsigned masks[CELLS_PER_THREAD];
};

DEVICE int own_filter() { return threadIdx.x / THREADS_PER_FILTER; }

// Returns cell j of this thread; CELLS or more if there is none.
DEVICE int own_cell(int j) { return threadIdx.x % THREADS_PER_FILTER + j * THREADS_PER_FILTER; }

// Computes the features of a thread. `tap` is the tap of this lane.
DEVICE ThreadFeatures compute_features(const real* image, real tap) {
  real taps[TAPS];
#pragma unroll
  for (int i = 0; i < TAPS; i++) taps[i] = __shfl_sync(FULL_MASK, tap, i);
  ThreadFeatures features;
#pragma unroll
  for (int j = 0; j < CELLS_PER_THREAD; j++) {
    real outputs[OUTPUTS] = {};
    for_each_product(patch_of(image, own_cell(j)),
                     [&](int output, int i, real pixel) { outputs[output] += taps[i] * pixel; });
    PatchMaximum<unsigned> maximum = {outputs[0], 1};
#pragma unroll
    for (int output = 1; output < OUTPUTS; output++)
      maximum.add(outputs[output], 1u << output, ALL_TIES);
    const bool exists = own_cell(j) < CELLS;
    features.values[j] = exists ? activate(ACTIVATION, maximum.value) : real(0);
    features.masks[j] = exists ? maximum.mask : 0;
  }
  return features;
}

// Sets the partial logits of a warp.
DEVICE void add_logits(Shared& shared, const ThreadFeatures& features,
                       const ThreadWeights& weights) {
  constexpr int LANES_PER_CLASS = WARP_SIZE / CLASS_SUMS;
  real sums[CLASS_SUMS] = {};
#pragma unroll
  for (int j = 0; j < CELLS_PER_THREAD; j++)
#pragma unroll
    for (int c = 0; c < CLASSES; c++) sums[c] += features.values[j] * weights[j][c];
  const real sum = warp_reduce_scatter<CLASS_SUMS>(sums);
  const int lane = threadIdx.x % WARP_SIZE, own_class = lane / LANES_PER_CLASS;
  if (lane % LANES_PER_CLASS == 0 && own_class < CLASSES)
    shared.partial_logits[threadIdx.x / WARP_SIZE][own_class] = sum;
}

// Computes the loss and dlogits, and updates the bias. All lanes of the first warp must call this;
// lane i computes class i.
DEVICE ImageLoss compute_loss(Shared& shared, const StepInput& input, real weight_decay) {
  const int lane = threadIdx.x, own_class = min(lane, CLASSES - 1);
  real sums[4] = {shared.bias[own_class]};  // several, because each addition waits for its operands
#pragma unroll
  for (int warp = 0; warp < WARPS; warp++) sums[warp % 4] += shared.partial_logits[warp][own_class];
  const real logit = sums[0] + sums[1] + (sums[2] + sums[3]);
  const ImageLoss result = image_loss<LOSS, CLASS_SUMS>(logit, CLASSES, input.label);
  if (lane < CLASSES) {
    shared.dlogits[lane] = result.dlogit;
    shared.rate_dlogits[lane] = input.lr * result.dlogit;
    shared.bias[lane] -= input.lr * (result.dlogit + weight_decay * shared.bias[lane]);
  }
  return result;
}

// Computes the gradients of a thread's pre-activations, and updates its rows of the linear layer.
// `decay` is the learning rate times the weight decay.
DEVICE void backward_linear(const Shared& shared, const ThreadFeatures& features, real decay,
                            ThreadWeights& weights, real (&gradients)[CELLS_PER_THREAD]) {
#pragma unroll
  for (int j = 0; j < CELLS_PER_THREAD; j++) {
    gradients[j] = 0;
#pragma unroll
    for (int c = 0; c < CLASSES; c++) gradients[j] += shared.dlogits[c] * weights[j][c];
    gradients[j] *= derivative(ACTIVATION, features.values[j]);
  }
  if (decay != 0)
#pragma unroll
    for (int i = 0; i < CELLS_PER_THREAD * CLASSES; i++)
      weights[i / CLASSES][i % CLASSES] -= decay * weights[i / CLASSES][i % CLASSES];
#pragma unroll
  for (int c = 0; c < CLASSES; c++)
#pragma unroll
    for (int j = 0; j < CELLS_PER_THREAD; j++)
      weights[j][c] -= features.values[j] * shared.rate_dlogits[c];
}

// Sets the sums of a warp over its cells in the gradient of its filter.
DEVICE void add_filter_gradients(Shared& shared, const real* image, const ThreadFeatures& features,
                                 const real (&gradients)[CELLS_PER_THREAD]) {
  constexpr int LANES_PER_TAP = WARP_SIZE / TAP_SUMS;
  real sums[TAP_SUMS] = {};
#pragma unroll
  for (int j = 0; j < CELLS_PER_THREAD; j++) {
    real outputs[OUTPUTS];
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++)
      outputs[i] = features.masks[j] >> i & 1 ? gradients[j] : real(0);
    for_each_product(patch_of(image, own_cell(j)), [&](int output, int tap, real pixel) {
      sums[tap] += outputs[output] * pixel;
    });
  }
  const real sum = warp_reduce_scatter<TAP_SUMS>(sums);
  const int lane = threadIdx.x % WARP_SIZE, tap = lane / LANES_PER_TAP;
  if (lane % LANES_PER_TAP == 0 && tap < TAPS)
    shared.filter_gradients[threadIdx.x / WARP_SIZE][tap] = sum;
}

// Updates the tap of each lane; in lanes without a tap, that of the last one.
DEVICE void update_tap(const Shared& shared, real lr, real weight_decay, real& tap) {
  const int own_tap = min(int(threadIdx.x) % WARP_SIZE, TAPS - 1);
  real gradient = weight_decay * tap;
#pragma unroll
  for (int i = 0; i < WARPS_PER_FILTER; i++)
    gradient += shared.filter_gradients[own_filter() * WARPS_PER_FILTER + i][own_tap];
  tap -= lr * gradient;
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
                            real& tap, Shared& shared) {
  bool finite = true;
  for (int j = 0; j < CELLS_PER_THREAD; j++)
    for (int c = 0; c < CLASSES; c++) {
      if constexpr (!stores) weights[j][c] = 0;
      const int feature = own_filter() * CELLS + own_cell(j);
      if (own_cell(j) < CELLS) finite &= copy<stores>(weight[feature * CLASSES + c], weights[j][c]);
    }
  const int own_tap = min(int(threadIdx.x) % WARP_SIZE, TAPS - 1);
  finite &= copy<stores>(filters[own_filter() * TAPS + own_tap], tap);
  if (threadIdx.x < CLASSES) finite &= copy<stores>(bias[threadIdx.x], shared.bias[threadIdx.x]);
  return finite;
}

// The data set, and the steps of the first member.
struct Steps {
  const PIXEL* images;
  const int *labels, *rows;
  const real* rates;
  real pixel_shift;

  // Returns the row of the data set of a step of the member of this block.
  DEVICE int row(const Shared& shared, int step) const { return own(shared, rows)[step]; }
};

// The pixels of the image of a step that a thread loads; in warp 0 there are none.
struct PixelLoader {
  PIXEL pixels[PIXELS_PER_LOADER];

  // Returns the number of the thread's pixel j; PIXELS or more if there is none.
  DEVICE static int number(int j) { return int(threadIdx.x) - WARP_SIZE + j * LOADERS; }

  DEVICE void load(const Steps& steps, int row) {
    const PIXEL* const image = steps.images + int64(row) * PIXELS;
#pragma unroll
    for (int j = 0; j < PIXELS_PER_LOADER; j++)
      if (number(j) < PIXELS) pixels[j] = image[number(j)];
  }

  // Stores the pixels, and the other inputs of the step.
  DEVICE void store(const Steps& steps, int step, int row, Shared& shared, StepInput& input) const {
#pragma unroll
    for (int j = 0; j < PIXELS_PER_LOADER; j++)
      if (number(j) < PIXELS)
        input.image[pixel_index(number(j) / WIDTH, number(j) % WIDTH)] =
            normalize(pixels[j], steps.pixel_shift);
    if (threadIdx.x == WARP_SIZE) {
      input.lr = own(shared, steps.rates)[3 * step];
      input.label = steps.labels[row];
    }
  }
};

// Step i trains with row rows[i] of the data set and the learning rate rates[3 · i], and stores its
// loss and whether the prediction was correct. `bounds` is as in persistent_mlp.cu: the last step
// ends after the last image of the member, and each of its images is a step. Sets `diverged` if a
// parameter is not finite at the end.
// Grid: one block of THREADS threads per member, which is blockIdx.z.
// With 16 warps, the launch bounds limit a thread to 128 registers.
// At most 255 registers.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    persistent_cnn(const PIXEL* __restrict__ images, const int* __restrict__ labels,
                   const int* __restrict__ rows, const int* __restrict__ bounds,
                   const real* __restrict__ rates, CnnSettings settings, int64 member_stride,
                   real* __restrict__ filters, real* __restrict__ weight, real* __restrict__ bias,
                   double* __restrict__ losses, int* __restrict__ correct, int* diverged) {
  __shared__ Shared shared;
  const int thread = threadIdx.x;
  const int count = of_member(bounds, member_stride)[2 * settings.steps - 1];
  if (count == 0) return;  // the row of the first image is not set
  if (thread == 0) shared.member_stride = member_stride;
  __syncthreads();
  const real weight_decay = settings.weight_decay;
  const Steps steps = {images, labels, rows, rates, settings.pixel_shift};
  ThreadWeights weights;
  real tap;
  copy_parameters<false>(own(shared, filters), own(shared, weight), own(shared, bias), weights, tap,
                         shared);
  PixelLoader loader;
  const bool loads = thread >= WARP_SIZE;
  if (loads) {
    const int row = steps.row(shared, 0);
    loader.load(steps, row);
    loader.store(steps, 0, row, shared, shared.inputs[0]);
  }
  int next_row = steps.row(shared, min(1, count - 1));
  __syncthreads();

  for (int step = 0; step < count; step++) {
    const StepInput& input = shared.inputs[step % 2];
    // Loads the next image early, so that the latency overlaps with the features. In the last step,
    // it loads the same image again, which is not used.
    if (loads) loader.load(steps, next_row);
    const ThreadFeatures features = compute_features(input.image, tap);
    add_logits(shared, features, weights);
    __syncthreads();
    ImageLoss result;
    if (loads) {
      const int next = min(step + 1, count - 1);
      loader.store(steps, next, next_row, shared, shared.inputs[(step + 1) % 2]);
    } else {
      result = compute_loss(shared, input, weight_decay);
    }
    next_row = steps.row(shared, min(step + 2, count - 1));
    __syncthreads();
    if (thread == 0) {
      own(shared, losses)[step] = double(result.loss);
      own(shared, correct)[step] = result.is_correct;
    }
    real gradients[CELLS_PER_THREAD];
    backward_linear(shared, features, input.lr * weight_decay, weights, gradients);
    add_filter_gradients(shared, input.image, features, gradients);
    __syncthreads();
    update_tap(shared, input.lr, weight_decay, tap);
  }
  if (!copy_parameters<true>(own(shared, filters), own(shared, weight), own(shared, bias), weights,
                             tap, shared))
    *own(shared, diverged) = 1;
}

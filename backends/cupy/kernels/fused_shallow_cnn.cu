// A convolution with 2×2 max-pooling, a linear layer and the loss, forward and back to the gradient of
// the filters, in one launch of a graph step.
//
// The network: a convolution (one input channel, no bias, no padding), an activation, 2×2
// max-pooling, a linear layer, and any loss.
//
// A block computes IMAGES_PER_BLOCK images. Each pixel is normalized once. A thread has one cell of
// FILTERS_PER_THREAD filters, in all images of the block, and keeps in registers what belongs to it:
// features, tie masks, the rows of the linear layer's weights, and sums of the filters' gradients. So
// only pixels and sums over the features pass through shared memory.
//
//   warps       0    1    ..        WARPS_PER_GROUP    ..
//   cells       0..31  32..63  ..   0..31              ..
//   filters     0 .. F - 1          F .. 2·F - 1       ..      F = FILTERS_PER_THREAD
//
//   phase                                          work of                       ends with
//   pixels                                         all threads                   barrier
//   features, partial logits                       all threads                   barrier
//   loss                                           a warp per image              barrier
//   linear layer backward, partial gradients of    all threads                   barrier
//   the filters
//   sums over the warps                            a thread per tap
//
// Each block stores its sums of the filters' gradients, which wgrad_update.cu adds in the order of the
// blocks. wgrad_update.cu also computes the gradient of the linear layer, from features and dlogits.
//
// Layout: a *feature* is an output of the pooling, numbered filter by filter as in convolution.cu.
// Cost per image: FEATURES·(8·TAPS + 2·CLASSES) multiply-adds. A block reads each weight once.
// Options: -DACTIVATION; -DLOSS as in losses.cu; -DALL_TIES=1 or 0, the tie rule of the pooling as in
// pooling.cu; -DKERNEL_SIZE, -DFILTERS, -DHEIGHT, -DWIDTH and -DCLASSES, sizes of the network;
// -DFILTERS_PER_THREAD, a divisor of FILTERS up to 8; -DIMAGES_PER_BLOCK; -DGATHER=1 and -DINPUT as in
// stage_input.cuh. backends/cupy/launch/fused_shallow_cnn.py has their limits.
#include "cell_patches.cuh"
#include "common.cuh"
#include "image_loss.cuh"
#include "stage_input.cuh"

constexpr int GROUPS = FILTERS / FILTERS_PER_THREAD;  // of filters
constexpr int WARPS_PER_GROUP = (CELLS + WARP_SIZE - 1) / WARP_SIZE;
constexpr int WARPS = GROUPS * WARPS_PER_GROUP, THREADS = WARPS * WARP_SIZE;
constexpr int FEATURES = FILTERS * CELLS, GROUP_TAPS = FILTERS_PER_THREAD * TAPS;
constexpr int PIXELS_PER_THREAD = (PIXELS + THREADS - 1) / THREADS;  // of an image
constexpr int LOGITS = IMAGES_PER_BLOCK * CLASSES;                   // of a block
constexpr int CLASS_SUMS = power_of_two(CLASSES);

struct Shared {
  alignas(16) real images[IMAGES_PER_BLOCK][IMAGE_SIZE];
  alignas(16) real filters[GROUPS][GROUP_TAPS];
  // A line of the linear layer's weights per cell of a warp.
  alignas(16) real weight_lines[WARPS][WARP_SIZE * CLASSES];
  alignas(16) real dlogits[IMAGES_PER_BLOCK][(CLASSES + 3) / 4 * 4];
  real partial_logits[WARPS][LOGITS];  // sums over the features of each warp
  real filter_sums[WARPS][GROUP_TAPS];
  real bias[CLASSES];  // 0 if the linear layer has none
  int labels[IMAGES_PER_BLOCK];
};

// Offsets in the parameter vector; `bias` is -1 if the linear layer has none.
struct ShallowCnnParameters {
  int filters, weight, bias;
};

// Arrays that the kernel sets.
struct ShallowCnnResults {
  real* features;  // (B, FEATURES)
  real* dlogits;   // (B, CLASSES), the gradient of the mean loss
  // (blocks, FILTERS·TAPS + FILTERS): the gradients of the filters; the last FILTERS are not set.
  real* filter_sums;
  real* losses;  // (B,)
  int* correct;  // (B,)
};

typedef real ThreadWeights[FILTERS_PER_THREAD][CLASSES];

// The features of a thread in all images.
struct ThreadFeatures {
  real values[IMAGES_PER_BLOCK][FILTERS_PER_THREAD];
  unsigned masks[IMAGES_PER_BLOCK];  // four bits per filter
};

DEVICE int own_warp() { return threadIdx.x / WARP_SIZE; }
DEVICE int own_lane() { return threadIdx.x % WARP_SIZE; }
DEVICE int own_group() { return own_warp() / WARPS_PER_GROUP; }
// Returns the cell of lane 0 of this warp.
DEVICE int first_cell() { return own_warp() % WARPS_PER_GROUP * WARP_SIZE; }
DEVICE int own_cell() { return first_cell() + own_lane(); }  // CELLS or more if there is none

// The pixels that a thread loads, of each image.
struct PixelLoader {
  INPUT loaded[IMAGES_PER_BLOCK][PIXELS_PER_THREAD];

  // Loads pixels of `count` images, and repeats the last one in place of the others.
  DEVICE PixelLoader(const StageRows& images, int count) {
#pragma unroll
    for (int image = 0; image < IMAGES_PER_BLOCK; image++) {
      const INPUT* const pixels = images.address(min(image, count - 1), 0);
#pragma unroll
      for (int j = 0; j < PIXELS_PER_THREAD; j++)
        if (number(j) < PIXELS) loaded[image][j] = pixels[number(j)];
    }
  }

  // Returns the number of the thread's pixel j; PIXELS or more if there is none.
  DEVICE static int number(int j) { return int(threadIdx.x) + j * THREADS; }

  DEVICE void store(const StageRows& images, Shared& shared) const {
#pragma unroll
    for (int j = 0; j < PIXELS_PER_THREAD; j++) {
      if (number(j) >= PIXELS) continue;
      const int place = pixel_index(number(j) / WIDTH, number(j) % WIDTH);
#pragma unroll
      for (int image = 0; image < IMAGES_PER_BLOCK; image++)
        shared.images[image][place] = images.value(loaded[image][j]);
    }
  }
};

// Loads the rows of the linear layer's weights of a warp: consecutive ones for each filter. Lanes
// read consecutive addresses, so an element is not in the lane that needs it yet. Rows without a cell
// are 0.
DEVICE void load_weights(const real* weight, ThreadWeights& weights) {
  const int numbers = min(WARP_SIZE, CELLS - first_cell()) * CLASSES;
#pragma unroll
  for (int f = 0; f < FILTERS_PER_THREAD; f++) {
    const int filter = own_group() * FILTERS_PER_THREAD + f;
    const real* const rows = weight + (filter * CELLS + first_cell()) * CLASSES;
#pragma unroll
    for (int j = 0; j < CLASSES; j++) {
      const int number = own_lane() + j * WARP_SIZE;
      weights[f][j] = number < numbers ? rows[number] : real(0);
    }
  }
}

// Moves each row of the loaded weights to the lane of its cell.
DEVICE void distribute_weights(Shared& shared, ThreadWeights& weights) {
  real* const lines = shared.weight_lines[own_warp()];
#pragma unroll
  for (int f = 0; f < FILTERS_PER_THREAD; f++) {
#pragma unroll
    for (int j = 0; j < CLASSES; j++) lines[own_lane() + j * WARP_SIZE] = weights[f][j];
    __syncwarp();  // all elements are in place
#pragma unroll
    for (int j = 0; j < CLASSES; j++) weights[f][j] = lines[own_lane() * CLASSES + j];
    __syncwarp();  // all lanes have read their rows
  }
}

// Returns the largest output of a cell, and sets its tie mask, from bit `first` of `masks` on. Takes half
// of the instructions of `PatchMaximum`: a NaN does not become the maximum, but what is returned is NaN
// then.
DEVICE real patch_maximum(const real (&outputs)[OUTPUTS], int first, unsigned& masks) {
  const real maximum = fmax(fmax(outputs[0], outputs[1]), fmax(outputs[2], outputs[3]));
#pragma unroll
  for (int i = OUTPUTS - 1; i >= 0; i--) {
    const unsigned bit = 1u << (first + i);
    if (outputs[i] == maximum) masks = ALL_TIES ? masks | bit : masks & (1u << first) - 1 | bit;
  }
  // fmax ignores a NaN, but this sum does not.
  return maximum + real(0) * (outputs[0] + outputs[1] + (outputs[2] + outputs[3]));
}

// Computes the features of a thread in an image, and stores them in `target` unless it is null.
DEVICE void compute_features(const Shared& shared, const real (&taps)[GROUP_TAPS], int image,
                             real* target, ThreadFeatures& features) {
  real outputs[FILTERS_PER_THREAD][OUTPUTS] = {};
  for_each_product(patch_of(shared.images[image], own_cell()), [&](int output, int i, real pixel) {
#pragma unroll
    for (int f = 0; f < FILTERS_PER_THREAD; f++) outputs[f][output] += taps[f * TAPS + i] * pixel;
  });
  const bool exists = own_cell() < CELLS;
  unsigned masks = 0;
#pragma unroll
  for (int f = 0; f < FILTERS_PER_THREAD; f++) {
    const real maximum = patch_maximum(outputs[f], OUTPUTS * f, masks);
    features.values[image][f] = exists ? activate(ACTIVATION, maximum) : real(0);
    if (target && exists) target[f * CELLS] = features.values[image][f];
  }
  features.masks[image] = exists ? masks : 0;
}

// Sets the partial logits of a warp.
DEVICE void add_logits(Shared& shared, const ThreadFeatures& features,
                       const ThreadWeights& weights) {
  real sums[LOGITS] = {};
#pragma unroll
  for (int image = 0; image < IMAGES_PER_BLOCK; image++)
#pragma unroll
    for (int f = 0; f < FILTERS_PER_THREAD; f++)
#pragma unroll
      for (int c = 0; c < CLASSES; c++)
        sums[image * CLASSES + c] += features.values[image][f] * weights[f][c];
  const auto own = warp_reduce_ranges<LOGITS>(sums);
#pragma unroll
  for (int i = 0; i < own.size; i++)
    if (own.begin + i < own.end) shared.partial_logits[own_warp()][own.begin + i] = sums[i];
}

// Returns the logit of the lane's class, or that of the last class in lanes without a class.
DEVICE real logit_of_lane(const Shared& shared, int image) {
  const int own_class = min(own_lane(), CLASSES - 1);
  real sums[4] = {shared.bias[own_class]};  // several, because each addition waits for its operands
#pragma unroll
  for (int warp = 0; warp < WARPS; warp++)
    sums[warp % 4] += shared.partial_logits[warp][image * CLASSES + own_class];
  return sums[0] + sums[1] + (sums[2] + sums[3]);
}

// Sets dlogits to the gradient of the mean loss of `images` images, and the results of the `count`
// images of the block, which begin at image `first`. Each warp computes an image.
DEVICE void compute_losses(Shared& shared, int first, int count, int images,
                           const ShallowCnnResults& results, int64 member_stride) {
  for (int image = own_warp(); image < IMAGES_PER_BLOCK; image += WARPS) {
    const ImageLoss result =
        image_loss<LOSS, CLASS_SUMS>(logit_of_lane(shared, image), CLASSES, shared.labels[image]);
    const real dlogit = image < count ? result.dlogit / real(images) : real(0);
    if (own_lane() < CLASSES) shared.dlogits[image][own_lane()] = dlogit;
    if (image >= count) continue;
    if (own_lane() < CLASSES)
      of_member(results.dlogits, member_stride)[int64(first + image) * CLASSES + own_lane()] =
          dlogit;
    if (own_lane() == 0) {
      of_member(results.losses, member_stride)[first + image] = result.loss;
      of_member(results.correct, member_stride)[first + image] = result.is_correct;
    }
  }
}

// Adds the products of an image to the sums of the filters' gradients. Nothing is added by cells that
// do not exist, whose masks are 0, and by images that do not, whose dlogits are 0.
DEVICE void add_filter_gradients(const Shared& shared, int image, const ThreadFeatures& features,
                                 const ThreadWeights& weights, real (&sums)[GROUP_TAPS]) {
  real outputs[FILTERS_PER_THREAD][OUTPUTS];
#pragma unroll
  for (int f = 0; f < FILTERS_PER_THREAD; f++) {
    real gradient = 0;
#pragma unroll
    for (int c = 0; c < CLASSES; c++) gradient += shared.dlogits[image][c] * weights[f][c];
    gradient *= derivative(ACTIVATION, features.values[image][f]);
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++)
      outputs[f][i] = features.masks[image] >> OUTPUTS * f + i & 1 ? gradient : real(0);
  }
  for_each_product(patch_of(shared.images[image], own_cell()), [&](int output, int i, real pixel) {
#pragma unroll
    for (int f = 0; f < FILTERS_PER_THREAD; f++) sums[f * TAPS + i] += outputs[f][output] * pixel;
  });
}

// Stores the sums over the block of the filters' gradients.
DEVICE void store_filter_sums(Shared& shared, real (&sums)[GROUP_TAPS], real* target) {
  const auto own = warp_reduce_ranges<GROUP_TAPS>(sums);
#pragma unroll
  for (int i = 0; i < own.size; i++)
    if (own.begin + i < own.end) shared.filter_sums[own_warp()][own.begin + i] = sums[i];
  __syncthreads();  // the sums of all warps are in place
  for (int tap = threadIdx.x; tap < FILTERS * TAPS; tap += THREADS) {
    real total = 0;
#pragma unroll
    for (int i = 0; i < WARPS_PER_GROUP; i++)
      total += shared.filter_sums[tap / GROUP_TAPS * WARPS_PER_GROUP + i][tap % GROUP_TAPS];
    target[tap] = total;
  }
}

// Grid: (images / IMAGES_PER_BLOCK, rounded up, 1, members), for the largest batch. Blocks without an
// image store sums that are 0.
// With 12 warps, the launch bounds limit a thread to 168 registers.
// At most 168 registers.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    fused_shallow_cnn(const INPUT* __restrict__ x, StageInput input, const int* __restrict__ labels,
                      const real* __restrict__ parameters, ShallowCnnParameters offsets,
                      int64 member_stride, ShallowCnnResults results) {
  __shared__ Shared shared;
  parameters = of_member(parameters, member_stride);
  ThreadWeights weights;
  // These loads are under way until the first image is computed.
  load_weights(parameters + offsets.weight, weights);
  for (int i = threadIdx.x; i < FILTERS * TAPS; i += THREADS)
    shared.filters[i / GROUP_TAPS][i % GROUP_TAPS] = parameters[offsets.filters + i];
  if (threadIdx.x < CLASSES)
    shared.bias[threadIdx.x] = offsets.bias < 0 ? real(0) : parameters[offsets.bias + threadIdx.x];
  const StageRows batch = stage_rows(x, input, PIXELS, member_stride);
  const int first = blockIdx.x * IMAGES_PER_BLOCK;
  const int count = min(IMAGES_PER_BLOCK, batch.count - first);
  real* const filter_sums = of_member(results.filter_sums, member_stride) +
                            int64(blockIdx.x) * (FILTERS * TAPS + FILTERS);
  if (count <= 0) {  // in all threads of the block
    for (int i = threadIdx.x; i < FILTERS * TAPS; i += THREADS) filter_sums[i] = 0;
    return;
  }
  const StageRows images = batch.from(first);
  const PixelLoader pixels(images, count);
  if (threadIdx.x < IMAGES_PER_BLOCK)
    shared.labels[threadIdx.x] = labels[images.rows[min(int(threadIdx.x), count - 1)]];
  pixels.store(images, shared);
  __syncthreads();  // pixels, labels, filters and bias are in place

  real taps[GROUP_TAPS];
#pragma unroll
  for (int i = 0; i < GROUP_TAPS; i++) taps[i] = shared.filters[own_group()][i];
  real* const target = of_member(results.features, member_stride) + int64(first) * FEATURES +
                       (own_group() * FILTERS_PER_THREAD * CELLS + own_cell());
  ThreadFeatures features;
#pragma unroll
  for (int image = 0; image < IMAGES_PER_BLOCK; image++) {
    compute_features(shared, taps, image, image < count ? target + image * FEATURES : nullptr,
                     features);
    if (image == 0) distribute_weights(shared, weights);
  }
  add_logits(shared, features, weights);
  __syncthreads();  // the sums of all warps are in place

  compute_losses(shared, first, count, batch.count, results, member_stride);
  __syncthreads();  // the gradients of all logits are in place

  real sums[GROUP_TAPS] = {};
#pragma unroll
  for (int image = 0; image < IMAGES_PER_BLOCK; image++)
    add_filter_gradients(shared, image, features, weights, sums);
  store_filter_sums(shared, sums, filter_sums);
}

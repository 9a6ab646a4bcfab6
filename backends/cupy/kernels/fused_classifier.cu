// The last linear layers of a network, the loss, and the gradients back through these layers and
// the convolutions before them, in one launch of a graph step.
//
// For a few images, a launch and reading the weights from the cache take longer than the arithmetic
// of such a layer. So each block computes all layers for its images, with block barriers in between:
//
//   x -> linear -> .. -> linear -> logits -> loss
//   dx <- convolutions <- linear <- .. <- linear <- dlogits
//
// Layout: x, dx (B, in), W (in, out), all row-major; convolutions as in convolution.cu. The logits
// stay in shared memory.
// Cost per image: 2·in·out multiply-adds per linear layer; convolutions as in
// convolution_gradients.cu. A block reads each weight twice.
// Options: -DLOSS as in losses.cu; -DIMAGES_PER_BLOCK=1, 2, 4 or 8, or, with -DTHREAD_TILE and
// the other sizes of gemm_tile.cuh, TILE_ROWS; -DMAX_THREADS per block; -DMAX_LAYERS; -DKERNEL_SIZE
// of all convolutions, or 0 without any; -DCHANNELS_PER_THREAD and -DPIXEL_TILE as in
// conv_input_gradient.cuh.
#include "common.cuh"
#include "conv_input_gradient.cuh"
#include "fused_classifier.cuh"
#include "image_loss.cuh"
#ifdef THREAD_TILE
#include "fused_classifier_tiles.cuh"
#else
#include "fused_classifier_warps.cuh"
#endif

// Sets the gradient of the input of a convolution, for `count` images from image `first` on.
DEVICE void backward(const ClassifierConv& conv, const real* parameters, int first, int count,
                     int64 member_stride) {
  ConvShape shape = conv.shape;
  shape.kernel_size = KERNEL_SIZE;  // makes it a compile-time constant
  const int tiles = pixel_tiles(shape), groups = shape.channels / CHANNELS_PER_THREAD;
  const int items = count * groups * tiles;
  // All lanes of a warp execute every iteration, as conv_input_gradient() requires.
  for (int begin = 0; begin < items; begin += blockDim.x / TILE_LANES) {
    const int item = begin + int(threadIdx.x) / TILE_LANES, place = min(item, items - 1);
    const int image = first + place / (groups * tiles), group = place / tiles % groups;
    const int64 input = int64(image) * shape.pixels();
    const int64 output = int64(image) * shape.filters * shape.cells();
    conv_input_gradient(of_member(conv.dy, member_stride) + output,
                        of_member(conv.mask, member_stride) + output, parameters + conv.weight,
                        of_member(conv.x, member_stride) + input, shape, conv.activation,
                        group * CHANNELS_PER_THREAD, place % tiles, item >= items,
                        of_member(conv.dx, member_stride) + input);
  }
  __syncthreads();
}

// `rows` and `batch` select the labels as in losses.cu. Sets dlogits (B, classes) to the gradient
// of the mean loss, and the loss and correctness of each image.
// Grid: images / IMAGES_PER_BLOCK, rounded up, blocks of whole warps, once per member. At most
// WARP_SIZE classes.
// Without tiles, the launch bounds limit a thread to 128 registers.
// At most 255 registers.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    fused_classifier(const __grid_constant__ ClassifierLayers layers,
                     const real* __restrict__ parameters, const int* __restrict__ labels,
                     const int* __restrict__ rows, Batch batch, int64 member_stride, real* dlogits,
                     real* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
#ifdef MEMBERS
  if (threadIdx.x == 0) shared.member_stride = member_stride;
  __syncthreads();
#endif
  batch = of_member(batch, shared.member_stride);
  const int images = batch.size(), first = blockIdx.x * IMAGES_PER_BLOCK;
  const int count = min(IMAGES_PER_BLOCK, images - first), last = layers.linear_count - 1;
  if (count <= 0) return;  // in all threads of the block
  parameters = of_member(parameters, shared.member_stride);
  dlogits = of_member(dlogits, shared.member_stride);
  for (int i = 0; i <= last; i++) {
    const ClassifierLayer& layer = layers.linear[i];
    const real* const inputs = of_member(layer.x, shared.member_stride);
    const DenseRows x = DenseRows{inputs, layer.inputs, images}.from(first);
    const bool is_last = i == last;
    real* const y = is_last ? shared.logits[0]
                            : of_member(layers.linear[i + 1].x, shared.member_stride) +
                                  int64(first) * layer.outputs;
    forward(layer, {x.first, x.width, count}, parameters,
            is_last ? IDENTITY : layers.linear[i + 1].activation, y,
            is_last ? WARP_SIZE : layer.outputs, shared);
  }

  const int classes = layers.linear[last].outputs, lane = threadIdx.x % WARP_SIZE;
  for (int image = threadIdx.x / WARP_SIZE; image < count; image += blockDim.x / WARP_SIZE) {
    const real logit = shared.logits[image][min(lane, classes - 1)];
    const int label = labels[of_member(rows, shared.member_stride)[batch.first() + first + image]];
    const ImageLoss result = image_loss<LOSS>(logit, classes, label);
    if (lane < classes)
      dlogits[int64(first + image) * classes + lane] = result.dlogit / real(images);
    if (lane == 0) {
      of_member(losses, shared.member_stride)[first + image] = result.loss;
      of_member(correct, shared.member_stride)[first + image] = result.is_correct;
    }
  }
  __syncthreads();

  const real* dy = dlogits;
  for (int i = last; i >= 0 && layers.linear[i].dx; i--) {
    const ClassifierLayer& layer = layers.linear[i];
    const int64 inputs = int64(first) * layer.inputs, outputs = int64(first) * layer.outputs;
    real* const dx = of_member(layer.dx, shared.member_stride);
    backward(layer, {of_member(layer.x, shared.member_stride) + inputs, layer.inputs, count},
             parameters, {dy + outputs, layer.outputs, count}, dx + inputs, shared);
    dy = dx;
  }
#if KERNEL_SIZE > 0
  for (int i = 0; i < layers.convolution_count; i++)
    backward(layers.convolutions[i], parameters, first, count, shared.member_stride);
#endif
}

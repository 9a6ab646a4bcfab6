// The end of a network in one pass: its last linear layers, the loss, and all gradients that go back
// from there, through these layers and the convolutions before them. Of a captured step alone.
//
// A launch, and a read of the weights from the cache, takes longer than the arithmetic of such a layer
// for some images. So a block takes its images through all of them; barriers of the block lie between.
//
// Layout: x (B, in), W (in, out), dx (B, in), all by rows; maps as convolution.cu has them. Logits stay in
// the block.
// Cost per image: 2·in·out multiplications a layer, and as convolution.cu; each weight is read twice by a
// block.
// Options: -DLOSS=SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY or QUADRATIC; -DIMAGES of a block, 1, 2,
// 4 or 8, or as many as a tile has rows, and then -DSIDE as tiles.cuh has it; -DKERNEL_SIZE of all
// convolutions, or 0; -DCHANNELS as image_gradient.cuh has it.
#include "common.cuh"
#include "rows.cuh"
#include "maps.cuh"
#include "image_gradient.cuh"
#include "loss_of_image.cuh"

#define MOST_LAYERS 16

// A linear layer of the head; as head.py writes it.
struct Layer {
  real* x;   // what it takes, and so what the layer before leaves
  real* dx;  // the gradient of what the activation that made x took; 0 where nobody needs it
  int weight, bias;  // where they begin among the parameters; a bias that is left out: -1
  int inputs, outputs;
  int below;  // the activation that made x
};

// A convolution before them.
struct Convolution {
  const real *x, *dy;
  const uint8* mask;
  real* dx;
  int weight;
  int below;
  Maps maps;
};

struct Layers {
  Layer of[MOST_LAYERS];
  Convolution convolutions[MOST_LAYERS];  // from the last to the first
  int count, convolution_count;
};

#ifdef SIDE
#include "tiles.cuh"
#include "linear_tile.cuh"
#include "head_by_tiles.cuh"
#else
#include "head_by_lanes.cuh"
#endif

// Sets the gradients of the images of a convolution; a thread has a part of a square of pixels at a time.
__device__ __forceinline__ void back(const Convolution& convolution, const real* parameters, int first,
                                     int count) {
  Maps maps = convolution.maps;
  maps.kernel_size = KERNEL_SIZE;  // known when this is compiled
  const int pixels = maps.channels * maps.height * maps.width, places = squares(maps);
  const int groups = maps.channels / CHANNELS;
  const int items = count * groups * places;
  for (int done = 0; done < items; done += blockDim.x / SHARERS) {  // alike for all lanes of a warp
    const int item = done + int(threadIdx.x) / SHARERS, place = min(item, items - 1);
    const int image = first + place / (groups * places), group = place / places % groups;
    const int64 input = int64(image) * pixels;
    const int64 output = int64(image) * maps.filters * maps.cells();
    image_gradient(
        convolution.dy + output, convolution.mask + output, parameters + convolution.weight,
        convolution.x + input, maps, convolution.below, group * CHANNELS, place % places, item >= items,
        convolution.dx + input);
  }
  __syncthreads();
}

// Grid: (images / IMAGES), blocks of whole warps. At most 32 outputs of the last layer.
// By lanes, the launch bounds leave 128.
// At most 255 registers.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    head(const __grid_constant__ Layers layers, const real* __restrict__ parameters,
         const int* __restrict__ labels, const int* __restrict__ rows, batch_t batch, real* dlogits,
         real* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
  const int images = images_of(batch), first = blockIdx.x * IMAGES, last = layers.count - 1;
  const int count = min(IMAGES, images - first);
  if (count <= 0) return;  // a whole block
  for (int i = 0; i <= last; i++) {
    const Layer& layer = layers.of[i];
    const Numbers x = Numbers{layer.x, layer.inputs, images}.from(first);
    const bool is_last = i == last;
    real* const y =
        is_last ? shared.logits[0] : layers.of[i + 1].x + int64(first) * layer.outputs;
    forward(layer, {x.first, x.size, count}, parameters, is_last ? IDENTITY : layers.of[i + 1].below,
            y, is_last ? 32 : layer.outputs, shared);
  }

  const int classes = layers.of[last].outputs, lane = threadIdx.x % 32;
  for (int image = threadIdx.x / 32; image < count; image += blockDim.x / 32) {
    // A lane a class; those left over repeat the last.
    const real logit = shared.logits[image][min(lane, classes - 1)];
    const int label = labels[rows[beginning_of(batch) + first + image]];
    const LossOfImage result = loss_of_image(logit, classes, label);
    if (lane < classes)
      dlogits[int64(first + image) * classes + lane] = result.dlogit / real(images);
    if (lane == 0) {
      losses[first + image] = result.loss;
      correct[first + image] = result.is_correct;
    }
  }
  __syncthreads();

  const real* dy = dlogits;
  for (int i = last; i >= 0 && layers.of[i].dx; i--) {
    const Layer& layer = layers.of[i];
    const int64 inputs = int64(first) * layer.inputs, outputs = int64(first) * layer.outputs;
    back(layer, {layer.x + inputs, layer.inputs, count}, parameters,
         {dy + outputs, layer.outputs, count}, layer.dx + inputs, shared);
    dy = layer.dx;
  }
#if KERNEL_SIZE > 0
  for (int i = 0; i < layers.convolution_count; i++)
    back(layers.convolutions[i], parameters, first, count);
#endif
}

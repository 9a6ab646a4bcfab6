// The end of a network in one pass: its last linear layers, the loss, and all gradients that go back
// from there to what these layers take. Of a captured step alone.
//
// A launch, and a read of the weights from the cache, takes longer than the arithmetic of such a layer
// for some images. So a block takes an image through all of them; barriers of the block lie between.
//
// Layout: x (B, in), W (in, out), dx (B, in), all by rows. Forward, the warps share out the columns of
// W and, where there are fewer than 32 for each, its rows, so that a warp reads neighbouring numbers;
// back, a warp has a row of W at a time. Logits stay in the block.
// Cost per image: 2·in·out multiplications a layer; each weight is read twice.
// Options: -DLOSS=SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY or QUADRATIC.
#include "common.cuh"
#include "loss_of_image.cuh"

#define MOST_THREADS 512
#define MOST_LAYERS 16

// A layer of the head; as head.py writes it.
struct Layer {
  real* x;   // what it takes, and so what the layer before leaves
  real* dx;  // the gradient of what the activation that made x took; 0 where nobody needs it
  int weight, bias;  // where they begin among the parameters; a bias that is left out: -1
  int inputs, outputs;
  int below;  // the activation that made x
};

struct Layers {
  Layer of[MOST_LAYERS];
  int count;
};

struct Shared {
  real parts[MOST_THREADS], logits[32];
};

// Sets y, numbers of one image, to the activation of x W + bias.
__device__ __forceinline__ void forward(const Layer& layer, const real* x, const real* parameters,
                                        int activation, real* y, real* parts) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const real* const weight = parameters + layer.weight;
  // Warps that have the same 32 columns share out the rows.
  const int bands = min(warps, (layer.outputs + 31) / 32), sharers = warps / bands;
  const int band = warp % bands, share = warp / bands;
  for (int first = 0; first < layer.outputs; first += bands * 32) {
    const int column = min(first + band * 32 + lane, layer.outputs - 1);
    real sum = 0;
    if (share < sharers)
#pragma unroll 4
      for (int k = share; k < layer.inputs; k += sharers)
        sum += x[k] * weight[k * layer.outputs + column];
    parts[threadIdx.x] = sum;
    __syncthreads();
    const int own = first + int(threadIdx.x);
    if (int(threadIdx.x) < bands * 32 && own < layer.outputs) {
      real total = layer.bias >= 0 ? parameters[layer.bias + own] : real(0);
      for (int other = 0; other < sharers; other++)
        total += parts[other * bands * 32 + threadIdx.x];
      y[own] = activate_as(activation, total);
    }
    __syncthreads();
  }
}

// Sets dx, numbers of one image, to dy Wᵀ times the derivative of the activation that made x.
__device__ __forceinline__ void back(const Layer& layer, const real* x, const real* parameters,
                                     const real* dy, real* dx) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int k = warp; k < layer.inputs; k += warps) {
    const real* const row = parameters + layer.weight + k * layer.outputs;
    real sum = 0;
    for (int column = lane; column < layer.outputs; column += 32) sum += dy[column] * row[column];
    sum = sum_of_warp(sum);
    if (lane == 0) dx[k] = sum * derivative_as(layer.below, x[k]);
  }
  __syncthreads();
}

// Grid: (images), blocks of whole warps. At most 32 outputs of the last layer.
// At most 80 registers.
extern "C" __global__ void __launch_bounds__(512, 1)
    head(const __grid_constant__ Layers layers, const real* __restrict__ parameters,
         const int* __restrict__ labels, const int* __restrict__ rows, batch_t batch, real* dlogits,
         real* __restrict__ losses, int* __restrict__ correct) {
  __shared__ Shared shared;
  const int image = blockIdx.x, images = images_of(batch), last = layers.count - 1;
  if (image >= images) return;  // a whole block
  for (int i = 0; i <= last; i++) {
    const Layer& layer = layers.of[i];
    const bool is_last = i == last;
    real* const y = is_last ? shared.logits : layers.of[i + 1].x + int64(image) * layer.outputs;
    forward(layer, layer.x + int64(image) * layer.inputs, parameters,
            is_last ? IDENTITY : layers.of[i + 1].below, y, shared.parts);
  }

  const int classes = layers.of[last].outputs;
  real* const dlogits_of_image = dlogits + int64(image) * classes;
  if (threadIdx.x < 32) {  // a lane a class; those left over repeat the last
    const real logit = shared.logits[min(int(threadIdx.x), classes - 1)];
    const LossOfImage result =
        loss_of_image(logit, classes, labels[rows[beginning_of(batch) + image]]);
    if (int(threadIdx.x) < classes) dlogits_of_image[threadIdx.x] = result.dlogit / real(images);
    if (threadIdx.x == 0) {
      losses[image] = result.loss;
      correct[image] = result.is_correct;
    }
  }
  __syncthreads();

  const real* dy = dlogits_of_image;
  for (int i = last; i >= 0 && layers.of[i].dx; i--) {
    const Layer& layer = layers.of[i];
    real* const dx = layer.dx + int64(image) * layer.inputs;
    back(layer, layer.x + int64(image) * layer.inputs, parameters, dy, dx);
    dy = dx;
  }
}

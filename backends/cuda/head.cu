// The end of a network in one pass: the last linear layer, the loss, and both gradients that go back
// from there. Of a captured step alone.
//
// Layout: x (B, in), W (in, out), dx (B, in), all by rows; a warp an image, a lane a class on the way
// forward and every 32nd input on the way back. Logits stay in registers. The sums go in the order of
// linear.cu, so nothing changes but the number of launches.
// Cost per image: 2·in·out multiplications.
// Options: -DACTIVATION of the stage that made x, whose derivative it takes along;
// -DLOSS=SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY or QUADRATIC.
#include "common.cuh"
#include "loss_of_image.cuh"

// Grid: (images / warps of a block). At most 32 outputs; `dx` is left out by a network of one layer.
// Four blocks fit a multiprocessor; left to itself, the compiler spills to make room for more.
// At most 64 registers.
extern "C" __global__ void __launch_bounds__(256, 4)
    head(const real* __restrict__ x, const real* __restrict__ weight,
         const real* __restrict__ bias, const int* __restrict__ labels,
         const int* __restrict__ rows, int inputs, int outputs, batch_t batch,
         real* __restrict__ dlogits, real* __restrict__ losses,
         int* __restrict__ correct, real* __restrict__ dx) {
  const int images = images_of(batch), lane = threadIdx.x % 32;
  const int image = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (image >= images) return;  // a whole warp
  const int own = min(lane, outputs - 1);
  const int label = labels[rows[beginning_of(batch) + image]];
  const real* const inputs_of_image = x + int64(image) * inputs;
  real logit = 0;
  for (int k = 0; k < inputs; k++) logit += inputs_of_image[k] * weight[k * outputs + own];
  if (bias) logit += bias[own];

  const LossOfImage result = loss_of_image(logit, outputs, label);
  const real dlogit = result.dlogit / real(images);
  if (lane < outputs) dlogits[int64(image) * outputs + lane] = dlogit;
  if (lane == 0) {
    losses[image] = result.loss;
    correct[image] = result.is_correct;
  }
  if (!dx) return;
  for (int first = 0; first < inputs; first += 32) {  // all lanes: each has a part of dlogits
    const int k = min(first + lane, inputs - 1);
    real sum = 0;
    for (int c = 0; c < outputs; c++)
      sum += __shfl_sync(EVERY_LANE, dlogit, c) * weight[k * outputs + c];
    if (first + lane < inputs)
      dx[int64(image) * inputs + k] = sum * derivative<ACTIVATION>(inputs_of_image[k]);
  }
}

// The layers whose parameters a launch updates, the update of a parameter, and the end of a step.
//
// Options: -DRULE as in update_rules.cuh; -DMAX_LAYERS.
#pragma once

#include "conv_shape.cuh"
#include "update_rules.cuh"

constexpr int MAX_WARPS = 16;  // of a block that ends a step

// How the gradient of a layer is divided among blocks.
struct SplitK {
  int units;       // tiles or groups of rows of dW, or filter tiles
  int splits;      // blocks per unit; each sums over a part of the images
  int parameters;  // weights and biases; a layer without bias is counted as if it had one
};

// A layer with parameters.
struct WgradLayer {
  const real* x;      // input (B, inputs); null if it is the data set
  const real* dy;     // gradient of the pre-activation, (B, outputs) or (B, filters, cells); not read
                      // if the partial sums are complete
  const uint8* mask;  // tie masks of a pooled convolution, in the shape of dy; else null
  SplitK split;
  real* partial_sums;   // (splits, parameters); null with one split
  int* tile_counters;   // (units,): finished splits, 0 before and after a step; null with one split
                        // and if the partial sums are complete
  int first_block;      // number of the layer's first block among the blocks of all layers
  int weight, bias;     // offsets in the parameter vector; bias is -1 if the layer has none
  int inputs, outputs;  // elements per image; for a convolution, `outputs` is the number of filters
  ConvShape conv;       // kernel_size is 0 for a linear layer
};

struct WgradLayers {
  WgradLayer layers[MAX_LAYERS];
  int count;

  DEVICE const WgradLayer& of_block(int block) const {
    int number = 0;
    while (number + 1 < count && block >= layers[number + 1].first_block) number++;
    return layers[number];
  }
};

// Updates a parameter by its gradient, and sets `diverged` if it is not finite any more. `l2` is
// the factor of the weights in the gradient of the L2 penalty, which does not include biases.
DEVICE void apply_with_penalty(const WgradLayer& layer, const Updater& updater, real l2,
                               int parameter, real grad, int* diverged) {
  const bool is_bias = layer.bias >= 0 && parameter >= layer.bias &&
                       parameter < layer.bias + layer.outputs;
  if (l2 != 0 && !is_bias) grad += l2 * updater.weights[parameter];
  if (!updater.apply(parameter, grad)) *diverged = 1;
}

// Sums of the warps of a block; part of its shared memory.
struct BatchResults {
  double losses[MAX_WARPS];
  int correct[MAX_WARPS];
};

// Stores the mean loss and the number of correct predictions of the batch, and leaves the
// number and the bounds of the next step. All threads of one block call it.
DEVICE void finish_step(const Chunk& chunk, const StepState& state, int images,
                        BatchResults& results) {
  const int step = chunk.step[0];
  const int begin = chunk.bounds[2 * step + 2], end = chunk.bounds[2 * step + 3];  // of the next step
  double loss = 0;
  int correct = 0;
#pragma unroll 8
  for (int image = threadIdx.x; image < images; image += blockDim.x) {
    loss += double(state.image_losses[image]);
    correct += state.image_correct[image];
  }
  loss = block_reduce_sum(loss, results.losses);
  correct = block_reduce_sum(correct, results.correct);
  if (threadIdx.x > 0) return;
  chunk.losses[step] = loss / double(images);
  chunk.correct[step] = correct;
  chunk.step[0] = step + 1;
  chunk.step[1] = begin;
  chunk.step[2] = end;
}

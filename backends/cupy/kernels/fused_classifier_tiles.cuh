// The linear layers of the fused classifier if a block processes as many images as a tile has rows.
//
// forward() and backward() are not inlined, so that the register allocator treats each on its own.
#pragma once

#include "fused_classifier.cuh"
#include "linear_tile.cuh"

constexpr int MIN_BLOCKS = 2;  // resident blocks per multiprocessor

struct Shared {
  GemmShared gemm;
  real logits[IMAGES_PER_BLOCK][WARP_SIZE];
  int64 member_stride;  // no register is left for it
};

// Sets y (images, outputs), with rows `stride` elements apart, to activation(x W + bias).
__device__ __noinline__ void forward(ClassifierLayer layer, DenseRows x, const real* parameters,
                                     Activation activation, real* y, int stride, Shared& shared) {
  const DenseRows weight = {parameters + layer.weight, layer.outputs, layer.inputs};
  const real* const bias = layer.bias < 0 ? nullptr : parameters + layer.bias;
  for (int column = 0; column * TILE_COLUMNS < layer.outputs; column++) {
    linear_tile(x, weight, bias, activation, 0, column, y, stride, shared.gemm);
    __syncthreads();
  }
}

// Sets dx (images, inputs) to dy Wᵀ times the derivative of the activation that computed x.
__device__ __noinline__ void backward(ClassifierLayer layer, DenseRows x, const real* parameters,
                                      DenseRows dy, real* dx, Shared& shared) {
  const DenseRows weight = {parameters + layer.weight, layer.outputs, layer.inputs};
  for (int column = 0; column * TILE_COLUMNS < layer.inputs; column++) {
    linear_backward_tile(dy, weight, x.first, layer.activation, 0, column, dx, shared.gemm);
    __syncthreads();
  }
}

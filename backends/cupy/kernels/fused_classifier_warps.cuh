// The linear layers of the fused classifier if a block processes few images.
//
// Forward, the warps split the columns of W into bands of up to 32 columns. If there are more warps
// than bands, or if a warp has more lanes than its band has columns, the rows of a band are split as
// well, and the partial sums of the splits are added in shared memory. With 12 columns and 3 warps:
//
//              columns 0..11         lanes 24..31 are idle
//   row 0      warp 0, lanes 0..11   split 0: rows 0, 6, 12, ..
//   row 1      warp 0, lanes 12..23  split 1: rows 1, 7, 13, ..
//   row 2      warp 1, lanes 0..11   split 2
//   row 3      warp 1, lanes 12..23  split 3
//   row 4      warp 2, lanes 0..11   split 4
//   row 5      warp 2, lanes 12..23  split 5
//   row 6      warp 0, lanes 0..11   split 0
//
// Backward, if W has at most WARP_SIZE columns, each thread computes a row of dxᵀ. Otherwise each
// warp computes ROWS_PER_WARP rows: its lanes split the columns of W, and a reduce-scatter adds
// their sums. A weight is read once for all images of the block.
#pragma once

#include "fused_classifier.cuh"

constexpr int MIN_BLOCKS = 1;                        // resident blocks per multiprocessor
constexpr int ROWS_PER_WARP = 8 / IMAGES_PER_BLOCK;  // rows of W in backward_by_warps()

struct Shared {
  real partial_sums[IMAGES_PER_BLOCK][MAX_THREADS], logits[IMAGES_PER_BLOCK][WARP_SIZE];
  int64 member_stride;  // no register is left for it
};

// Sets y (images, outputs), with rows `stride` elements apart, to activation(x W + bias).
DEVICE void forward(const ClassifierLayer& layer, DenseRows x, const real* parameters,
                    Activation activation, real* y, int stride, Shared& shared) {
  const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  const int warps = blockDim.x / WARP_SIZE;
  const real* const weight = parameters + layer.weight;
  const int band_width = min(WARP_SIZE, layer.outputs), rows_per_warp = WARP_SIZE / band_width;
  const int bands = min(warps, (layer.outputs + WARP_SIZE - 1) / WARP_SIZE);
  const int splits = warps / bands * rows_per_warp;  // splits of the rows of a band
  const int own_column = warp % bands * band_width + lane % band_width, width = bands * band_width;
  const int split = warp / bands * rows_per_warp + lane / band_width;
  const bool is_idle = lane >= rows_per_warp * band_width || split >= splits;
  const int terms = is_idle ? 0 : (layer.inputs - split + splits - 1) / splits;
  for (int first = 0; first < layer.outputs; first += width) {
    const int column = min(first + own_column, layer.outputs - 1);
    real sums[IMAGES_PER_BLOCK] = {};
#pragma unroll 8
    for (int term = 0; term < terms; term++) {
      const int k = split + term * splits;
      const real w = weight[k * layer.outputs + column];
#pragma unroll
      for (int image = 0; image < IMAGES_PER_BLOCK; image++)  // after the last image, repeats it
        sums[image] += x.row(min(image, x.count - 1))[k] * w;
    }
    if (!is_idle)
#pragma unroll
      for (int image = 0; image < IMAGES_PER_BLOCK; image++)
        shared.partial_sums[image][split * width + own_column] = sums[image];
    __syncthreads();
    for (int place = threadIdx.x; place < x.count * width; place += blockDim.x) {
      const int image = place / width, output = first + place % width;
      if (output >= layer.outputs) continue;
      real total = layer.bias >= 0 ? parameters[layer.bias + output] : real(0);
      for (int other = 0; other < splits; other++)
        total += shared.partial_sums[image][other * width + place % width];
      y[image * stride + output] = activate(activation, total);
    }
    __syncthreads();
  }
}

// backward() with one thread per row of W.
DEVICE void backward_by_threads(const ClassifierLayer& layer, const DenseRows& x,
                                const real* weight, const DenseRows& dy, real* dx) {
  for (int k = threadIdx.x; k < layer.inputs; k += blockDim.x) {
    real sums[IMAGES_PER_BLOCK] = {};
#pragma unroll 4
    for (int column = 0; column < layer.outputs; column++) {
      const real w = weight[k * layer.outputs + column];
#pragma unroll
      for (int image = 0; image < IMAGES_PER_BLOCK; image++)
        sums[image] += w * dy.row(min(image, dy.count - 1))[column];
    }
#pragma unroll
    for (int image = 0; image < IMAGES_PER_BLOCK; image++)
      if (image < x.count)
        dx[image * layer.inputs + k] = sums[image] * derivative(layer.activation, x.row(image)[k]);
  }
}

// backward() with ROWS_PER_WARP rows of W per warp.
DEVICE void backward_by_warps(const ClassifierLayer& layer, const DenseRows& x, const real* weight,
                              const DenseRows& dy, real* dx) {
  constexpr int SUMS = ROWS_PER_WARP * IMAGES_PER_BLOCK, LANES_PER_SUM = WARP_SIZE / SUMS;
  const int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
  const int warps = blockDim.x / WARP_SIZE;
  for (int first = warp * ROWS_PER_WARP; first < layer.inputs; first += warps * ROWS_PER_WARP) {
    real sums[SUMS] = {};  // (rows, images)
    for (int column = lane; column < layer.outputs; column += WARP_SIZE) {
      real gradients[IMAGES_PER_BLOCK];
#pragma unroll
      for (int image = 0; image < IMAGES_PER_BLOCK; image++)
        gradients[image] = dy.row(min(image, dy.count - 1))[column];
#pragma unroll
      for (int i = 0; i < SUMS; i++) {
        const int row = min(first + i / IMAGES_PER_BLOCK, layer.inputs - 1);
        sums[i] += weight[row * layer.outputs + column] * gradients[i % IMAGES_PER_BLOCK];
      }
    }
    const real sum = warp_reduce_scatter<SUMS>(sums);
    const int number = lane / LANES_PER_SUM;
    const int k = first + number / IMAGES_PER_BLOCK, image = number % IMAGES_PER_BLOCK;
    if (lane % LANES_PER_SUM == 0 && k < layer.inputs && image < x.count)
      dx[image * layer.inputs + k] = sum * derivative(layer.activation, x.row(image)[k]);
  }
}

// Sets dx (images, inputs) to dy Wᵀ times the derivative of the activation that computed x.
DEVICE void backward(const ClassifierLayer& layer, DenseRows x, const real* parameters,
                     DenseRows dy, real* dx, Shared&) {
  const real* const weight = parameters + layer.weight;
  if (layer.outputs <= WARP_SIZE)
    backward_by_threads(layer, x, weight, dy, dx);
  else
    backward_by_warps(layer, x, weight, dy, dx);
  __syncthreads();
}

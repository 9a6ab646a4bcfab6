// Settings of the naive versions of the persistent kernels.
#pragma once

#include "image_loss.cuh"

struct NaiveSettings {
  Loss loss;
  Activation activation;  // activation of the convolution or of the hidden units
  int steps;
  int all_ties;  // tie rule of the pooling, as in pooling.cu
  real lr, pixel_shift, weight_decay;
};

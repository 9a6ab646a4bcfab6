// Settings of the plain versions of the persistent kernels.
#pragma once

#include "image_loss.cuh"

struct NaiveSettings {
  Loss loss;
  Activation activation;  // activation of the convolution or of the hidden units
  int steps;
  real lr;
  real pixel_shift, weight_decay;
};

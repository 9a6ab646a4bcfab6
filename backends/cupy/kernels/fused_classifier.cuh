// The layers that fused_classifier.cu computes in one launch.
#pragma once

#include "conv_shape.cuh"
#include "rows.cuh"

// A linear layer.
struct ClassifierLayer {
  real* x;   // (B, inputs): input, which is the output of the previous layer
  real* dx;  // (B, inputs): gradient of the pre-activation of x; null if no earlier layer has
             // parameters
  int weight, bias;  // offsets in the parameter vector; bias is -1 if the layer has none
  int inputs, outputs;
  Activation activation;  // the activation that computed x
};

// A convolution before the linear layers, through which the gradient is propagated.
struct ClassifierConv {
  const real* x;          // input (B, channels, height, width)
  const real* dy;         // gradient of the pre-activation, (B, filters, cells)
  const uint8* mask;      // tie masks in the shape of dy; null without pooling
  real* dx;               // gradient of the pre-activation of x, in the shape of x
  int weight;             // offset in the parameter vector
  Activation activation;  // the activation that computed x
  ConvShape shape;
};

struct ClassifierLayers {
  ClassifierLayer linear[MAX_LAYERS];       // from the first to the last
  ClassifierConv convolutions[MAX_LAYERS];  // from the last to the first
  int linear_count, convolution_count;
};

// The loss of one image and its gradient.
#pragma once

#include "image_loss.cuh"

// Returns the loss of an image. Sets its gradient with respect to the logits, and whether the
// largest logit is that of the label.
__device__ real loss_of_image(Loss kind, const real* logits, int classes, int label, real* dlogits,
                              int& correct) {
  real loss = 0, total = 0;
  int predicted = 0;
  for (int c = 1; c < classes; c++)
    if (logits[c] > logits[predicted]) predicted = c;
  correct = predicted == label;
  for (int c = 0; c < classes; c++) total += exp(logits[c] - logits[predicted]);
  for (int c = 0; c < classes; c++) {
    const real target = c == label, output = 1 / (1 + exp(-logits[c]));
    if (kind == SOFTMAX_CROSS_ENTROPY) {
      const real probability = exp(logits[c] - logits[predicted]) / total;
      if (c == label) loss -= log(probability);
      dlogits[c] = probability - target;
    } else if (kind == BINARY_CROSS_ENTROPY) {
      loss -= target * log(output) + (1 - target) * log(1 - output);
      dlogits[c] = output - target;
    } else {
      loss += (output - target) * (output - target) / 2;
      dlogits[c] = (output - target) * output * (1 - output);
    }
  }
  return loss;
}

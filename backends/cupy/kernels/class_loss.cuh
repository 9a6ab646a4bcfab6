// The losses of one class and their gradients; the formulas are those of
// backends/operations/losses.py.
#pragma once

#include "common.cuh"

enum Loss { SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY, QUADRATIC };

struct ClassLoss {
  real loss, dlogit;
};

// Returns what a class adds to the loss of an image if every class has a sigmoid output of its own.
// `target` is 1 for the class of the label, else 0.
template <Loss kind>
DEVICE ClassLoss sigmoid_loss(real logit, real target) {
  if constexpr (kind == BINARY_CROSS_ENTROPY) {
    const real loss = (logit > 0 ? logit : real(0)) - logit * target + log1p(exp(-fabs(logit)));
    return {loss, sigmoid(logit) - target};
  } else {
    const real output = sigmoid(logit), error = output - target;
    return {error * error / 2, error * output * (1 - output)};
  }
}

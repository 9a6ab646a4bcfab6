// The loss of an image and the loss of one class, with their gradients. The formulas are those of
// backends/operations/losses.py.
#pragma once

#include "common.cuh"

enum Loss { SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY, QUADRATIC, SQUARED_ERROR };

struct ClassLoss {
  real loss, dlogit;
};

// Returns the loss of one class, for losses that sum over classes with separate sigmoid outputs.
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

struct ImageLoss {
  real dlogit;  // gradient of the image's loss with respect to the logit of this lane's class
  real loss;
  bool is_correct;  // the largest logit is that of the label
};

// Returns the loss of an image with at most LANES classes, a power of two up to WARP_SIZE. All
// lanes of a warp must call this; lane i computes class i. `logit` is the logit of this lane's
// class, or that of the last class in lanes without a class. Lanes from LANES on return values
// without meaning.
template <Loss kind, int LANES = WARP_SIZE>
DEVICE ImageLoss image_loss(real logit, int classes, int label) {
  const int lane = threadIdx.x % WARP_SIZE, own_class = min(lane, classes - 1);
  real largest = logit;
  for (int offset = LANES / 2; offset > 0; offset /= 2) {
    const real other = __shfl_xor_sync(FULL_MASK, largest, offset);
    if (other > largest) largest = other;
  }
  // The first class with the largest logit. The loss does not wait for it.
  int predicted = logit < largest ? WARP_SIZE : own_class;
  for (int offset = LANES / 2; offset > 0; offset /= 2)
    predicted = min(predicted, __shfl_xor_sync(FULL_MASK, predicted, offset));
  const real target = own_class == label;
  if constexpr (kind == SOFTMAX_CROSS_ENTROPY) {
    const real power = lane < classes ? exp(logit - largest) : real(0);
    const real log_total = log(warp_reduce_sum<LANES>(power));
    const real dlogit = exp(logit - largest - log_total) - target;
    const real loss = log_total - (__shfl_sync(FULL_MASK, logit, label) - largest);
    return {dlogit, loss, predicted == label};
  } else {
    const ClassLoss own = sigmoid_loss<kind>(logit, target);
    const real loss = warp_reduce_sum<LANES>(lane < classes ? own.loss : real(0));
    return {own.dlogit, loss, predicted == label};
  }
}

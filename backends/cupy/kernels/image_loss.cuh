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

// The largest logit of an image, and the first class that has it.
struct Prediction {
  real logit;
  int label;
};

// Returns the prediction for an image. The arguments are those of image_loss.
template <int LANES>
DEVICE Prediction predict(real logit, int classes) {
  real largest = logit;
  for (int offset = LANES / 2; offset > 0; offset /= 2) {
    const real other = __shfl_xor_sync(FULL_MASK, largest, offset);
    if (other > largest) largest = other;
  }
  // The loss does not wait for the class.
  int label = logit < largest ? WARP_SIZE : min(int(threadIdx.x % WARP_SIZE), classes - 1);
  for (int offset = LANES / 2; offset > 0; offset /= 2)
    label = min(label, __shfl_xor_sync(FULL_MASK, label, offset));
  return {largest, label};
}

// Returns the loss of an image with at most LANES classes, a power of two up to WARP_SIZE. All
// lanes of a warp must call this; lane i computes class i. `logit` is the logit of this lane's
// class, or that of the last class in lanes without a class. Lanes from LANES on return values
// without meaning. Calls `use_gradient` with the gradient as soon as it is known.
template <Loss kind, int LANES, class Function>
DEVICE ImageLoss image_loss(real logit, int classes, int label, Function use_gradient) {
  const int lane = threadIdx.x % WARP_SIZE;
  const real target = min(lane, classes - 1) == label;
  if constexpr (kind == SOFTMAX_CROSS_ENTROPY) {
    const Prediction best = predict<LANES>(logit, classes);
    const real power = lane < classes ? exp(logit - best.logit) : real(0);
    const real log_total = log(warp_reduce_sum<LANES>(power));
    const real dlogit = exp(logit - best.logit - log_total) - target;
    use_gradient(dlogit);
    const real loss = log_total - (__shfl_sync(FULL_MASK, logit, label) - best.logit);
    return {dlogit, loss, best.label == label};
  } else {
    const ClassLoss own = sigmoid_loss<kind>(logit, target);
    use_gradient(own.dlogit);
    const real loss = warp_reduce_sum<LANES>(lane < classes ? own.loss : real(0));
    return {own.dlogit, loss, predict<LANES>(logit, classes).label == label};
  }
}

template <Loss kind, int LANES = WARP_SIZE>
DEVICE ImageLoss image_loss(real logit, int classes, int label) {
  return image_loss<kind, LANES>(logit, classes, label, [](real) {});
}

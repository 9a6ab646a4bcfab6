// The loss of one image and its gradient, by a warp: a lane for each class, of which there are at most
// 32. The formulas are those of backends/operations/losses.py.
//
// -DLOSS=SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY or QUADRATIC.

#define SOFTMAX_CROSS_ENTROPY 0
#define BINARY_CROSS_ENTROPY 1
#define QUADRATIC 2

struct LossOfImage {
  real dlogit;  // of this lane's class: the gradient of the image's loss
  real loss;
  bool is_correct;
};

// Returns the loss from each lane's logit. Lanes left over repeat the last class.
__device__ __forceinline__ LossOfImage loss_of_image(real logit, int classes, int label) {
  const int lane = threadIdx.x % 32, own = min(lane, classes - 1);
  real largest = logit;
  int best = own;  // the class of the largest logit, the first if there are several
  for (int distance = 16; distance > 0; distance /= 2) {
    const real its = __shfl_xor_sync(EVERY_LANE, largest, distance);
    const int other = __shfl_xor_sync(EVERY_LANE, best, distance);
    if (its > largest || (its == largest && other < best)) {
      largest = its;
      best = other;
    }
  }
  const real target = own == label;
#if LOSS == SOFTMAX_CROSS_ENTROPY
  const real log_total = log(sum_of_warp(lane < classes ? exp(logit - largest) : real(0)));
  const real dlogit = exp(logit - largest - log_total) - target;
  const real loss = log_total - (__shfl_sync(EVERY_LANE, logit, label) - largest);
#elif LOSS == BINARY_CROSS_ENTROPY
  const real dlogit = sigmoid(logit) - target;
  const real part = (logit > 0 ? logit : real(0)) - logit * target + log1p(exp(-fabs(logit)));
  const real loss = sum_of_warp(lane < classes ? part : real(0));
#else
  const real output = sigmoid(logit), error = output - target;
  const real dlogit = error * output * (1 - output);
  const real loss = sum_of_warp(lane < classes ? error * error / 2 : real(0));
#endif
  return {dlogit, loss, best == label};
}

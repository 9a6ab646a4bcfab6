// The loss of each image of a batch, its gradient, and whether the prediction is correct; the outputs
// that the loss compares with the targets.
//
// Layout: logits (B, classes); targets (B,) classes, or (B, classes) numbers for SQUARED_ERROR;
// weights (B,) factors of the losses, which are read only if WEIGHTED. One warp per image; a lane processes every 32nd class.
// Cost per image: reads and writes `classes` numbers, and computes about as many exponentials.
// Options: -DLOSS=SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY, QUADRATIC or SQUARED_ERROR;
// -DTARGET=int32 or int64, or float or double for SQUARED_ERROR; -DWEIGHTED=0 or 1.
#include "common.cuh"
#include "image_loss.cuh"

// Returns the first class with the largest logit, in every lane.
DEVICE int predicted_class(const real* logits, int classes, int lane) {
  int best = lane < classes ? lane : 0;
  for (int c = lane; c < classes; c += WARP_SIZE)
    if (logits[c] > logits[best]) best = c;
  for (int offset = WARP_SIZE / 2; offset > 0; offset /= 2) {
    const int other = __shfl_xor_sync(FULL_MASK, best, offset);
    const real own_logit = logits[best], other_logit = logits[other];
    if (other_logit > own_logit || (other_logit == own_logit && other < best)) best = other;
  }
  return best;
}

// In a graph step, `targets` and `weights` are those of the data set and `rows` is Chunk.rows; in an
// eager operation, they are those of the batch and `rows` is null. dlogits is the gradient of the
// mean loss of the batch. No prediction is correct for SQUARED_ERROR.
// Grid: one warp per image, once per member.
// At most 40 registers.
extern "C" __global__ void loss(const real* __restrict__ logits,
                                const TARGET* __restrict__ targets,
                                const real* __restrict__ weights, const int* __restrict__ rows,
                                int classes, Batch batch, int64 member_stride,
                                real* __restrict__ dlogits, real* __restrict__ losses,
                                int* __restrict__ correct) {
  batch = of_member(batch, member_stride);
  const int images = batch.size(), lane = threadIdx.x % WARP_SIZE;
  const int image = blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE;
  if (image >= images) return;  // in all lanes of the warp
  rows = of_member(rows, member_stride);
  const int64 row = rows ? rows[batch.first() + image] : image;
  const real* const z = of_member(logits, member_stride) + int64(image) * classes;
  real* const dz = of_member(dlogits, member_stride) + int64(image) * classes;
  real image_loss = 0;
  int is_correct = 0;
  if constexpr (LOSS == SQUARED_ERROR) {
    for (int c = lane; c < classes; c += WARP_SIZE) {
      const real error = z[c] - real(targets[row * classes + c]);
      image_loss += error * error / 2;
      dz[c] = error / real(images);
    }
    image_loss = warp_reduce_sum(image_loss);
  } else if constexpr (LOSS == SOFTMAX_CROSS_ENTROPY) {
    const int label = int(targets[row]), predicted = predicted_class(z, classes, lane);
    is_correct = predicted == label;
    const real largest = z[predicted];
    real total = 0;
    for (int c = lane; c < classes; c += WARP_SIZE) total += exp(z[c] - largest);
    const real log_total = log(warp_reduce_sum(total));
    for (int c = lane; c < classes; c += WARP_SIZE) {
      const real target = c == label;
      dz[c] = (exp(z[c] - largest - log_total) - target) / real(images);
    }
    image_loss = log_total - (z[label] - largest);
  } else {
    const int label = int(targets[row]);
    is_correct = predicted_class(z, classes, lane) == label;
    for (int c = lane; c < classes; c += WARP_SIZE) {
      const ClassLoss of_class = sigmoid_loss<LOSS>(z[c], c == label);
      image_loss += of_class.loss;
      dz[c] = of_class.dlogit / real(images);
    }
    image_loss = warp_reduce_sum(image_loss);
  }
  if constexpr (WEIGHTED) {
    image_loss *= weights[row];
    for (int c = lane; c < classes; c += WARP_SIZE) dz[c] *= weights[row];
  }
  if (lane == 0) {
    of_member(losses, member_stride)[image] = image_loss;
    of_member(correct, member_stride)[image] = is_correct;
  }
}

// Sets outputs (B, classes) to the softmax or the sigmoid of the logits, as the loss compares them
// with the targets. Not for SQUARED_ERROR, whose outputs are the logits. Grid: one warp per image.
// At most 40 registers.
extern "C" __global__ void loss_outputs(const real* __restrict__ logits, int classes, Batch batch,
                                        real* __restrict__ outputs) {
  const int images = batch.size(), lane = threadIdx.x % WARP_SIZE;
  const int image = blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE;
  if (image >= images) return;  // in all lanes of the warp
  const real* const z = logits + int64(image) * classes;
  real* const y = outputs + int64(image) * classes;
  if constexpr (LOSS == SOFTMAX_CROSS_ENTROPY) {
    const real largest = z[predicted_class(z, classes, lane)];
    real total = 0;
    for (int c = lane; c < classes; c += WARP_SIZE) total += exp(z[c] - largest);
    const real log_total = log(warp_reduce_sum(total));
    for (int c = lane; c < classes; c += WARP_SIZE) y[c] = exp(z[c] - largest - log_total);
  } else {
    for (int c = lane; c < classes; c += WARP_SIZE) y[c] = sigmoid(z[c]);
  }
}

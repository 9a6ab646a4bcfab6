// Naive versions of losses.cu, of the loss in fused_classifier.cu and of its mean in
// wgrad_update.cu. One thread per image.
//
// Layout: as in losses.cu.
#include "common.cuh"
#include "naive/losses.cuh"

// The loss of each image, and the gradient of their mean. `weights` are factors of the losses; null
// for 1.
extern "C" __global__ void naive_loss(Loss kind, const real* logits, const int* labels,
                                      const real* weights, int images, int classes, real* dlogits,
                                      real* losses, int* correct) {
  const int image = blockIdx.x * blockDim.x + threadIdx.x;
  if (image >= images) return;
  real* const gradient = dlogits + image * classes;
  const real factor = weights ? weights[image] : real(1);
  losses[image] = factor * loss_of_image(kind, logits + image * classes, classes, labels[image],
                                         gradient, correct[image]);
  for (int c = 0; c < classes; c++) gradient[c] *= factor / images;
}

// The squared error of each image, and the gradient of their mean.
extern "C" __global__ void naive_squared_error(const real* logits, const real* targets, int images,
                                               int outputs, real* dlogits, real* losses) {
  const int image = blockIdx.x * blockDim.x + threadIdx.x;
  if (image >= images) return;
  losses[image] = 0;
  for (int i = image * outputs; i < (image + 1) * outputs; i++) {
    const real error = logits[i] - targets[i];
    losses[image] += error * error / 2;
    dlogits[i] = error / images;
  }
}

// The softmax or the sigmoid of the logits, as the loss compares them with the targets.
extern "C" __global__ void naive_loss_outputs(Loss kind, const real* logits, int images,
                                              int classes, real* outputs) {
  const int image = blockIdx.x * blockDim.x + threadIdx.x;
  if (image >= images) return;
  const real* const z = logits + image * classes;
  real largest = z[0], total = 0;
  for (int c = 0; c < classes; c++) largest = z[c] > largest ? z[c] : largest;
  for (int c = 0; c < classes; c++) total += exp(z[c] - largest);
  for (int c = 0; c < classes; c++)
    outputs[image * classes + c] = kind == SOFTMAX_CROSS_ENTROPY ? exp(z[c] - largest) / total
                                                                 : 1 / (1 + exp(-z[c]));
}

// The mean loss of a batch, and the number of its correct predictions. One thread.
extern "C" __global__ void naive_batch_loss(const real* image_losses, const int* image_correct,
                                            int images, double* loss, int* correct) {
  *loss = *correct = 0;
  for (int image = 0; image < images; image++) {
    *loss += image_losses[image] / double(images);
    *correct += image_correct[image];
  }
}

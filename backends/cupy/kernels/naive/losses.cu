// Plain versions of losses.cu, and of the loss in fused_classifier.cu. One thread per image.
//
// Layout: as in losses.cu.
#include "common.cuh"
#include "naive/losses.cuh"

// The loss of each image, and the gradient of their mean; one thread per image.
extern "C" __global__ void naive_loss(Loss kind, const real* logits, const int* labels, int images,
                                      int classes, real* dlogits, real* losses, int* correct) {
  const int image = blockIdx.x * blockDim.x + threadIdx.x;
  if (image >= images) return;
  real* const gradient = dlogits + image * classes;
  losses[image] = loss_of_image(kind, logits + image * classes, classes, labels[image], gradient,
                                correct[image]);
  for (int c = 0; c < classes; c++) gradient[c] /= images;
}

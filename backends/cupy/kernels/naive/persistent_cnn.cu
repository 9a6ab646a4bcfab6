// A naive version of persistent/persistent_cnn.cu: one thread runs all steps.
#include "common.cuh"
#include "naive/convolution.cuh"
#include "naive/dot.cuh"
#include "naive/losses.cuh"
#include "naive/persistent.cuh"

// `features`, `gradients` and `mask` have one element per pooled output, `image` one per pixel,
// `logits` and `dlogits` one per class.
// Long: the arrays in shared memory of the fast kernel are arguments.
extern "C" __global__ void naive_persistent_cnn(
    const uint8* images, const int* labels, const int* rows, NaiveSettings settings, ConvShape conv,
    int classes, real* filters, real* weight, real* bias, real* image, real* features,
    real* gradients, uint8* mask, real* logits, real* dlogits, double* losses, int* correct) {
  const int cells = conv.cells(), count = conv.filters * cells;
  const real lr = settings.lr, weight_decay = settings.weight_decay;
  for (int step = 0; step < settings.steps; step++) {
    for (int i = 0; i < conv.pixels(); i++)
      image[i] = normalize(images[rows[step] * conv.pixels() + i], settings.pixel_shift);
    for (int i = 0; i < count; i++)
      features[i] = activate(settings.activation,
                             convolve_and_pool(image, filters, conv, i / cells, i % cells,
                                               settings.all_ties, mask[i]));
    for (int c = 0; c < classes; c++)
      logits[c] = bias[c] + dot(features, 1, weight + c, classes, count);
    losses[step] =
        loss_of_image(settings.loss, logits, classes, labels[rows[step]], dlogits, correct[step]);
    for (int i = 0; i < count; i++) {
      gradients[i] = 0;
      for (int c = 0; c < classes; c++) {
        real& w = weight[i * classes + c];
        gradients[i] += dlogits[c] * w;
        w -= lr * (features[i] * dlogits[c] + weight_decay * w);
      }
      gradients[i] *= derivative(settings.activation, features[i]);
    }
    for (int c = 0; c < classes; c++) bias[c] -= lr * (dlogits[c] + weight_decay * bias[c]);
    for (int i = 0; i < conv.filters * conv.taps(); i++) {
      const int row = i / conv.kernel_size % conv.kernel_size, column = i % conv.kernel_size;
      const real gradient =
          tap_gradient(gradients, mask, image, conv, i / conv.taps(), 0, row, column);
      filters[i] -= lr * (gradient + weight_decay * filters[i]);
    }
  }
}

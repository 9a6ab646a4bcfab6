// Plain versions of the kernels that are hard to read. Each computes the same as its fast
// counterpart, one thread per result or one thread for everything, without tiles, shared memory or
// fusion. Read them first. The tests compare the fast kernels with them; nothing else launches
// them.
//
//   naive kernel                                      fast kernel
//   naive_linear, naive_linear_backward_x             linear.cu; tensor_linear.cu
//   naive_linear_backward_weight                      wgrad_update.cu, before the update;
//                                                       tensor_wgrad.cu
//   naive_conv2d                                      convolution.cu
//   naive_conv2d_backward_x, .._backward_weight       convolution_gradients.cu; wgrad_update.cu
//   naive_linear and naive_loss, then                 fused_classifier.cu
//     naive_linear_backward_x, naive_conv2d_backward_x
//   naive_persistent_cnn, naive_persistent_mlp        persistent/
//
// Layout: as in the fast kernels. Options: none.
#include "image_loss.cuh"
#include "common.cuh"
#include "conv_shape.cuh"

// Returns the sum of x[i · x_stride] · y[i · y_stride] for i < count.
__device__ real dot(const real* x, int x_stride, const real* y, int y_stride, int count) {
  real sum = 0;
  for (int i = 0; i < count; i++) sum += x[i * x_stride] * y[i * y_stride];
  return sum;
}

// y = activation(x W + bias); `bias` may be null.
extern "C" __global__ void naive_linear(const real* x, const real* weight, const real* bias,
                                        int images, int inputs, int outputs, Activation activation,
                                        real* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, image = i / outputs, j = i % outputs;
  if (image >= images) return;
  const real sum = dot(x + image * inputs, 1, weight + j, outputs, inputs);
  y[i] = activate(activation, bias ? sum + bias[j] : sum);
}

// dx = dy Wᵀ times the derivative of the activation that computed x.
extern "C" __global__ void naive_linear_backward_x(const real* dy, const real* weight,
                                                   const real* x, int images, int inputs,
                                                   int outputs, Activation activation, real* dx) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, image = i / inputs, k = i % inputs;
  if (image >= images) return;
  const real sum = dot(dy + image * outputs, 1, weight + k * outputs, 1, outputs);
  dx[i] = sum * derivative(activation, x[i]);
}

// dW = xᵀ dy, (inputs, outputs), and the gradient of the bias: the row of dW for an input that is
// 1.
extern "C" __global__ void naive_linear_backward_weight(const real* dy, const real* x, int images,
                                                        int inputs, int outputs, real* dweight,
                                                        real* dbias) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, k = i / outputs, j = i % outputs;
  const real one = 1;
  if (k < inputs) dweight[i] = dot(x + k, inputs, dy + j, outputs, images);
  if (k == inputs) dbias[j] = dot(&one, 0, dy + j, outputs, images);
}

// Returns the convolution at one position, without bias.
__device__ real convolve(const real* image, const real* weight, const ConvShape& conv, int filter,
                         int row, int column) {
  const int size = conv.kernel_size;
  real sum = 0;
  for (int channel = 0; channel < conv.channels; channel++)
    for (int i = 0; i < size; i++)
      for (int j = 0; j < size; j++)
        sum +=
            weight[((filter * conv.channels + channel) * size + i) * size + j] *
            padded_pixel(image, conv, channel, row + i - conv.padding, column + j - conv.padding);
  return sum;
}

// Returns the maximum of the outputs of a cell, and sets its tie mask.
__device__ real convolve_and_pool(const real* image, const real* weight, const ConvShape& conv,
                                  int filter, int cell, int all_ties, uint8& mask) {
  const int row = cell / conv.cell_columns() * conv.pool;
  const int column = cell % conv.cell_columns() * conv.pool;
  real largest = 0;
  mask = 0;
  for (int bit = 0; bit < conv.pool * conv.pool; bit++) {
    const real output = convolve(image, weight, conv, filter, row + bit / 2, column + bit % 2);
    if (mask && output == largest && all_ties) mask |= 1 << bit;
    if (mask && !(output > largest)) continue;
    largest = output;
    mask = 1 << bit;
  }
  return largest;
}

// y = activation of the (pooled) convolution; `bias` may be null.
extern "C" __global__ void naive_conv2d(const real* x, const real* weight, const real* bias,
                                        ConvShape conv, int images, int all_ties,
                                        Activation activation, real* y, uint8* mask) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, cells = conv.cells();
  const int image = i / (conv.filters * cells), filter = i / cells % conv.filters;
  if (image >= images) return;
  const real* const pixels = x + image * conv.pixels();
  const real sum = convolve_and_pool(pixels, weight, conv, filter, i % cells, all_ties, mask[i]);
  y[i] = activate(activation, bias ? sum + bias[filter] : sum);
}

// Returns the gradient of tap (channel, i, j) of a filter for one image; if `x` is null, the
// gradient of the bias.
__device__ real tap_gradient(const real* dy, const uint8* mask, const real* x,
                             const ConvShape& conv, int filter, int channel, int i, int j) {
  real sum = 0;
  for (int cell = 0; cell < conv.cells(); cell++)
    for (int bit = 0; bit < conv.pool * conv.pool; bit++) {
      const int at = filter * conv.cells() + cell;
      if (conv.pool == 2 && !(mask[at] >> bit & 1)) continue;  // this output has no gradient
      const int row = cell / conv.cell_columns() * conv.pool + bit / 2 + i - conv.padding;
      const int column = cell % conv.cell_columns() * conv.pool + bit % 2 + j - conv.padding;
      sum += dy[at] * (x ? padded_pixel(x, conv, channel, row, column) : real(1));
    }
  return sum;
}

// The gradients of the filters and of the biases, one thread per weight and then one per bias.
extern "C" __global__ void naive_conv2d_backward_weight(const real* dy, const uint8* mask,
                                                        const real* x, ConvShape conv, int images,
                                                        real* dweight, real* dbias) {
  const int number = blockIdx.x * blockDim.x + threadIdx.x, size = conv.kernel_size;
  const int weights = conv.filters * conv.channels * conv.taps();
  if (number >= weights + conv.filters) return;
  const bool is_bias = number >= weights;
  const int filter = is_bias ? number - weights : number / (conv.channels * conv.taps());
  real sum = 0;
  for (int image = 0; image < images; image++) {
    const int outputs = image * conv.filters * conv.cells();
    const real* const pixels = is_bias ? nullptr : x + image * conv.pixels();
    sum += tap_gradient(dy + outputs, mask + outputs, pixels, conv, filter,
                        number / conv.taps() % conv.channels, number / size % size, number % size);
  }
  (is_bias ? dbias[filter] : dweight[number]) = sum;
}

// dx times the derivative of the activation that computed x, one thread per pixel: it goes through
// all outputs that receive a gradient, and adds those whose patches contain the pixel.
extern "C" __global__ void naive_conv2d_backward_x(const real* dy, const uint8* mask,
                                                   const real* weight, const real* x,
                                                   ConvShape conv, int images,
                                                   Activation activation, real* dx) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x, size = conv.kernel_size;
  const int image = pixel / conv.pixels();
  const int channel = pixel / (conv.height * conv.width) % conv.channels;
  if (image >= images) return;
  real sum = 0;
  for (int i = 0; i < conv.filters * conv.cells(); i++)
    for (int bit = 0; bit < conv.pool * conv.pool; bit++) {
      const int at = image * conv.filters * conv.cells() + i, cell = i % conv.cells();
      if (conv.pool == 2 && !(mask[at] >> bit & 1)) continue;
      const int output_row = cell / conv.cell_columns() * conv.pool + bit / 2;
      const int output_column = cell % conv.cell_columns() * conv.pool + bit % 2;
      const int row = pixel / conv.width % conv.height - output_row + conv.padding;  // tap row
      const int column = pixel % conv.width - output_column + conv.padding;
      if (row < 0 || row >= size || column < 0 || column >= size) continue;
      const int map = i / conv.cells() * conv.channels + channel;
      sum += dy[at] * weight[(map * size + row) * size + column];
    }
  dx[pixel] = sum * derivative(activation, x[pixel]);
}

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
      loss -= target * log(probability);
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

struct NaiveSettings {
  Loss loss;
  Activation activation;  // activation of the convolution or of the hidden units
  int steps;
  real lr;
  real pixel_shift, weight_decay;
};

// persistent_cnn.cu with first ties. One thread; `features`, `gradients` and `mask` have one
// element per pooled output, `image` one per pixel, `dlogits` one per class.
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
      features[i] = activate(settings.activation, convolve_and_pool(image, filters, conv, i / cells,
                                                                    i % cells, 0, mask[i]));
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

struct NaiveSizes {
  int inputs, hidden, outputs;
};

// persistent_mlp.cu. One thread; x (images, inputs), h and dh (images, hidden), logits and dlogits
// (images, outputs) hold a batch.
// Long: the arrays in shared memory of the fast kernel are arguments.
extern "C" __global__ void naive_persistent_mlp(const uint8* images, const int* labels,
                                                const int* rows, const int* bounds,
                                                NaiveSettings settings, NaiveSizes sizes,
                                                real* weight1, real* bias1, real* weight2,
                                                real* bias2, real* x, real* h, real* dh,
                                                real* logits, real* dlogits, double* losses,
                                                int* correct) {
  const int inputs = sizes.inputs, hidden = sizes.hidden, outputs = sizes.outputs;
  for (int step = 0; step < settings.steps; step++) {
    const int begin = bounds[2 * step], count = bounds[2 * step + 1] - begin;
    losses[step] = correct[step] = 0;
    for (int i = 0; i < count * inputs; i++)
      x[i] =
          normalize(images[rows[begin + i / inputs] * inputs + i % inputs], settings.pixel_shift);
    for (int i = 0; i < count * hidden; i++) {
      const real* const row = x + i / hidden * inputs;
      const real sum = bias1[i % hidden] + dot(row, 1, weight1 + i % hidden, hidden, inputs);
      h[i] = activate(settings.activation, sum);
    }
    for (int i = 0; i < count * outputs; i++) {
      const real* const row = h + i / outputs * hidden;
      logits[i] = bias2[i % outputs] + dot(row, 1, weight2 + i % outputs, outputs, hidden);
    }
    for (int image = 0; image < count; image++) {
      int is_correct;
      const int label = labels[rows[begin + image]], first = image * outputs;
      losses[step] += loss_of_image(settings.loss, logits + first, outputs, label, dlogits + first,
                                    is_correct) /
                      count;
      correct[step] += is_correct;
    }
    for (int i = 0; i < count * outputs; i++) dlogits[i] /= count;
    for (int i = 0; i < count * hidden; i++) {
      const real* const row = dlogits + i / hidden * outputs;
      dh[i] = dot(row, 1, weight2 + i % hidden * outputs, 1, outputs) *
              derivative(settings.activation, h[i]);
    }
    // SGD. The gradient of a weight is the sum over the images of its input times dh or dlogits.
    const auto update = [&](real& weight, real gradient) {
      weight -= settings.lr * (gradient + settings.weight_decay * weight);
    };
    const real one = 1;
    for (int i = 0; i < inputs * hidden; i++)
      update(weight1[i], dot(x + i / hidden, inputs, dh + i % hidden, hidden, count));
    for (int i = 0; i < hidden * outputs; i++)
      update(weight2[i], dot(h + i / outputs, hidden, dlogits + i % outputs, outputs, count));
    for (int j = 0; j < hidden; j++) update(bias1[j], dot(&one, 0, dh + j, hidden, count));
    for (int o = 0; o < outputs; o++) update(bias2[o], dot(&one, 0, dlogits + o, outputs, count));
  }
}

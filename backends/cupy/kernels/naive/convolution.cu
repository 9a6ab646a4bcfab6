// Naive versions of convolution.cu and convolution_gradients.cu, and of the convolutions in
// fused_classifier.cu and wgrad_update.cu. One thread per result.
//
// Layout: as in convolution.cu.
#include "common.cuh"
#include "naive/convolution.cuh"

// y = activation of the (pooled) convolution; `bias` and `mask` may be null.
extern "C" __global__ void naive_conv2d(const real* x, const real* weight, const real* bias,
                                        ConvShape conv, int images, int all_ties,
                                        Activation activation, real* y, uint8* mask) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, cells = conv.cells();
  const int image = i / (conv.filters * cells), filter = i / cells % conv.filters;
  if (image >= images) return;
  const real* const pixels = x + image * conv.pixels();
  uint8 ties;
  const real sum = convolve_and_pool(pixels, weight, conv, filter, i % cells, all_ties, ties);
  y[i] = activate(activation, bias ? sum + bias[filter] : sum);
  if (mask) mask[i] = ties;
}

// The gradients of the filters and of the biases, one thread per weight and then one per bias; `dbias`
// may be null.
extern "C" __global__ void naive_conv2d_backward_weight(const real* dy, const uint8* mask,
                                                        const real* x, ConvShape conv, int images,
                                                        real* dweight, real* dbias) {
  const int number = blockIdx.x * blockDim.x + threadIdx.x, size = conv.kernel_size;
  const int weights = conv.filters * conv.channels * conv.taps();
  if (number >= weights + (dbias ? conv.filters : 0)) return;
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

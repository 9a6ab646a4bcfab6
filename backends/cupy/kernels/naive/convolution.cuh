// One output of a convolution, the maximum of a cell, and the gradient of one tap of a filter.
#pragma once

#include "conv_shape.cuh"

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

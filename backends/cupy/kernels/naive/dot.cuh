// The inner product of two vectors.
#pragma once

#include "common.cuh"

// Returns the sum of x[i · x_stride] · y[i · y_stride] for i < count.
__device__ real dot(const real* x, int x_stride, const real* y, int y_stride, int count) {
  real sum = 0;
  for (int i = 0; i < count; i++) sum += x[i * x_stride] * y[i * y_stride];
  return sum;
}

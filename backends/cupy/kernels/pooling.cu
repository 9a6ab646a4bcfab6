// Maximum and average of square windows, and their gradients.
//
// Layout: images (N, C, H, W), seen as N*C planes; a thread an output, forward a window, backward a
// pixel. A gather needs no atomics: a pixel adds up the windows that it lies in.
// Cost per image: forward size² reads a window; backward as many a pixel where windows overlap.
// Options: -DMASK=uint8 (size² <= 8) or int64. Bit i·size + j of a mask is set where position (i, j)
// of its window receives the gradient.
#include "common.cuh"

// The sizes of a plane and of what becomes of it.
struct Windows {
  int height, width, pooled_height, pooled_width, size, stride;
};
#define WINDOWS int height, int width, int pooled_height, int pooled_width, int size, int stride
#define ALL_WINDOWS \
  Windows { height, width, pooled_height, pooled_width, size, stride }

// Returns where in the images the first pixel of a window lies.
__device__ __forceinline__ int64 corner(Windows w, int64 window) {
  const int column = int(window % w.pooled_width);
  const int row = int(window / w.pooled_width % w.pooled_height);
  const int64 plane = window / w.pooled_width / w.pooled_height;
  return (plane * w.height + row * w.stride) * w.width + column * w.stride;
}

// The windows along one axis that a pixel lies in.
struct Range {
  int first, last;
};

__device__ __forceinline__ Range windows_over(int pixel, int pooled, int size, int stride) {
  const int first = pixel < size ? 0 : (pixel - size) / stride + 1;
  return {first, min(pixel / stride, pooled - 1)};
}

// With `all_ties` every position that equals the maximum receives the gradient, else the first.
// At most 56 registers.
extern "C" __global__ void max_pool2d(const real* __restrict__ x, int64 windows, WINDOWS,
                                      int all_ties, real* __restrict__ y,
                                      MASK* __restrict__ mask) {
  const int64 window = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (window >= windows) return;
  const real* const pixels = x + corner(ALL_WINDOWS, window);
  real largest = pixels[0];
  MASK bits = 1;
  for (int i = 0; i < size; i++) {
    for (int j = 0; j < size; j++) {
      const real pixel = pixels[i * width + j];
      const MASK bit = MASK(1) << (i * size + j);
      if (pixel > largest || pixel != pixel) {  // NaN goes through, as it does in NumPy
        largest = pixel;
        bits = bit;
      } else if (all_ties && pixel == largest) {
        bits |= bit;
      }
    }
  }
  y[window] = largest;
  mask[window] = bits;
}

// At most 48 registers.
extern "C" __global__ void max_pool2d_backward(const real* __restrict__ dy,
                                               const MASK* __restrict__ mask, int64 pixels, WINDOWS,
                                               real* __restrict__ dx) {
  const int64 pixel = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const int column = int(pixel % width), row = int(pixel / width % height);
  const int64 plane = pixel / width / height;
  const Range down = windows_over(row, pooled_height, size, stride);
  const Range across = windows_over(column, pooled_width, size, stride);
  real sum = 0;
  for (int r = down.first; r <= down.last; r++) {
    for (int c = across.first; c <= across.last; c++) {
      const int64 window = (plane * pooled_height + r) * pooled_width + c;
      const int bit = (row - r * stride) * size + column - c * stride;
      if (mask[window] >> bit & 1) sum += dy[window];
    }
  }
  dx[pixel] = sum;
}

// At most 56 registers.
extern "C" __global__ void avg_pool2d(const real* __restrict__ x, int64 windows, WINDOWS,
                                      real* __restrict__ y) {
  const int64 window = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (window >= windows) return;
  const real* const pixels = x + corner(ALL_WINDOWS, window);
  real sum = 0;
  for (int i = 0; i < size; i++)
    for (int j = 0; j < size; j++) sum += pixels[i * width + j];
  y[window] = sum / real(size * size);
}

// At most 56 registers.
extern "C" __global__ void avg_pool2d_backward(const real* __restrict__ dy, int64 pixels, WINDOWS,
                                               real* __restrict__ dx) {
  const int64 pixel = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const int column = int(pixel % width), row = int(pixel / width % height);
  const int64 plane = pixel / width / height;
  const Range down = windows_over(row, pooled_height, size, stride);
  const Range across = windows_over(column, pooled_width, size, stride);
  real sum = 0;
  for (int r = down.first; r <= down.last; r++)
    for (int c = across.first; c <= across.last; c++)
      sum += dy[(plane * pooled_height + r) * pooled_width + c];
  dx[pixel] = sum / real(size * size);
}

// A naive version of stage_input.cuh, which gathers and normalizes the images of a batch. One thread
// per pixel.
//
// Layout: images (N, pixels) bytes; batch (B, pixels).
#include "common.cuh"

// batch = images[rows] / 255 + pixel_shift.
extern "C" __global__ void naive_gather(const uint8* images, const int* rows, int count, int pixels,
                                        real pixel_shift, real* batch) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count * pixels) return;
  batch[i] = real(images[int64(rows[i / pixels]) * pixels + i % pixels]) / 255 + pixel_shift;
}

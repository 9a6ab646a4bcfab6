// Takes rows of a data set and normalises their pixels.
//
// Layout: images (N, pixels) of PIXEL, batch (B, pixels) of real. A thread a pixel of the batch;
// neighbouring threads read neighbouring bytes.
// Cost per image: reads one byte and writes one real per pixel; no arithmetic to speak of.
// Options: -DPIXEL=uint8 (0..255, scaled to 0..1), or float or double (0..1 already).
#include "common.cuh"

// At most 32 registers.
extern "C" __global__ void gather_batch(const PIXEL* __restrict__ images,
                                        const int64* __restrict__ rows, int count, int pixels,
                                        real shift, real* __restrict__ batch) {
  const int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= int64(count) * pixels) return;
  const int64 row = rows[at / pixels];
  batch[at] = normalised(images[row * pixels + at % pixels], shift);
}

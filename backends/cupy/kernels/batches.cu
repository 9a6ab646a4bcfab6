// Gathers rows of a data set and normalizes their pixels.
//
// Layout: images (N, pixels), batch (B, pixels). One thread per pixel of the batch; consecutive
// threads read consecutive pixels.
// Cost per image: reads one PIXEL and writes one real per pixel.
// Options: -DPIXEL=uint8 (0..255, scaled to 0..1), float or double (already 0..1).
#include "common.cuh"

// At most 32 registers.
extern "C" __global__ void gather_batch(const PIXEL* __restrict__ images,
                                        const int64* __restrict__ rows, int count, int pixels,
                                        real pixel_shift, real* __restrict__ batch) {
  const Position position(pixels);
  const int image = position.quotient, pixel = position.remainder;
  if (image >= count) return;
  batch[int64(image) * pixels + pixel] =
      normalize(images[rows[image] * pixels + pixel], pixel_shift);
}

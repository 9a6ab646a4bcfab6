// What a stage takes: what the stage before left, or (-DPIXEL, uint8 or real) the images of a batch.
//
// A CUDA graph repeats launches with the arguments that they had when it was captured. So what
// changes from step to step lies in memory: `step`, a counter, says which part of the arrays of a
// section of steps comes next. The first stage reads it, takes its images from the data set, which
// stays on the device as it was loaded, and notes for the kernels behind it what they need to know.
//
// Layout: images (N, size) of PIXEL, rows (images of the section,), bounds (steps, 2) of places in
// `rows`, rates (steps, 3); `batch` is as common.cuh has it. Needs rows.cuh.
// Cost per image: reads a byte for each pixel as often as the kernel reads the pixel.

#ifdef PIXEL
#define INPUT                                                                            \
  const PIXEL *__restrict__ images, const int *__restrict__ rows,                        \
      const int *__restrict__ bounds, const real *__restrict__ rates,                    \
      const int *__restrict__ step, real shift, int *__restrict__ batch, real *__restrict__ step_rates
#define INPUT_OF(size) begin_step(images, rows, bounds, rates, step, shift, batch, step_rates, size)
typedef Pixels Input;

__device__ __forceinline__ Pixels begin_step(const PIXEL* images, const int* rows,
                                             const int* bounds, const real* rates, const int* step,
                                             real shift, int* batch, real* step_rates, int size) {
  const int now = *step;
  const int first = bounds[2 * now], count = bounds[2 * now + 1] - first;
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
    batch[0] = count;
    batch[1] = first;
    for (int i = 0; i < 3; i++) step_rates[i] = rates[3 * now + i];
  }
  return {images, rows + first, shift, size, count};
}
#else
#define INPUT const real *__restrict__ x, batch_t batch
#define INPUT_OF(size) \
  Numbers { x, size, images_of(batch) }
typedef Numbers Input;
#endif

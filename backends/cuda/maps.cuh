// The images and feature maps of a convolution, and the gradient of one of its numbers. Needs rows.cuh.

// The sizes of an image and of what becomes of it.
struct Maps {
  int channels, height, width, filters, padding;
  int kernel_size;  // side of a filter
  int side;         // of the square of outputs that become one number: 2 where they are pooled, or 1

  __device__ __forceinline__ int taps() const { return kernel_size * kernel_size; }
  __device__ __forceinline__ int outputs_down() const {
    return height + 2 * padding - kernel_size + 1;
  }
  __device__ __forceinline__ int outputs_across() const {
    return width + 2 * padding - kernel_size + 1;
  }
  __device__ __forceinline__ int cells_down() const { return outputs_down() / side; }
  __device__ __forceinline__ int cells_across() const { return outputs_across() / side; }
  __device__ __forceinline__ int cells() const { return cells_down() * cells_across(); }
};

// Returns a pixel of a channel of an image, 0 on its border.
template <class Row>
__device__ __forceinline__ real pixel(const Row& image, const Maps& maps, int channel, int row,
                                      int column) {
  if (row < 0 || row >= maps.height || column < 0 || column >= maps.width) return 0;
  return image[(channel * maps.height + row) * maps.width + column];
}

// Returns what this thread of a block adds to the gradient of a number of a filter, or, behind the
// last of them, of its bias. `dy` is the gradient of what the activation took, of `mask` bit
// side·i + j is set where output (i, j) of a square receives it.
template <class Images>
__device__ __forceinline__ real part_of_filter_gradient(const real* dy, const uint8* mask,
                                                        const Images& x, const Maps& maps,
                                                        int filter, int number) {
  const bool is_bias = number == maps.channels * maps.taps();
  const int channel = is_bias ? 0 : number / maps.taps(), tap = number % maps.taps();
  const int cells = maps.cells(), across = maps.cells_across();
  const int64 total = int64(x.count) * cells;
  real sum = 0;
  for (int64 place = threadIdx.x; place < total; place += blockDim.x) {
    const int image = int(place / cells), cell = int(place % cells);
    const int64 at = (int64(image) * maps.filters + filter) * cells + cell;
    const int top = cell / across * maps.side + tap / maps.kernel_size - maps.padding;
    const int left = cell % across * maps.side + tap % maps.kernel_size - maps.padding;
    for (int bit = 0; bit < maps.side * maps.side; bit++) {
      if (maps.side == 2 && !(mask[at] >> bit & 1)) continue;
      const int row = top + bit / maps.side, column = left + bit % maps.side;
      sum += dy[at] * (is_bias ? real(1) : pixel(x(image), maps, channel, row, column));
    }
  }
  return sum;
}

// The images and feature maps of a convolution. Needs rows.cuh.

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
  // Which cell a row or a column of outputs belongs to; cheaper than a division.
  __device__ __forceinline__ int cell_of(int output) const { return output >> (side - 1); }
  __device__ __forceinline__ int cells_down() const { return cell_of(outputs_down()); }
  __device__ __forceinline__ int cells_across() const { return cell_of(outputs_across()); }
  __device__ __forceinline__ int cells() const { return cells_down() * cells_across(); }
};

// The sizes as arguments of a kernel that is compiled for -DKERNEL_SIZE and -DPOOL.
#define MAPS int channels, int height, int width, int filters, int padding
#define ALL_MAPS \
  Maps { channels, height, width, filters, padding, KERNEL_SIZE, POOL ? 2 : 1 }

// Returns a pixel of a channel of an image, 0 on its border.
template <class Row>
__device__ __forceinline__ real pixel(const Row& image, const Maps& maps, int channel, int row,
                                      int column) {
  if (row < 0 || row >= maps.height || column < 0 || column >= maps.width) return 0;
  return image[(channel * maps.height + row) * maps.width + column];
}

// The outputs of a cell that receive its gradient, one after the other: the only one, or of a square of
// four those whose bits are set, bit 2·i + j for output (i, j). There is always one.
struct Receivers {
  unsigned bits;

  __device__ __forceinline__ Receivers(const uint8* mask, int64 cell, int side)
      : bits(side == 2 ? mask[cell] : 1) {}
  __device__ __forceinline__ int row() const { return first() > 3; }
  __device__ __forceinline__ int column() const { return (first() & 10) != 0; }
  // Goes on to the next; returns whether there is one.
  __device__ __forceinline__ bool next() { return bits &= bits - 1; }

 private:
  __device__ __forceinline__ unsigned first() const { return bits & -bits; }
};

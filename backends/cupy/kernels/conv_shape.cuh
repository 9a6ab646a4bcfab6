// Sizes of a convolution, zero padding, and the tie masks of the pooling that follows it.
#pragma once

#include "common.cuh"

// Sizes of a convolution with stride 1, followed by max-pooling with patches of pool×pool outputs.
// A *cell* is one output position of the pooling, or of the convolution if it is not pooled.
struct ConvShape {
  int channels, height, width;  // sizes of an input image
  int filters, kernel_size;     // filters are square
  int padding;                  // zeros on each side
  int pool;                     // 2, or 1 without pooling

  DEVICE int taps() const { return kernel_size * kernel_size; }
  DEVICE int pixels() const { return channels * height * width; }
  DEVICE int output_height() const { return height + 2 * padding - kernel_size + 1; }
  DEVICE int output_width() const { return width + 2 * padding - kernel_size + 1; }
  // Returns the cell row of an output row, or the cell column of an output column. As pool is 1 or
  // 2, a shift replaces the division.
  DEVICE int cell_of(int output) const { return output >> (pool - 1); }
  DEVICE int cell_rows() const { return cell_of(output_height()); }
  DEVICE int cell_columns() const { return cell_of(output_width()); }
  DEVICE int cells() const { return cell_rows() * cell_columns(); }
};

// Returns a shape whose filter size and pooling are compile-time constants.
template <int kernel_size, int pool>
DEVICE ConvShape specialize(ConvShape shape) {
  shape.kernel_size = kernel_size;
  shape.pool = pool;
  return shape;
}

// Returns a pixel of an image, or 0 outside of it.
template <class Row>
DEVICE real padded_pixel(const Row& image, const ConvShape& shape, int channel, int row,
                         int column) {
  if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) return 0;
  return image[(channel * shape.height + row) * shape.width + column];
}

// Iterates over the convolution outputs of a cell that receive its gradient. Without pooling that
// is the only output. With 2×2 pooling, bit 2·i + j of the tie mask stands for output (i, j); at
// least one bit is set.
struct TieIterator {
  unsigned bits;

  DEVICE TieIterator(const uint8* masks, int64 cell, int pool)
      : bits(pool == 2 ? masks[cell] : 1) {}
  // Row and column of the current output in its cell.
  DEVICE int row() const { return lowest() > 3; }
  DEVICE int column() const { return (lowest() & 10) != 0; }
  // Moves to the next output; returns false after the last one.
  DEVICE bool next() { return bits &= bits - 1; }

 private:
  DEVICE unsigned lowest() const { return bits & -bits; }
};

// Views of the input of a stage as a matrix with one row per image.
//
// Both views have the same interface:
//   rows.from(i)         the view that begins at row i
//   rows.row(i)[k]       element k of row i
//   rows.address(i, k)   where that element is stored; rows.value(*address) converts it
//   rows.column(k)       a cursor down column k, with address(i) and from(i)
//
// address() and from() compute with 64-bit offsets, row() of DenseRows with 32-bit offsets, which
// take fewer instructions: call from() first to reach a row that is far away.
#pragma once

#include "common.cuh"

// Consecutive rows in memory.
struct DenseRows {
  typedef real Element;
  struct Column {
    const real* first;
    int width;
    DEVICE const real* address(int row) const { return first + int64(row) * width; }
    DEVICE Column from(int row) const { return {address(row), width}; }
  };
  const real* first;
  int width;  // elements per row
  int count;  // rows
  DEVICE const real* row(int i) const { return first + i * width; }
  DEVICE DenseRows from(int i) const { return {first + int64(i) * width, width, count - i}; }
  DEVICE const real* address(int i, int k) const { return from(i).first + k; }
  DEVICE Column column(int k) const { return {first + k, width}; }
  DEVICE real value(real element) const { return element; }
};

// One image of the data set, normalized when it is read.
template <class Pixel>
struct NormalizedImage {
  const Pixel* pixels;
  real shift;
  DEVICE real operator[](int i) const { return normalize(pixels[i], shift); }
  DEVICE NormalizedImage operator+(int i) const { return {pixels + i, shift}; }
};

// The images of a batch, gathered from the data set.
template <class Pixel>
struct GatheredRows {
  typedef Pixel Element;
  struct Column {
    const Pixel* first;  // the pixel of this column in image 0 of the data set
    const int* rows;
    int width;
    DEVICE const Pixel* address(int image) const { return first + int64(rows[image]) * width; }
    DEVICE Column from(int image) const { return {first, rows + image, width}; }
  };
  const Pixel* images;  // the data set
  const int* rows;      // row of the data set of each image of the batch
  real shift;
  int width;  // pixels per image
  int count;  // images in the batch
  DEVICE NormalizedImage<Pixel> row(int i) const {
    return {images + int64(rows[i]) * width, shift};
  }
  DEVICE GatheredRows from(int i) const { return {images, rows + i, shift, width, count - i}; }
  DEVICE const Pixel* address(int i, int k) const { return images + int64(rows[i]) * width + k; }
  DEVICE Column column(int k) const { return {images + k, rows, width}; }
  DEVICE real value(Pixel element) const { return normalize(element, shift); }
};

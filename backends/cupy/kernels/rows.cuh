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
    __device__ __forceinline__ const real* address(int row) const {
      return first + int64(row) * width;
    }
    __device__ __forceinline__ Column from(int row) const { return {address(row), width}; }
  };
  const real* first;
  int width;  // elements per row
  int count;  // rows
  __device__ __forceinline__ const real* row(int i) const { return first + i * width; }
  __device__ __forceinline__ DenseRows from(int i) const {
    return {first + int64(i) * width, width, count - i};
  }
  __device__ __forceinline__ const real* address(int i, int k) const { return from(i).first + k; }
  __device__ __forceinline__ Column column(int k) const { return {first + k, width}; }
  __device__ __forceinline__ real value(real element) const { return element; }
};

// One image of the data set, normalized when it is read.
template <class Pixel>
struct NormalizedImage {
  const Pixel* pixels;
  real shift;
  __device__ __forceinline__ real operator[](int i) const { return normalize(pixels[i], shift); }
  __device__ __forceinline__ NormalizedImage operator+(int i) const { return {pixels + i, shift}; }
};

// The images of a batch, gathered from the data set.
template <class Pixel>
struct GatheredRows {
  typedef Pixel Element;
  struct Column {
    const Pixel* first;  // of the data set
    const int* rows;
    int width;
    __device__ __forceinline__ const Pixel* address(int image) const {
      return first + int64(rows[image]) * width;
    }
    __device__ __forceinline__ Column from(int image) const { return {first, rows + image, width}; }
  };
  const Pixel* images;  // the data set
  const int* rows;      // row of the data set of each image of the batch
  real shift;
  int width;  // pixels per image
  int count;  // images in the batch
  __device__ __forceinline__ NormalizedImage<Pixel> row(int i) const {
    return {images + int64(rows[i]) * width, shift};
  }
  __device__ __forceinline__ GatheredRows from(int i) const {
    return {images, rows + i, shift, width, count - i};
  }
  __device__ __forceinline__ const Pixel* address(int i, int k) const {
    return images + int64(rows[i]) * width + k;
  }
  __device__ __forceinline__ Column column(int k) const { return {images + k, rows, width}; }
  __device__ __forceinline__ real value(Pixel element) const { return normalize(element, shift); }
};

// Rows of numbers as kernels read them: `x(row)[i]`, and `x.from(row)`, those from one on. Or in two steps:
// `x.number(x.stored(row, i))`, of which the first only asks for what lies in memory.
//
// Wherever rows begin is counted in 64 bits; from there on 32 will do, which take fewer instructions.

// Numbers that lie one row after the other.
struct Numbers {
  typedef real Stored;
  const real* first;
  int size;  // of a row
  int count;
  __device__ __forceinline__ const real* operator()(int row) const { return first + row * size; }
  __device__ __forceinline__ Numbers from(int row) const {
    return {first + int64(row) * size, size, count - row};
  }
  __device__ __forceinline__ real stored(int row, int i) const { return first[row * size + i]; }
  __device__ __forceinline__ real number(real stored) const { return stored; }
};

#ifdef PIXEL
// An image of the data set, normalised as it is read.
struct Image {
  const PIXEL* pixels;
  real shift;
  __device__ __forceinline__ real operator[](int i) const { return normalised(pixels[i], shift); }
  __device__ __forceinline__ Image operator+(int i) const { return {pixels + i, shift}; }
};

// The images of a batch, wherever in the data set they lie.
struct Pixels {
  typedef PIXEL Stored;
  const PIXEL* images;
  const int* rows;  // of the data set
  real shift;
  int size;  // of an image
  int count;
  __device__ __forceinline__ Image operator()(int image) const {
    return {images + int64(rows[image]) * size, shift};
  }
  __device__ __forceinline__ Pixels from(int image) const {
    return {images, rows + image, shift, size, count - image};
  }
  __device__ __forceinline__ PIXEL stored(int image, int i) const {
    return images[int64(rows[image]) * size + i];
  }
  __device__ __forceinline__ real number(PIXEL stored) const { return normalised(stored, shift); }
};
#endif

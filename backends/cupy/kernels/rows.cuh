// Rows of numbers as kernels read them: `x(row)[i]`, and `x.from(row)`, those from one on. Or in two steps,
// of which the first only asks for what lies in memory: `x.number(*x.at(row, i))`. A column of them can be
// gone along: `*column.at(row)`, and `column.from(row)`, from one row on.
//
// Wherever rows begin is counted in 64 bits; from there on 32 will do, which take fewer instructions.

// Numbers that lie one row after the other.
struct Numbers {
  typedef real Stored;
  struct Column {
    const real* first;
    int size;  // of a row
    __device__ __forceinline__ const real* at(int row) const { return first + int64(row) * size; }
    __device__ __forceinline__ Column from(int row) const { return {at(row), size}; }
  };
  const real* first;
  int size;  // of a row
  int count;
  __device__ __forceinline__ const real* operator()(int row) const { return first + row * size; }
  __device__ __forceinline__ Numbers from(int row) const {
    return {first + int64(row) * size, size, count - row};
  }
  __device__ __forceinline__ const real* at(int row, int i) const { return from(row).first + i; }
  __device__ __forceinline__ Column column(int i) const { return {first + i, size}; }
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
  struct Column {
    const PIXEL* first;  // of the data set
    const int* rows;
    int size;  // of an image
    __device__ __forceinline__ const PIXEL* at(int image) const {
      return first + int64(rows[image]) * size;
    }
    __device__ __forceinline__ Column from(int image) const { return {first, rows + image, size}; }
  };
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
  __device__ __forceinline__ const PIXEL* at(int image, int i) const {
    return images + int64(rows[image]) * size + i;
  }
  __device__ __forceinline__ Column column(int i) const { return {images + i, rows, size}; }
  __device__ __forceinline__ real number(PIXEL stored) const { return normalised(stored, shift); }
};
#endif

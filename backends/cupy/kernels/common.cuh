// What all kernels share: the type of their numbers, where a batch's size comes from, activations,
// and sums over the threads of a block.
//
// -DREAL=float or double. Every sum has one order: runs repeat to the bit.

typedef REAL real;
typedef int int32;
typedef long long int64;
typedef unsigned char uint8;

#define EVERY_LANE 0xffffffffu

// How many images a batch has. Where a single operation is launched, an argument says it. The
// arguments of a captured step (-DCAPTURED) never change, so there it lies in memory, and behind it
// where in the rows of the section the batch begins.
#ifdef CAPTURED
typedef const int* batch_t;
__device__ __forceinline__ int images_of(batch_t batch) { return batch[0]; }
__device__ __forceinline__ int beginning_of(batch_t batch) { return batch[1]; }
#else
typedef int batch_t;
__device__ __forceinline__ int images_of(batch_t batch) { return batch; }
__device__ __forceinline__ int beginning_of(batch_t) { return 0; }
#endif

// Returns a pixel as networks take it: bytes are scaled to 0..1, and all are shifted.
template <class Pixel>
__device__ __forceinline__ real normalised(Pixel pixel, real shift) {
  if constexpr (sizeof(Pixel) == 1) {
    // What the division by 255 rounds to, for every byte: the product with the rounded reciprocal,
    // and once what it lacks. A division would take a dozen instructions, of each kernel that reads
    // the data set.
    const real reciprocal = real(1) / real(255), quotient = real(pixel) * reciprocal;
    return fma(fma(-quotient, real(255), real(pixel)), reciprocal, quotient) + shift;
  } else {
    return real(pixel) + shift;
  }
}

// -------------------------------------------------------------------------------- activations

#define IDENTITY 0
#define RELU 1
#define SIGMOID 2
#define TANH 3

// Only exp(-|x|) <= 1 is computed, so nothing overflows.
__device__ __forceinline__ real sigmoid(real x) {
  const real decay = exp(-fabs(x));
  return (x >= 0 ? real(1) : decay) / (real(1) + decay);
}

template <int kind>
__device__ __forceinline__ real activate(real x) {
  if constexpr (kind == RELU) return x <= 0 ? real(0) : x;  // NaN stays NaN
  if constexpr (kind == SIGMOID) return sigmoid(x);
  if constexpr (kind == TANH) return tanh(x);
  return x;
}

// Returns the derivative of an activation, from its output.
template <int kind>
__device__ __forceinline__ real derivative(real y) {
  if constexpr (kind == RELU) return y > 0 ? real(1) : real(0);
  if constexpr (kind == SIGMOID) return y * (real(1) - y);
  if constexpr (kind == TANH) return real(1) - y * y;
  return real(1);
}

// The same where the kind becomes known when a kernel runs, alike for all threads of a warp.
__device__ __forceinline__ real activate_as(int kind, real x) {
  if (kind == RELU) return activate<RELU>(x);
  if (kind == SIGMOID) return activate<SIGMOID>(x);
  if (kind == TANH) return activate<TANH>(x);
  return x;
}

__device__ __forceinline__ real derivative_as(int kind, real y) {
  if (kind == RELU) return derivative<RELU>(y);
  if (kind == SIGMOID) return derivative<SIGMOID>(y);
  if (kind == TANH) return derivative<TANH>(y);
  return real(1);
}

// --------------------------------------------------------------------------------------- sums

// Returns, to all lanes, the sum of what the lanes of a warp have.
template <class Number>
__device__ __forceinline__ Number sum_of_warp(Number value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(EVERY_LANE, value, distance);
  return value;
}

// Adds up numbers of two lanes that are so far apart, which is a power of two: the lower lane keeps the
// first half of them, the upper one the second, each with what the other has of it.
template <int count>
__device__ __forceinline__ void halve(real* numbers, int distance) {
  const bool is_upper = threadIdx.x & distance;
#pragma unroll
  for (int i = 0; i < count / 2; i++) {
    const real given = is_upper ? numbers[i] : numbers[i + count / 2];
    const real kept = is_upper ? numbers[i + count / 2] : numbers[i];
    numbers[i] = kept + __shfl_xor_sync(EVERY_LANE, given, distance);
  }
}

// Returns, to lanes 32 / count · i, the sum of what the lanes of a warp have as number i; `count` is a
// power of two.
template <int count, int distance = 16>
__device__ __forceinline__ real sum_of_each(real* numbers) {
  if constexpr (count > 1) {
    halve<count>(numbers, distance);
    return sum_of_each<count / 2, distance / 2>(numbers);
  }
  real sum = numbers[0];
  for (int left = distance; left > 0; left /= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, left);
  return sum;
}

// Returns, to thread 0, the sum of what the threads of a block of whole warps have. `sums` is
// shared memory, a number for each warp; it may be used again after the next barrier.
template <class Number>
__device__ __forceinline__ Number sum_of_block(Number value, Number* sums) {
  value = sum_of_warp(value);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  Number total = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < int(blockDim.x / 32); warp++) total += sums[warp];
  return total;
}

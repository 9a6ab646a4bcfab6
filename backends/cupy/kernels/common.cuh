// Number types, the images of a launch, pixel normalization, activations, the maximum of a patch, and
// reductions.
//
// Options: -DREAL=float or double; -DWARP_SIZE=32; -DMEMBERS=1 if a launch trains several members of
// a population.
// Every sum is computed in a fixed order, so results repeat bit for bit.
#pragma once

typedef REAL real;
typedef int int32;
typedef long long int64;
typedef unsigned int uint32;
typedef unsigned char uint8;

#define DEVICE __device__ __forceinline__

// Elements that one instruction reads or writes.
constexpr int VECTOR = 16 / sizeof(real);
struct alignas(16) Vector {
  real elements[VECTOR];
};

// Four elements that are read by one instruction, or by two if they are doubles.
struct alignas(16) Vector4 {
  real elements[4];
};

constexpr unsigned FULL_MASK = 0xffffffffu;  // all lanes of a warp

// A CUDA graph replays its launches with the arguments of the capture, so everything that changes
// from step to step is in device memory: in the arrays of a chunk and of a step.

// Inputs and results of the steps of a chunk.
struct Chunk {
  const int* rows;    // rows of the data set in the order in which the steps take them
  const int* bounds;  // (steps + 1, 2): positions in `rows` where each step begins and ends; the
                      // last step reads the row after its own, which is not used
  const real* rates;  // (steps, 3): learning rate, and Adam's two other rates
  int* step;          // (3,): number of steps that are done, and the bounds of the next one, so that
                      // its first kernel need not read the number first
  int* diverged;      // set to 1 by an updated weight that is not finite
  double* losses;     // mean loss of each step
  int* correct;       // number of correct predictions of each step
};

// Values that the first kernels of a step compute for the later kernels of the step.
struct StepState {
  int* batch;          // (2,): number of images, and the position of the first in Chunk.rows
  real* rates;         // (3,): the row of Chunk.rates for this step
  real* image_losses;  // loss of each image
  int* image_correct;  // 1 for each image with a correct prediction, else 0
};

// The batch that a launch processes: of an eager operation, which passes the number of images by
// value, or of a graph step.
struct Batch {
  const int* state;  // StepState.batch; null if eager
  int images;        // number of images if `state` is null

  DEVICE int size() const { return state ? state[0] : images; }
  DEVICE int first() const { return state ? state[1] : 0; }
};

// The position of a thread in a one-dimensional grid, counted in groups of `group` threads, divided by
// the number of elements of an image: quotient and remainder.
//
// A 64-bit division takes several times as many instructions as these 32-bit divisions. With T groups
// per block, the position is block·T + thread, and block = (block / d)·d + block % d, so
//   position / d = block / d · T + (block % d · T + thread) / d.
// d·T must be below 2^32.
struct Position {
  int quotient, remainder;

  DEVICE explicit Position(uint32 divisor, uint32 group = 1) {
    const uint32 groups = blockDim.x / group;
    const uint32 rest = blockIdx.x % divisor * groups + threadIdx.x / group;
    quotient = int(blockIdx.x / divisor * groups + rest / divisor);
    remainder = int(rest % divisor);
  }
};

// Returns images · number / splits, rounded down: the first image of a split. The product may exceed
// 32 bits, but no intermediate result here does.
DEVICE int split_begin(int images, int number, int splits) {
  return images / splits * number + images % splits * number / splits;
}

// ------------------------------------------------------------------- members of a population

// The last dimension of the grid is the member. A kernel takes the arrays of the first member; those
// of each next one are `member_stride` bytes further. All members read the same data set. Without
// -DMEMBERS there is one member, and these functions return their argument.

template <class Element>
DEVICE Element* of_member(Element* array, int64 member_stride) {
#ifdef MEMBERS
  if (array) array = (Element*)((const char*)array + int64(blockIdx.z) * member_stride);
#endif
  return array;
}

DEVICE Chunk of_member(const Chunk& chunk, int64 stride) {
  return {of_member(chunk.rows, stride),     of_member(chunk.bounds, stride),
          of_member(chunk.rates, stride),    of_member(chunk.step, stride),
          of_member(chunk.diverged, stride), of_member(chunk.losses, stride),
          of_member(chunk.correct, stride)};
}

DEVICE StepState of_member(const StepState& state, int64 stride) {
  return {of_member(state.batch, stride), of_member(state.rates, stride),
          of_member(state.image_losses, stride), of_member(state.image_correct, stride)};
}

DEVICE Batch of_member(const Batch& batch, int64 stride) {
  return {of_member(batch.state, stride), batch.images};
}

// Returns whether a number is neither NaN nor infinite.
DEVICE bool is_finite(real x) { return x - x == 0; }

// Returns a normalized pixel: bytes are scaled to 0..1, then the shift is added.
template <class Pixel>
DEVICE real normalize(Pixel pixel, real shift) {
  if constexpr (sizeof(Pixel) == 1) {
    // Bit-identical to pixel / 255 for every byte: the product with the rounded reciprocal, plus
    // one Newton correction. A division would take about a dozen instructions.
    const real reciprocal = real(1) / real(255), quotient = real(pixel) * reciprocal;
    return fma(fma(-quotient, real(255), real(pixel)), reciprocal, quotient) + shift;
  } else {
    return real(pixel) + shift;
  }
}

// ------------------------------------------------------------------------------- activations

enum Activation { IDENTITY, RELU, SIGMOID, TANH };

// Evaluates exp(-|x|) only, which is at most 1, so nothing overflows.
DEVICE real sigmoid(real x) {
  const real decay = exp(-fabs(x));
  return (x >= 0 ? real(1) : decay) / (real(1) + decay);
}

// All threads of a warp pass the same kind, so the branches do not diverge. If the kind is a
// compile-time constant, no branch is left.
DEVICE real activate(Activation kind, real x) {
  if (kind == RELU) return x <= 0 ? real(0) : x;  // the comparison keeps NaN
  if (kind == SIGMOID) return sigmoid(x);
  if (kind == TANH) return tanh(x);
  return x;
}

// Returns the derivative of an activation, computed from its output y.
DEVICE real derivative(Activation kind, real y) {
  if (kind == RELU) return y <= 0 ? real(0) : real(1);  // 1 for NaN, as in PyTorch
  if (kind == SIGMOID) return y * (real(1) - y);
  if (kind == TANH) return real(1) - y * y;
  return real(1);
}

// ---------------------------------------------------------------------- maximum of a patch

// The largest element of a patch, and its tie mask: bit i is set if element i receives the gradient.
// These are all elements that equal the maximum if `all_ties`, else the first of them.
template <class Mask>
struct PatchMaximum {
  real value;
  Mask mask;

  // Without branches, because the lanes of a warp would take different ones.
  DEVICE void add(real element, Mask bit, int all_ties) {
    // A NaN becomes the maximum, as in NumPy.
    const bool is_larger = element > value || element != element;
    const bool is_tie = all_ties && element == value;
    mask = is_larger ? bit : mask | (is_tie ? bit : Mask(0));
    value = is_larger ? element : value;
  }
};

// -------------------------------------------------------------------------------- reductions

// Returns the smallest power of two that is at least `count`.
constexpr int power_of_two(int count) { return count <= 1 ? 1 : 2 * power_of_two((count + 1) / 2); }

// Returns the sum over the lanes of a warp, or over each group of LANES lanes, in every lane.
template <int LANES = WARP_SIZE, class Number>
DEVICE Number warp_reduce_sum(Number value) {
  for (int offset = LANES / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(FULL_MASK, value, offset);
  return value;
}

// One step of a reduce-scatter: two lanes that are `offset` apart, a power of two, exchange halves
// of their `count` values. The lower lane keeps the sums of the first half, rounded up, the upper lane
// those of the second half, in values[0 .. (count + 1) / 2). A missing value counts as 0.
template <int count>
DEVICE void reduce_scatter_step(real* values, int offset) {
  constexpr int half = (count + 1) / 2;
  const bool is_upper = threadIdx.x & offset;
#pragma unroll
  for (int i = 0; i < half; i++) {
    const real first = values[i], second = i + half < count ? values[i + half] : real(0);
    const real sent = is_upper ? first : second, kept = is_upper ? second : first;
    values[i] = kept + __shfl_xor_sync(FULL_MASK, sent, offset);
  }
}

// Sums each of `count` values, a power of two up to the warp size, over the lanes of a warp. The
// lanes are divided into `count` groups; group i returns the sum of values[i].
//
//   count = 4:   lanes  0-7   8-15  16-23  24-31
//                sum of v[0]  v[1]  v[2]   v[3]
//
// Takes count - 1 + log2(32 / count) shuffles instead of the 5 * count of separate reductions.
template <int count, int offset = WARP_SIZE / 2>
DEVICE real warp_reduce_scatter(real* values) {
  if constexpr (count > 1) {
    reduce_scatter_step<count>(values, offset);
    return warp_reduce_scatter<count / 2, offset / 2>(values);
  }
  real sum = values[0];
  for (int left = offset; left > 0; left /= 2) sum += __shfl_xor_sync(FULL_MASK, sum, left);
  return sum;
}

// Sums each of `count` values over the lanes of a group of 2 * `offset` lanes, a power of two that
// divides `count`. Lane i of the group has the sums of values[i * n .. i * n + n - 1], n values per
// lane, in values[0 .. n).
template <int count, int offset>
DEVICE void group_reduce_scatter(real* values) {
  if constexpr (offset > 0) {
    reduce_scatter_step<count>(values, offset);
    group_reduce_scatter<count / 2, offset / 2>(values);
  }
}

// Consecutive numbers of a sequence, at most SIZE.
template <int SIZE>
struct Range {
  static constexpr int size = SIZE;
  int begin, end;
};

// Sums each of `count` values over the lanes of a warp, or over those whose numbers are equal modulo
// LANES, a power of two. Each lane keeps the sums of a part of the values, in values[0 ..], and returns
// which; it may be none.
template <int count, int LANES = 1, int offset = WARP_SIZE / 2>
DEVICE auto warp_reduce_ranges(real* values, int begin = 0, int end = count) {
  if constexpr (offset >= LANES && offset > 0) {
    reduce_scatter_step<count>(values, offset);
    constexpr int half = (count + 1) / 2;
    const bool is_upper = threadIdx.x & offset;
    const int middle = begin + half;
    return warp_reduce_ranges<half, LANES, offset / 2>(values, is_upper ? middle : begin,
                                                       is_upper ? end : min(middle, end));
  } else {
    return Range<count>{begin, end};
  }
}

// Returns the sum over the threads of a block, in thread 0. The block consists of whole warps.
// `warp_sums` is shared memory with one element per warp; it can be reused after the next barrier.
template <class Number>
DEVICE Number block_reduce_sum(Number value, Number* warp_sums) {
  value = warp_reduce_sum(value);
  if (threadIdx.x % WARP_SIZE == 0) warp_sums[threadIdx.x / WARP_SIZE] = value;
  __syncthreads();
  Number total = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < int(blockDim.x / WARP_SIZE); warp++) total += warp_sums[warp];
  return total;
}

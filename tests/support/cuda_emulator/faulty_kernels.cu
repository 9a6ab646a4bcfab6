// Small kernels for the tests of the emulator. Each is correct by default, and has a bug with -DBUG_....
//
// The tests show that the emulator detects every one of these bugs.

// Reverses the elements of each block of 64, through shared memory.
extern "C" __global__ void reverse_in_blocks(const float* x, float* y) {
  __shared__ float reversed[64];
  __shared__ float unwritten[64];
  const int thread = threadIdx.x, first = blockIdx.x * 64;
  float local[2] = {x[first + thread], 0};
#ifdef BUG_UNWRITTEN
  if (thread % 2)
#endif
    reversed[63 - thread] = local[0];
#if defined(BUG_DIVERGENT_BARRIER)
  if (thread < 40) __syncthreads();
#elif defined(BUG_TWO_BARRIERS)
  if (thread < 32)
    __syncthreads();
  else
    __syncthreads();
#elif !defined(BUG_MISSING_BARRIER)
  __syncthreads();
#endif
#if defined(BUG_BEYOND_THE_ARRAY)
  y[first + thread + 1] = reversed[thread];
#elif defined(BUG_BEYOND_SHARED_MEMORY)
  y[first + thread] = reversed[thread + 1] + unwritten[0];
#elif defined(BUG_BEYOND_LOCAL_MEMORY)
  for (int i = 0; i <= first + thread; i++) local[i] = reversed[thread];
  y[first + thread] = local[thread % 2];
#else
  y[first + thread] = reversed[thread];
#endif
}

// Writes the sum of the 32 elements of each warp, and the first of them.
extern "C" __global__ void sum_by_warps(const double* x, double* sums, double* firsts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  double sum = x[threadIdx.x];
#ifdef BUG_MISSING_LANE
  if (lane == 9) return;
#endif
#ifdef BUG_WRONG_MASK
  const unsigned mask = 0x0000ffff;
#else
  const unsigned mask = 0xffffffff;
#endif
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(mask, sum, distance);
  }
  const double first = __shfl_sync(0xffffffff, x[threadIdx.x], 0);
  if (lane == 31) {
    sums[warp] = sum;
    firsts[warp] = first;
  }
}

// Rotates 64 elements by one position in each round. With two buffers, one barrier per round suffices.
extern "C" __global__ void rotate(const float* x, float* y, int rounds) {
  __shared__ float buffers[2][64];
  const int thread = threadIdx.x;
  buffers[0][thread] = x[thread];
  __syncthreads();
  for (int round = 0; round < rounds; round++) {
#ifdef BUG_ONE_BUFFER
    float* const from = buffers[0];
    float* const to = buffers[0];
#else
    float* const from = buffers[round % 2];
    float* const to = buffers[(round + 1) % 2];
#endif
    to[thread] = from[(thread + 1) % 64];
    __syncthreads();
  }
#ifdef BUG_ONE_BUFFER
  y[thread] = buffers[0][thread];
#else
  y[thread] = buffers[rounds % 2][thread];
#endif
}

// In each round, replaces each number by the sum of all. Each block has one number. With two buffers
// for the exchanged numbers, one grid barrier per round suffices.
extern "C" __global__ void all_reduce_grid(int* numbers, int* buffers, int rounds,
                                           unsigned* barrier) {
  volatile unsigned* const finished_barriers = barrier + 1;
  const int blocks = gridDim.x;
  if (threadIdx.x > 0) return;
  for (int round = 0; round < rounds; round++) {
#ifdef BUG_ONE_BUFFER
    volatile int* const exchanged = buffers;
#else
    volatile int* const exchanged = buffers + round % 2 * blocks;
#endif
    exchanged[blockIdx.x] = numbers[blockIdx.x];
    const unsigned before = *finished_barriers;
    __threadfence();
    if (atomicAdd(barrier, 1u) == unsigned(blocks - 1)) {
      barrier[0] = 0;
      __threadfence();
      atomicAdd(barrier + 1, 1u);
    } else {
      while (*finished_barriers == before) __nanosleep(20);
    }
    __threadfence();
    int sum = 0;
    for (int block = 0; block < blocks; block++) {
      sum += exchanged[block];
      __syncwarp(1);  // lets another block run
    }
    numbers[blockIdx.x] = sum;
  }
}

// Adds 64 numbers per block. Each block writes its numbers to memory and increments a counter; the block
// that finds the counter at its last value adds the numbers of all blocks.
extern "C" __global__ void sum_in_last_block(const int* x, int* partial_sums, int* counter, int* sum) {
  __shared__ int position;
  const int i = blockIdx.x * 64 + threadIdx.x;
  partial_sums[i] = x[i];
  __threadfence();
#ifndef BUG_MISSING_BARRIER
  __syncthreads();
#endif
  if (threadIdx.x == 0) position = atomicAdd(counter, 1);
  __syncthreads();
  if (position != int(gridDim.x) - 1 || threadIdx.x > 0) return;
  __threadfence();
  for (int i = 0; i < int(gridDim.x) * 64; i++) *sum += partial_sums[i];
}

// Computes the same as all_reduce_grid, with the 8 blocks of a cluster.
extern "C" __global__ void __cluster_dims__(8, 1, 1)
    all_reduce_cluster(int* numbers, int* buffers, int rounds) {
  for (int round = 0; round < rounds; round++) {
#ifdef BUG_ONE_BUFFER
    volatile int* const exchanged = buffers;
#else
    volatile int* const exchanged = buffers + round % 2 * 8;
#endif
    if (threadIdx.x == 0) exchanged[blockIdx.x] = numbers[blockIdx.x];
#ifdef BUG_MISSING_BLOCK
    if (blockIdx.x == 5) return;
#endif
#ifndef BUG_NOT_ARRIVED
    __cluster_barrier_arrive();
#endif
#ifdef BUG_ARRIVED_TWICE
    __cluster_barrier_arrive();
#endif
    __cluster_barrier_wait();
    if (threadIdx.x > 0) continue;
    int sum = 0;
    for (int block = 0; block < 8; block++) {
      sum += exchanged[block];
      __syncwarp(1);  // lets another block run
    }
    numbers[blockIdx.x] = sum;
  }
}

// Writes the sums of 64 numbers over the 8 blocks of a cluster. Each block reads the numbers of the
// others from their shared memory.
extern "C" __global__ void __cluster_dims__(8, 1, 1) sum_over_cluster(const int* x, int* sums) {
  __shared__ int numbers[64];
  const int thread = threadIdx.x, i = blockIdx.x * 64 + thread;
  numbers[thread] = x[i];
#ifdef BUG_EARLY_ARRIVAL
  __cluster_barrier_arrive();
  numbers[thread] += 1;
  __cluster_barrier_wait();
#elif !defined(BUG_MISSING_BARRIER)
  numbers[thread] += 1;
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
  int sum = 0;
#ifdef BUG_NO_SUCH_BLOCK
  for (int block = 0; block <= 8; block++)
#else
  for (int block = 0; block < 8; block++)
#endif
    sum += static_cast<int*>(__cluster_map_shared_rank(numbers, block))[63 - thread];
  sums[i] = sum;
#ifndef BUG_EARLY_EXIT
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

// Writes the sums of 64 numbers over the 8 blocks of a cluster. Each block stores its numbers in the
// shared memory of block 0, which adds them.
extern "C" __global__ void __cluster_dims__(8, 1, 1) sum_in_first_block(const int* x, int* sums) {
  __shared__ int numbers[8][64];
  const int thread = threadIdx.x, rank = blockIdx.x;
#ifndef BUG_MISSING_BARRIER
  __cluster_barrier_arrive();  // block 0 has started before the others access its shared memory
  __cluster_barrier_wait();
#endif
  static_cast<int*>(__cluster_map_shared_rank(numbers[rank], 0))[thread] = x[rank * 64 + thread];
#ifdef BUG_BLOCK_BARRIER
  __syncthreads();
#else
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
  if (rank > 0) return;
  int sum = 0;
  for (int block = 0; block < 8; block++) sum += numbers[block][63 - thread];
  sums[thread] = sum;
}

extern "C" __global__ void count_threads(int* count) { atomicAdd(count, 1); }

// Counts how often each thread of a three-dimensional launch runs.
extern "C" __global__ void count_runs(int* runs) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  runs[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

extern "C" __global__ void fill(float* x, int n) {
  if (int(threadIdx.x) < n) x[threadIdx.x] = 1;
}

struct Line {
  float slope;
  int offset;
};

extern "C" __global__ void draw(const __grid_constant__ Line line, float* y) {
  y[threadIdx.x] = line.slope * float(threadIdx.x) + float(line.offset);
}

// Multiplies a 16×16 by a 16×8 matrix, whose elements are exact in bfloat16, by a tensor core.
extern "C" __global__ void multiply_by_tensor_core(const float* left, const float* right,
                                                   float* product) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const auto pair = [](float first, float second) {
    return __byte_perm(__float_as_uint(first), __float_as_uint(second), 0x7632);
  };
  unsigned a[4], b[2];
  float sums[4] = {};
  for (int i = 0; i < 4; i++) {
#ifdef BUG_SWAPPED_REGISTERS
    const int row = g + i / 2 * 8, column = 2 * t + i % 2 * 8;
#else
    const int row = g + i % 2 * 8, column = 2 * t + i / 2 * 8;
#endif
    a[i] = pair(left[row * 16 + column], left[row * 16 + column + 1]);
  }
  for (int i = 0; i < 2; i++) {
    const int row = 2 * t + 8 * i;
#ifdef BUG_SWAPPED_HALVES
    b[i] = pair(right[(row + 1) * 8 + g], right[row * 8 + g]);
#else
    b[i] = pair(right[row * 8 + g], right[(row + 1) * 8 + g]);
#endif
  }
#ifdef BUG_MISSING_LANE
  if (lane == 9) return;
#endif
#ifdef BUG_OTHER_PRECISION
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
  for (int i = 0; i < 4; i++) product[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

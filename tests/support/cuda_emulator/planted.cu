// Small kernels for the tests of the emulator: right as they stand, wrong with -DBUG_...
//
// The bugs stay here, so that the tests can show that each of them is noticed.

// Reverses the numbers of each block of 64 by way of shared memory.
extern "C" __global__ void reverse_in_blocks(const float* x, float* y) {
  __shared__ float reversed[64];
  __shared__ float unwritten[64];
  const int thread = threadIdx.x, first = blockIdx.x * 64;
  float own[2] = {x[first + thread], 0};
#ifdef BUG_UNWRITTEN
  if (thread % 2)
#endif
    reversed[63 - thread] = own[0];
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
#elif defined(BUG_BEYOND_REGISTERS)
  for (int i = 0; i <= first + thread; i++) own[i] = reversed[thread];
  y[first + thread] = own[thread % 2];
#else
  y[first + thread] = reversed[thread];
#endif
}

// Adds up the 32 numbers of each warp, and tells the first of them to all.
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

// Turns 64 numbers by one place, so many times; one barrier a time is enough with two buffers.
extern "C" __global__ void rotate(const float* x, float* y, int times) {
  __shared__ float buffers[2][64];
  const int thread = threadIdx.x;
  buffers[0][thread] = x[thread];
  __syncthreads();
  for (int time = 0; time < times; time++) {
#ifdef BUG_ONE_BUFFER
    float* const from = buffers[0];
    float* const to = buffers[0];
#else
    float* const from = buffers[time % 2];
    float* const to = buffers[(time + 1) % 2];
#endif
    to[thread] = from[(thread + 1) % 64];
    __syncthreads();
  }
#ifdef BUG_ONE_BUFFER
  y[thread] = buffers[0][thread];
#else
  y[thread] = buffers[times % 2][thread];
#endif
}

// Replaces every number by the sum of all, so many times; a block has one number. Two buffers for what
// blocks tell each other make one barrier a time enough.
extern "C" __global__ void add_up_across_blocks(int* numbers, int* told, int times,
                                                unsigned* barrier) {
  volatile unsigned* const rounds = barrier + 1;
  const int blocks = gridDim.x;
  if (threadIdx.x > 0) return;
  for (int time = 0; time < times; time++) {
#ifdef BUG_ONE_BUFFER
    volatile int* const all = told;
#else
    volatile int* const all = told + time % 2 * blocks;
#endif
    all[blockIdx.x] = numbers[blockIdx.x];
    const unsigned before = *rounds;
    __threadfence();
    if (atomicAdd(barrier, 1u) == unsigned(blocks - 1)) {
      barrier[0] = 0;
      __threadfence();
      atomicAdd(barrier + 1, 1u);
    } else {
      while (*rounds == before) __nanosleep(20);
    }
    __threadfence();
    int sum = 0;
    for (int block = 0; block < blocks; block++) {
      sum += all[block];
      __syncwarp(1);  // here another block may run
    }
    numbers[blockIdx.x] = sum;
  }
}

// Adds up the numbers of all blocks, 64 each: every block leaves its own in memory, and the last to draw a
// ticket finds them there.
extern "C" __global__ void add_up_in_the_last(const int* x, int* parts, int* ticket, int* sum) {
  __shared__ int drawn;
  const int own = blockIdx.x * 64 + threadIdx.x;
  parts[own] = x[own];
  __threadfence();
#ifndef BUG_MISSING_BARRIER
  __syncthreads();
#endif
  if (threadIdx.x == 0) drawn = atomicAdd(ticket, 1);
  __syncthreads();
  if (drawn != int(gridDim.x) - 1 || threadIdx.x > 0) return;
  __threadfence();
  for (int i = 0; i < int(gridDim.x) * 64; i++) *sum += parts[i];
}

#define TOGETHER __cluster_dims__(8, 1, 1)

// Does the same with the blocks of a cluster.
extern "C" __global__ void TOGETHER add_up_across_a_cluster(int* numbers, int* told, int times) {
  for (int time = 0; time < times; time++) {
#ifdef BUG_ONE_BUFFER
    volatile int* const all = told;
#else
    volatile int* const all = told + time % 2 * 8;
#endif
    if (threadIdx.x == 0) all[blockIdx.x] = numbers[blockIdx.x];
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
      sum += all[block];
      __syncwarp(1);  // here another block may run
    }
    numbers[blockIdx.x] = sum;
  }
}

extern "C" __global__ void count_threads(int* count) { atomicAdd(count, 1); }

// Counts how often each thread of a launch of (2, 3, 2) blocks of (8, 4, 2) threads runs.
extern "C" __global__ void mark_place(int* seen) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  seen[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
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

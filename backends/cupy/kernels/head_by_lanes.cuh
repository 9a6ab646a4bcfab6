// The linear layers of a block of the head that has few images.
//
// Forward, the warps share out the columns of W, and what is left of them its rows, so that a warp reads
// neighbouring numbers; back, a warp has some rows of W at a time and a lane some columns, or a thread a
// row where there are few columns. A weight that is read serves all images.

#define MOST_THREADS 512
#define BLOCKS 1           // for whose registers a multiprocessor has room
#define ROWS (8 / IMAGES)  // of a weight matrix that a warp takes back at a time

struct Shared {
  real parts[IMAGES][MOST_THREADS], logits[IMAGES][32];
};

// Sets y, numbers of some images whose rows are `stride` apart, to the activation of x W + bias.
__device__ __forceinline__ void forward(const Layer& layer, Numbers x, const real* parameters,
                                        int activation, real* y, int stride, Shared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const real* const weight = parameters + layer.weight;
  // A band has up to 32 columns, and a warp as many rows of it as it has lanes for. Warps with the same
  // band share out the rows.
  const int columns = min(32, layer.outputs), rows = 32 / columns;
  const int bands = min(warps, (layer.outputs + 31) / 32), sharers = warps / bands * rows;
  const int own_column = warp % bands * columns + lane % columns, width = bands * columns;
  const int share = warp / bands * rows + lane / columns;
  const bool is_idle = lane >= rows * columns || share >= sharers;
  const int turns = is_idle ? 0 : (layer.inputs - share + sharers - 1) / sharers;
  for (int first = 0; first < layer.outputs; first += width) {
    const int column = min(first + own_column, layer.outputs - 1);
    real sums[IMAGES];
#pragma unroll
    for (int image = 0; image < IMAGES; image++) sums[image] = 0;
#pragma unroll 8
    for (int turn = 0; turn < turns; turn++) {
      const int k = share + turn * sharers;
      const real number = weight[k * layer.outputs + column];
#pragma unroll
      for (int image = 0; image < IMAGES; image++)  // those beyond the end repeat the last
        sums[image] += x(min(image, x.count - 1))[k] * number;
    }
    if (!is_idle)
#pragma unroll
      for (int image = 0; image < IMAGES; image++)
        shared.parts[image][share * width + own_column] = sums[image];
    __syncthreads();
    for (int place = threadIdx.x; place < x.count * width; place += blockDim.x) {
      const int image = place / width, own = first + place % width;
      if (own >= layer.outputs) continue;
      real total = layer.bias >= 0 ? parameters[layer.bias + own] : real(0);
      for (int other = 0; other < sharers; other++)
        total += shared.parts[image][other * width + place % width];
      y[image * stride + own] = activate_as(activation, total);
    }
    __syncthreads();
  }
}

// Sets dx, numbers of some images, to dy Wᵀ times the derivative of the activation that made x.
__device__ __forceinline__ void back(const Layer& layer, Numbers x, const real* parameters,
                                     Numbers dy, real* dx, Shared&) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const real* const weight = parameters + layer.weight;
  if (layer.outputs <= 32) {  // too few columns for the lanes of a warp: a thread has a row
    for (int k = threadIdx.x; k < layer.inputs; k += blockDim.x) {
      real sums[IMAGES];
#pragma unroll
      for (int image = 0; image < IMAGES; image++) sums[image] = 0;
#pragma unroll 4
      for (int column = 0; column < layer.outputs; column++) {
        const real number = weight[k * layer.outputs + column];
#pragma unroll
        for (int image = 0; image < IMAGES; image++)
          sums[image] += number * dy(min(image, dy.count - 1))[column];
      }
#pragma unroll
      for (int image = 0; image < IMAGES; image++)
        if (image < x.count)
          dx[image * layer.inputs + k] = sums[image] * derivative_as(layer.below, x(image)[k]);
    }
    __syncthreads();
    return;
  }
  for (int first = warp * ROWS; first < layer.inputs; first += warps * ROWS) {
    real sums[ROWS * IMAGES];
#pragma unroll
    for (int i = 0; i < ROWS * IMAGES; i++) sums[i] = 0;
    for (int column = lane; column < layer.outputs; column += 32) {
      real gradients[IMAGES];
#pragma unroll
      for (int image = 0; image < IMAGES; image++)
        gradients[image] = dy(min(image, dy.count - 1))[column];
#pragma unroll
      for (int i = 0; i < ROWS * IMAGES; i++) {
        const int row = min(first + i / IMAGES, layer.inputs - 1);
        sums[i] += weight[row * layer.outputs + column] * gradients[i % IMAGES];
      }
    }
    const real own = sum_of_each<ROWS * IMAGES>(sums);
    const int number = lane / (32 / (ROWS * IMAGES)), k = first + number / IMAGES;
    const int image = number % IMAGES;
    if (lane % (32 / (ROWS * IMAGES)) == 0 && k < layer.inputs && image < x.count)
      dx[image * layer.inputs + k] = own * derivative_as(layer.below, x(image)[k]);
  }
  __syncthreads();
}

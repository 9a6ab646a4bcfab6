// The gradient of the filters of a convolution. Needs maps.cuh.
//
// A block adds up the gradients of a patch of a filter, up to 5×5 taps (-DPATCH, of a side), which are
// all of most filters: a thread takes the cells of the pooled map that are a block apart, and finds for
// each where in the image the taps lie. So what a cell costs is shared by the taps.

#define PATCH_NUMBERS (PATCH * PATCH + 1)  // the last is the filter's bias
#define WARP_NUMBERS 32                    // as many as PATCH_NUMBERS or more, and a power of two

// Taps of a filter in one channel.
struct Patch {
  int filter, channel, row, column;
  int down, across;  // how many taps

  __device__ __forceinline__ Patch(const Maps& maps, int number) {
    const int parts = (maps.kernel_size + PATCH - 1) / PATCH;  // of a side
    column = number % parts * PATCH;
    row = number / parts % parts * PATCH;
    channel = number / (parts * parts) % maps.channels;
    filter = number / (parts * parts) / maps.channels;
    down = min(PATCH, maps.kernel_size - row);
    across = min(PATCH, maps.kernel_size - column);
  }

  // Returns which number of the filters, or else of the biases, a number of the patch is; -1 if none.
  // One patch of each filter has its bias.
  __device__ __forceinline__ int weight(const Maps& maps, int number) const {
    const int i = number / PATCH, j = number % PATCH;
    if (i >= down || j >= across) return -1;
    const int side = maps.kernel_size;
    return ((filter * maps.channels + channel) * side + row + i) * side + column + j;
  }
  __device__ __forceinline__ int bias(int number) const {
    return number == PATCH_NUMBERS - 1 && channel + row + column == 0 ? filter : -1;
  }
};

// A cell of the feature maps of a batch. Cells are taken at steps of as many as a block has threads;
// a step is made of whole images, rows and columns, which takes no division.
struct Cell {
  int image, row, column;

  __device__ __forceinline__ Cell(int number, int down, int across) {
    image = number / (down * across);
    row = number / across % down;
    column = number % across;
  }

  __device__ __forceinline__ void advance(const Cell& step, int down, int across) {
    image += step.image;
    row += step.row;
    column += step.column;
    if (column >= across) {
      column -= across;
      row++;
    }
    if (row >= down) {
      row -= down;
      image++;
    }
  }
};

// Which lines and columns of a patch lie on the image: a bit for each.
struct Inside {
  unsigned rows, columns;

  __device__ __forceinline__ Inside(const Maps& maps, const Patch& patch, int top, int left)
      : rows(bits(-top, min(patch.down, maps.height - top))),
        columns(bits(-left, min(patch.across, maps.width - left))) {}
  __device__ __forceinline__ bool is_all() const { return (rows & columns) == (1u << PATCH) - 1; }
  __device__ __forceinline__ bool has(int row, int column) const {
    return rows >> row & columns >> column & 1;
  }

 private:
  // Returns bits from one on to before another.
  __device__ __forceinline__ static unsigned bits(int begin, int end) {
    return (1u << max(0, end)) - 1 & ~0u << min(PATCH, max(0, begin));
  }
};

// Adds a cell's gradient times the pixels that the taps lie on, of which the first is given. Most cells
// have them all, and need not ask for each.
template <bool is_whole, class Row>
__device__ __forceinline__ void add_patch(real* own, real gradient, const Row& first, int width,
                                          const Inside& inside) {
#pragma unroll
  for (int i = 0; i < PATCH; i++) {
    const auto line = first + i * width;
#pragma unroll
    for (int j = 0; j < PATCH; j++)
      if (is_whole || inside.has(i, j)) own[i * PATCH + j] += gradient * line[j];
  }
}

// Sets `sums`, shared memory for PATCH_NUMBERS of each warp, to what the warps of a block have added up
// of the gradient of a patch and of its filter's bias. `dy` is the gradient of what the activation took.
template <class Images>
__device__ __forceinline__ void filter_gradient(const real* dy, const uint8* mask, const Images& x,
                                                const Maps& maps, const Patch& patch, real* sums) {
  const int down = maps.cells_down(), across = maps.cells_across(), outputs = maps.filters * maps.cells();
  const int map = patch.filter * maps.cells(), channel = patch.channel * maps.height;
  const Cell step(blockDim.x, down, across);
  real own[WARP_NUMBERS];
#pragma unroll
  for (int i = 0; i < WARP_NUMBERS; i++) own[i] = 0;
#pragma unroll 1
  for (Cell cell(threadIdx.x, down, across); cell.image < x.count; cell.advance(step, down, across)) {
    const int64 at = int64(cell.image) * outputs + (map + cell.row * across + cell.column);
    const real gradient = dy[at];
    const auto image = x.from(cell.image)(0);
    Receivers output(mask, at, maps.side);
    do {
      own[PATCH_NUMBERS - 1] += gradient;
      const int top = cell.row * maps.side + output.row() + patch.row - maps.padding;
      const int left = cell.column * maps.side + output.column() + patch.column - maps.padding;
      const auto first = image + ((channel + top) * maps.width + left);
      const Inside inside(maps, patch, top, left);
      if (inside.is_all())
        add_patch<true>(own, gradient, first, maps.width, inside);
      else
        add_patch<false>(own, gradient, first, maps.width, inside);
    } while (output.next());
  }
  const real sum = sum_of_each<WARP_NUMBERS>(own);
  const int lane = threadIdx.x % 32;
  if (lane < PATCH_NUMBERS) sums[threadIdx.x / 32 * PATCH_NUMBERS + lane] = sum;
  __syncthreads();
}

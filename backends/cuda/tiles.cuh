// Products of matrices, a tile of 16×32 numbers of the result for each block of 8 warps.
//
// The matrices of MNIST's networks are small, so a block computes its tile with as many threads as a
// large one would take: each warp has the whole tile, and every eighth slab of the terms. A thread has
// 4×4 numbers in registers, for which it reads 4 + 4 of shared memory a term. Warps wait for nobody
// until their sums are put together. Needs rows.cuh.

#define TILE_ROWS 16
#define TILE_COLUMNS 32
#define TILE_NUMBERS (TILE_ROWS * TILE_COLUMNS)
#define TILE_WARPS 8
#define SLAB int(64 / sizeof(real))  // terms that a warp reads at a time

// Numbers that are read together.
struct alignas(16) Four {
  real of[4];
};

// Four numbers more in a line than are used: lines then begin in different banks.
struct Slab {
  real left[SLAB][TILE_ROWS + 4], right[SLAB][TILE_COLUMNS + 4];
};

union alignas(16) Tiles {
  Slab slabs[TILE_WARPS];
  real sums[TILE_WARPS][TILE_NUMBERS];  // of each warp, after the last slab
};

// A factor of a product: its lines are rows of the left one, and columns of the right one.
template <class Rows>
struct Matrix {
  Rows row;  // there are row.count of row.size
  bool has_ones = false;  // a column of ones follows; of a transposed left factor alone
};

// What a lane reads of a slab: some terms of some lines, as they lie in memory. Lines beyond the end repeat
// the last one; nobody looks at what comes of them. Terms beyond the end are 0; of a pixel that becomes the
// shift, and the 0 of the right factor, which has no pixels, cancels it. Whichever way round a matrix is,
// neighbouring lanes read neighbours.
template <bool lines_are_rows, int LINES, class Rows>
struct Part {
  static const int count = SLAB * LINES / 32;
  typename Rows::Stored stored[count];

  __device__ __forceinline__ static int line(int i) {
    const int lane = threadIdx.x % 32;
    return lines_are_rows ? lane / SLAB + i * (32 / SLAB) : lane % LINES;
  }
  __device__ __forceinline__ static int term(int i) {
    const int lane = threadIdx.x % 32;
    return lines_are_rows ? lane % SLAB : lane / LINES + i * (32 / LINES);
  }

  __device__ __forceinline__ void read(const Matrix<Rows>& m, int first_line, int first_term,
                                       int terms) {
    const Rows rows = m.row.from(lines_are_rows ? first_line : first_term);
    const int left = terms - first_term, last = lines_are_rows ? rows.count - 1 : rows.size - 1;
#pragma unroll
    for (int i = 0; i < count; i++) {
      stored[i] = 0;
      if (term(i) >= left) continue;
      if constexpr (lines_are_rows)
        stored[i] = rows.stored(min(line(i), last), first_term + term(i));
      else
        stored[i] = rows.stored(term(i), min(first_line + line(i), last));
    }
  }

  __device__ __forceinline__ void write(const Matrix<Rows>& m, int first_line,
                                        real (&slab)[SLAB][LINES + 4]) const {
    const bool is_one = !lines_are_rows && m.has_ones && first_line + line(0) == m.row.size;
#pragma unroll
    for (int i = 0; i < count; i++)
      slab[term(i)][line(i)] = is_one ? real(1) : m.row.number(stored[i]);
  }
};

// Computes a tile of the product of two matrices, each transposed or not. What the warps have summed
// up is in `tiles.sums` afterwards, line by line of the tile, for every thread to read.
template <bool left_transposed, bool right_transposed, class Left, class Right>
__device__ __forceinline__ void product(const Matrix<Left>& left, const Matrix<Right>& right,
                                        int tile_row, int tile_column, Tiles& tiles) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int own_row = lane / 8 * 4, own_column = lane % 8 * 4;
  const int terms = left_transposed ? left.row.count : left.row.size;
  Slab& slab = tiles.slabs[warp];
  real sums[16];
#pragma unroll
  for (int i = 0; i < 16; i++) sums[i] = 0;
  const int first_row = tile_row * TILE_ROWS, first_column = tile_column * TILE_COLUMNS;
  Part<!left_transposed, TILE_ROWS, Left> next_left;
  Part<right_transposed, TILE_COLUMNS, Right> next_right;
  next_left.read(left, first_row, warp * SLAB, terms);
  next_right.read(right, first_column, warp * SLAB, terms);
#pragma unroll 1
  for (int first = warp * SLAB; first < terms; first += TILE_WARPS * SLAB) {
    next_left.write(left, first_row, slab.left);
    next_right.write(right, first_column, slab.right);
    __syncwarp();
    // What comes next is on its way while this is multiplied.
    next_left.read(left, first_row, first + TILE_WARPS * SLAB, terms);
    next_right.read(right, first_column, first + TILE_WARPS * SLAB, terms);
#pragma unroll 4
    for (int term = 0; term < SLAB; term++) {
      const Four a = *reinterpret_cast<const Four*>(&slab.left[term][own_row]);
      const Four b = *reinterpret_cast<const Four*>(&slab.right[term][own_column]);
#pragma unroll
      for (int i = 0; i < 16; i++) sums[i] += a.of[i / 4] * b.of[i % 4];
    }
    __syncwarp();  // nobody fills a slab that another still reads
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 16; i++)
    tiles.sums[warp][(own_row + i / 4) * TILE_COLUMNS + own_column + i % 4] = sums[i];
  __syncthreads();
}

// Returns a number of the tile.
__device__ __forceinline__ real number_of_tile(const Tiles& tiles, int place) {
  real total = 0;
#pragma unroll
  for (int warp = 0; warp < TILE_WARPS; warp++) total += tiles.sums[warp][place];
  return total;
}

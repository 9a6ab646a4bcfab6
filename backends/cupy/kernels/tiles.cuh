// Products of matrices, a tile of the result for each block.
//
// The matrices of MNIST's networks are small, so a block computes its tile with as many threads as a
// large one would take: each warp has the whole tile, and takes its turn at slabs of the terms. A thread
// has SIDE×SIDE numbers in registers, for which it reads SIDE + SIDE of shared memory a term. Warps wait
// for nobody until their sums are put together. Needs rows.cuh.
//
// Options: -DSIDE=4, tiles of 16×32 by 8 warps; or in float 8, tiles of 32×64 by 4 warps, which read half
// as much for a multiplication, where there are so many that they keep a GPU busy.

#define TILE_ROWS (4 * SIDE)
#define TILE_COLUMNS (8 * SIDE)
#define TILE_NUMBERS (TILE_ROWS * TILE_COLUMNS)
#define TILE_WARPS (SIDE == 4 ? 8 : 4)
#define TILE_THREADS (TILE_WARPS * 32)
#define SLAB int((SIDE == 4 ? 64 : 32) / sizeof(real))  // terms that a warp reads at a time
#define ROUND (TILE_WARPS * SLAB)                       // terms of which each warp reads a slab

static_assert(SIDE == 4 || sizeof(real) == 4, "of larger numbers, shared memory has no room for 8×8");

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

// What a lane reads of a slab, as it lies in memory: some terms of some lines. Lines beyond the end repeat
// the last one; nobody looks at what comes of them. Terms beyond the end are 0; of a pixel that becomes the
// shift, and the 0 of the right factor, which has no pixels, cancels it. Whichever way round a matrix is,
// neighbouring lanes read neighbours.
//
// Addresses go on from slab to slab, and where a whole slab is left no term is compared with the end:
// found anew for each number, they would take more instructions than the multiplications.
template <bool lines_are_rows, int LINES, class Rows>
struct Part;

template <int LINES, class Rows>
struct Part<true, LINES, Rows> {
  static const int count = SLAB * LINES / 32;
  const typename Rows::Stored* next[count];
  typename Rows::Stored stored[count];

  // Which line and term a lane reads as its i-th.
  __device__ __forceinline__ static int line(int i) { return (threadIdx.x % 32 + i * 32) / SLAB; }
  __device__ __forceinline__ static int term(int) { return threadIdx.x % SLAB; }

  __device__ __forceinline__ Part(const Rows& rows, int first_line, int first_term) {
#pragma unroll
    for (int i = 0; i < count; i++)
      next[i] = rows.at(min(first_line + line(i), rows.count - 1), first_term + term(i));
  }

  // Reads the slab that is next for this warp; so many terms are left.
  template <bool is_whole>
  __device__ __forceinline__ void read(int left) {
    const bool is_term = is_whole || term(0) < left;
#pragma unroll
    for (int i = 0; i < count; i++) {
      stored[i] = 0;
      if (is_term) stored[i] = *next[i];
      next[i] += ROUND;
    }
  }
};

template <int LINES, class Rows>
struct Part<false, LINES, Rows> {
  static const int count = SLAB * LINES / 32, columns = (LINES + 31) / 32;
  typename Rows::Column next[columns];
  typename Rows::Stored stored[count];

  __device__ __forceinline__ static int line(int i) { return (threadIdx.x % 32 + i * 32) % LINES; }
  __device__ __forceinline__ static int term(int i) { return (threadIdx.x % 32 + i * 32) / LINES; }

  __device__ __forceinline__ Part(const Rows& rows, int first_line, int first_term) {
#pragma unroll
    for (int i = 0; i < columns; i++)
      next[i] = rows.column(min(first_line + line(i), rows.size - 1)).from(first_term + term(0));
  }

  template <bool is_whole>
  __device__ __forceinline__ void read(int left) {
#pragma unroll
    for (int i = 0; i < count; i++) {
      stored[i] = 0;
      if (is_whole || term(i) < left) stored[i] = *next[i % columns].at(i * 32 / LINES);
    }
#pragma unroll
    for (int i = 0; i < columns; i++) next[i] = next[i].from(ROUND);
  }
};

template <class OwnPart>
__device__ __forceinline__ void read(OwnPart& part, int left) {
  if (left >= SLAB)
    part.template read<true>(left);
  else
    part.template read<false>(left);
}

template <class OwnPart, class Rows, int WIDTH>
__device__ __forceinline__ void write(const OwnPart& part, const Matrix<Rows>& m, int first_line,
                                      real (&slab)[SLAB][WIDTH]) {
#pragma unroll
  for (int i = 0; i < part.count; i++) {
    const bool is_one = m.has_ones && first_line + part.line(i) == m.row.size;
    slab[part.term(i)][part.line(i)] = is_one ? real(1) : m.row.number(part.stored[i]);
  }
}

// Which rows and columns of a tile a lane has: four neighbours, which it reads together, and where SIDE is
// 8 four more, as far behind them as all lanes have.
__device__ __forceinline__ int own_row(int i) { return threadIdx.x % 32 / 8 * 4 + i / 4 * 16 + i % 4; }
__device__ __forceinline__ int own_column(int j) { return threadIdx.x % 8 * 4 + j / 4 * 32 + j % 4; }

// Computes a tile of the product of two matrices, each transposed or not. What the warps have summed
// up is in `tiles.sums` afterwards, line by line of the tile, for every thread to read.
template <bool left_transposed, bool right_transposed, class Left, class Right>
__device__ __forceinline__ void product(const Matrix<Left>& left, const Matrix<Right>& right,
                                        int tile_row, int tile_column, Tiles& tiles) {
  const int warp = threadIdx.x / 32;
  const int terms = left_transposed ? left.row.count : left.row.size;
  const int first_row = tile_row * TILE_ROWS, first_column = tile_column * TILE_COLUMNS;
  Slab& slab = tiles.slabs[warp];
  real sums[SIDE][SIDE];
#pragma unroll
  for (int i = 0; i < SIDE; i++)
#pragma unroll
    for (int j = 0; j < SIDE; j++) sums[i][j] = 0;
  Part<!left_transposed, TILE_ROWS, Left> next_left(left.row, first_row, warp * SLAB);
  Part<right_transposed, TILE_COLUMNS, Right> next_right(right.row, first_column, warp * SLAB);
  read(next_left, terms - warp * SLAB);
  read(next_right, terms - warp * SLAB);
#pragma unroll 1
  for (int first = warp * SLAB; first < terms; first += ROUND) {
    write(next_left, left, first_row, slab.left);
    write(next_right, right, first_column, slab.right);
    __syncwarp();
    // What comes next is on its way while this is multiplied.
    read(next_left, terms - first - ROUND);
    read(next_right, terms - first - ROUND);
#pragma unroll 2  // more take more registers than there are
    for (int term = 0; term < SLAB; term++) {
      Four rows[SIDE / 4], columns[SIDE / 4];
#pragma unroll
      for (int i = 0; i < SIDE / 4; i++) {
        rows[i] = *reinterpret_cast<const Four*>(&slab.left[term][own_row(4 * i)]);
        columns[i] = *reinterpret_cast<const Four*>(&slab.right[term][own_column(4 * i)]);
      }
#pragma unroll
      for (int i = 0; i < SIDE; i++)
#pragma unroll
        for (int j = 0; j < SIDE; j++)
          sums[i][j] += rows[i / 4].of[i % 4] * columns[j / 4].of[j % 4];
    }
    __syncwarp();  // nobody fills a slab that another still reads
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < SIDE; i++)
#pragma unroll
    for (int j = 0; j < SIDE; j++)
      tiles.sums[warp][own_row(i) * TILE_COLUMNS + own_column(j)] = sums[i][j];
  __syncthreads();
}

// Returns a number of the tile.
__device__ __forceinline__ real number_of_tile(const Tiles& tiles, int place) {
  real total = 0;
#pragma unroll
  for (int warp = 0; warp < TILE_WARPS; warp++) total += tiles.sums[warp][place];
  return total;
}

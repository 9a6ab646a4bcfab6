// The gradient of the images of a convolution. Needs maps.cuh.
//
// Four lanes have a square of 2×2 pixels in some channels (-DCHANNELS, a divisor of C). Each takes every
// fourth filter, and gathers from the cells of its pooled map that the square took part in: what a cell
// costs is shared by pixels and channels. Then they add up, and each is left with a pixel.

#define SHARERS 4  // lanes, and pixels of a square

// Returns how many squares cover a channel of an image.
__device__ __forceinline__ int squares(const Maps& maps) {
  return (maps.height + 1) / 2 * ((maps.width + 1) / 2);
}

// Sets dx of a square, in the channels from the first on, to its gradient times the derivative of the
// activation that made `x`. All arrays are those of one image. Every lane of a warp comes here; those
// that are idle have no square.
__device__ __forceinline__ void image_gradient(const real* dy, const uint8* mask, const real* weight,
                                               const real* x, const Maps& maps, int below,
                                               int first_channel, int square, bool is_idle,
                                               real* dx) {
  const int side = maps.side, size = maps.kernel_size, taps = maps.taps();
  const int squares_across = (maps.width + 1) / 2, share = threadIdx.x % SHARERS;
  const int first_row = square / squares_across * 2, first_column = square % squares_across * 2;
  const int row = first_row + maps.padding, column = first_column + maps.padding;
  const int across = maps.cells_across(), cells = maps.cells();
  // The cells of the first and of the last output that the square took part in.
  const int top = maps.cell_of(max(0, row - size + 1));
  const int bottom = is_idle ? -1 : min(maps.cells_down() - 1, maps.cell_of(row + 1));
  const int left = maps.cell_of(max(0, column - size + 1));
  const int right = min(across - 1, maps.cell_of(column + 1));
  real sums[SHARERS * CHANNELS];  // pixel by pixel
#pragma unroll
  for (int i = 0; i < SHARERS * CHANNELS; i++) sums[i] = 0;
  for (int filter = share; filter < maps.filters; filter += SHARERS) {
    const real* const first = weight + (filter * maps.channels + first_channel) * taps;
    for (int i = top; i <= bottom; i++)
      for (int j = left; j <= right; j++) {
        const int at = filter * cells + i * across + j;
        const real gradient = dy[at];
        Receivers output(mask, at, side);
        do {
          const int r = row - i * side - output.row(), c = column - j * side - output.column();
          const real* const tap = first + (r * size + c);
#pragma unroll
          for (int pixel = 0; pixel < SHARERS; pixel++) {
            const int down = pixel / 2, aside = pixel % 2;
            if (r + down < 0 || r + down >= size || c + aside < 0 || c + aside >= size) continue;
#pragma unroll
            for (int k = 0; k < CHANNELS; k++)
              sums[pixel * CHANNELS + k] += tap[down * size + aside + k * taps] * gradient;
          }
        } while (output.next());
      }
  }
  // A lane is left with two pixels, then with one.
  halve<SHARERS * CHANNELS>(sums, 2);
  halve<SHARERS * CHANNELS / 2>(sums, 1);
  const int own_row = first_row + share / 2, own_column = first_column + share % 2;
  if (is_idle || own_row >= maps.height || own_column >= maps.width) return;
#pragma unroll
  for (int k = 0; k < CHANNELS; k++) {
    const int at = ((first_channel + k) * maps.height + own_row) * maps.width + own_column;
    dx[at] = sums[k] * derivative_as(below, x[at]);
  }
}

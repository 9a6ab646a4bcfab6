// The gradient of the images of a convolution. Needs maps.cuh.
//
// A thread has a square of 2×2 pixels in some channels (-DCHANNELS, a divisor of C), and gathers from the
// cells of the pooled maps that the square took part in. What a cell costs is shared by pixels and
// channels.

#define SQUARE 4  // pixels

// Returns how many squares cover a channel of an image.
__device__ __forceinline__ int squares(const Maps& maps) {
  return (maps.height + 1) / 2 * ((maps.width + 1) / 2);
}

// Sets dx of a square, in the channels from the first on, to its gradient times the derivative of the
// activation that made `x`. All arrays are those of one image.
__device__ __forceinline__ void image_gradient(const real* dy, const uint8* mask, const real* weight,
                                               const real* x, const Maps& maps, int below,
                                               int first_channel, int square, real* dx) {
  const int side = maps.side, size = maps.kernel_size, taps = maps.taps();
  const int squares_across = (maps.width + 1) / 2;
  const int first_row = square / squares_across * 2, first_column = square % squares_across * 2;
  const int row = first_row + maps.padding, column = first_column + maps.padding;
  const int across = maps.cells_across(), cells = maps.cells();
  // The cells of the first and of the last output that the square took part in.
  const int top = maps.cell_of(max(0, row - size + 1));
  const int bottom = min(maps.cells_down() - 1, maps.cell_of(row + 1));
  const int left = maps.cell_of(max(0, column - size + 1));
  const int right = min(across - 1, maps.cell_of(column + 1));
  real sums[SQUARE][CHANNELS];
#pragma unroll
  for (int i = 0; i < SQUARE * CHANNELS; i++) sums[i / CHANNELS][i % CHANNELS] = 0;
  for (int filter = 0; filter < maps.filters; filter++) {
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
          for (int pixel = 0; pixel < SQUARE; pixel++) {
            const int down = pixel / 2, aside = pixel % 2;
            if (r + down < 0 || r + down >= size || c + aside < 0 || c + aside >= size) continue;
#pragma unroll
            for (int k = 0; k < CHANNELS; k++)
              sums[pixel][k] += tap[down * size + aside + k * taps] * gradient;
          }
        } while (output.next());
      }
  }
#pragma unroll
  for (int i = 0; i < SQUARE * CHANNELS; i++) {
    const int pixel = i / CHANNELS, channel = first_channel + i % CHANNELS;
    const int own_row = first_row + pixel / 2, own_column = first_column + pixel % 2;
    if (own_row >= maps.height || own_column >= maps.width) continue;
    const int at = (channel * maps.height + own_row) * maps.width + own_column;
    dx[at] = sums[pixel][i % CHANNELS] * derivative_as(below, x[at]);
  }
}

// The gradient of the images of a convolution. Needs maps.cuh.
//
// A thread has one pixel of some channels, and gathers from the cells of the pooled maps that the
// pixel took part in. What a cell costs is shared by the channels.

#define CHANNELS_OF_A_THREAD 4

// Sets dx of a pixel, in `CHANNELS` channels or as many as are left, to its gradient times the
// derivative of the activation that made `x`. All arrays are those of one image.
template <int CHANNELS>
__device__ __forceinline__ void image_gradient(const real* dy, const uint8* mask, const real* weight,
                                               const real* x, const Maps& maps, int below,
                                               int first_channel, int place, real* dx) {
  const int row = place / maps.width + maps.padding, column = place % maps.width + maps.padding;
  const int down = maps.cells_down(), across = maps.cells_across(), side = maps.side;
  // The first and the last output that the pixel took part in, and their cells.
  const int top = maps.cell_of(max(0, row - maps.kernel_size + 1));
  const int bottom = min(down - 1, maps.cell_of(row));
  const int left = maps.cell_of(max(0, column - maps.kernel_size + 1));
  const int right = min(across - 1, maps.cell_of(column));
  int filter_of[CHANNELS];  // where the channel's taps lie; channels beyond the end repeat the last
#pragma unroll
  for (int i = 0; i < CHANNELS; i++)
    filter_of[i] = min(first_channel + i, maps.channels - 1) * maps.taps();
  real sums[CHANNELS];
#pragma unroll
  for (int i = 0; i < CHANNELS; i++) sums[i] = 0;
  for (int filter = 0; filter < maps.filters; filter++) {
    const real* const taps = weight + filter * maps.channels * maps.taps();
    for (int i = top; i <= bottom; i++)
      for (int j = left; j <= right; j++) {
        const int at = (filter * down + i) * across + j;
        const real gradient = dy[at];
        for (Receivers output(mask, at, side); output.any(); output.next()) {
          const int r = row - i * side - output.row(), c = column - j * side - output.column();
          if (r < 0 || r >= maps.kernel_size || c < 0 || c >= maps.kernel_size) continue;
          const int tap = r * maps.kernel_size + c;
#pragma unroll
          for (int k = 0; k < CHANNELS; k++) sums[k] += taps[filter_of[k] + tap] * gradient;
        }
      }
  }
#pragma unroll
  for (int i = 0; i < CHANNELS; i++) {
    if (first_channel + i >= maps.channels) break;
    const int at = (first_channel + i) * maps.height * maps.width + place;
    dx[at] = sums[i] * derivative_as(below, x[at]);
  }
}

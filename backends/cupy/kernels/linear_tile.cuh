// A linear layer, forward and back, by tiles of its result. Needs tiles.cuh.

// Sets a tile of y, whose rows are `stride` apart, to the activation of x W + bias.
template <class Input>
__device__ __forceinline__ void linear_tile(const Input& x, const Numbers& weight, const real* bias,
                                            int activation, int tile_row, int tile_column, real* y,
                                            int stride, Tiles& tiles) {
  product<false, false>(Matrix<Input>{x}, Matrix<Numbers>{weight}, tile_row, tile_column, tiles);
  for (int place = threadIdx.x; place < TILE_NUMBERS; place += TILE_THREADS) {
    const int row = tile_row * TILE_ROWS + place / TILE_COLUMNS;
    const int column = tile_column * TILE_COLUMNS + place % TILE_COLUMNS;
    if (row >= x.count || column >= weight.size) continue;
    const real sum = number_of_tile(tiles, place);
    y[int64(row) * stride + column] = activate_as(activation, bias ? sum + bias[column] : sum);
  }
}

// Sets a tile of dx to dy Wᵀ times the derivative of the activation that made x.
__device__ __forceinline__ void linear_backward_tile(const Numbers& dy, const Numbers& weight,
                                                     const real* x, int activation, int tile_row,
                                                     int tile_column, real* dx, Tiles& tiles) {
  product<false, true>(Matrix<Numbers>{dy}, Matrix<Numbers>{weight}, tile_row, tile_column, tiles);
  for (int place = threadIdx.x; place < TILE_NUMBERS; place += TILE_THREADS) {
    const int row = tile_row * TILE_ROWS + place / TILE_COLUMNS;
    const int column = tile_column * TILE_COLUMNS + place % TILE_COLUMNS;
    if (row >= dy.count || column >= weight.count) continue;
    const int64 at = int64(row) * weight.count + column;
    dx[at] = number_of_tile(tiles, place) * derivative_as(activation, x[at]);
  }
}

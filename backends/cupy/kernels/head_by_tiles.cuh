// The linear layers of a block of the head that has as many images as a tile has rows. Needs
// linear_tile.cuh.
//
// Neither way is inlined, so that each has all registers to itself.

#define MOST_THREADS TILE_THREADS
#define BLOCKS 2  // for whose registers a multiprocessor has room

struct Shared {
  Tiles tiles;
  real logits[IMAGES][32];
};

// Sets y, numbers of some images whose rows are `stride` apart, to the activation of x W + bias.
__device__ __noinline__ void forward(Layer layer, Numbers x, const real* parameters, int activation,
                                     real* y, int stride, Shared& shared) {
  const Numbers weight = {parameters + layer.weight, layer.outputs, layer.inputs};
  const real* const bias = layer.bias < 0 ? nullptr : parameters + layer.bias;
  for (int column = 0; column * TILE_COLUMNS < layer.outputs; column++) {
    linear_tile(x, weight, bias, activation, 0, column, y, stride, shared.tiles);
    __syncthreads();
  }
}

// Sets dx, numbers of some images, to dy Wᵀ times the derivative of the activation that made x.
__device__ __noinline__ void back(Layer layer, Numbers x, const real* parameters, Numbers dy,
                                  real* dx, Shared& shared) {
  const Numbers weight = {parameters + layer.weight, layer.outputs, layer.inputs};
  for (int column = 0; column * TILE_COLUMNS < layer.inputs; column++) {
    linear_backward_tile(dy, weight, x.first, layer.below, 0, column, dx, shared.tiles);
    __syncthreads();
  }
}

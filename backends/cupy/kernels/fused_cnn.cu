// A step of two pooled convolutions and two or three linear layers in one launch: up to the
// gradients of the pre-activations of the linear layers, and the gradients of the filters for
// each image, which wgrad_update.cu adds. Needs thread block clusters (compute capability 9.0 or
// higher).
//
// A cluster of CLUSTER_BLOCKS blocks computes IMAGES images. Two blocks compute the convolutions
// of an image; all blocks divide the linear layers, so a cluster reads each weight once:
//
//   convolution 1   a block has half of the filters: it computes these channels, and the gradients
//                   of these filters
//   convolution 2   a block has the same channels: it computes partial sums over them of all
//                   outputs, and the gradients of these channels and of their filters
//   linear 1        block r has a part of the columns of W, in registers: it computes these
//                   outputs, and partial sums over these columns of the gradient of the input
//   linear 2        block r has the same part of the rows of W: it computes partial sums over these
//                   rows of the outputs, and the gradient of its outputs of the first layer
//   linear 3        every block computes all of it, bit-identically
//
// So blocks exchange numbers four times, through distributed shared memory: partial sums of the
// second convolution, its outputs, partial sums of the second linear layer, and partial sums of
// the gradient of the first one's input. Each receiver adds them in the same order. The first
// exchange has only one sender, whose asynchronous stores a barrier of the receiver counts; after
// each other exchange is a cluster barrier. A block writes to a buffer of another block only when
// that block has arrived at a barrier after the last use of the buffer for something else, so the
// exchanges need no further barriers.
//
// Layout: as in convolution.cu and linear.cu. Results are stored between arriving and waiting at
// a barrier where possible, because a barrier waits for stores that precede it.
// Cost per image: twice the multiply-adds of the linear layers; those of the convolutions, again
// those of the second one for the gradient of its input, and a quarter of those of both for their
// filters.
// Options: -DLOSS as in losses.cu; -DIMAGE_CHANNELS, -DIMAGE_HEIGHT, -DIMAGE_WIDTH; -DFILTERS1
// (even), -DKERNEL_SIZE1, -DPADDING1, -DFILTERS2 (a multiple of 4), -DKERNEL_SIZE2, -DPADDING2 of
// the convolutions; -DLAYERS=2 or 3 linear layers; -DFIRST outputs of the first one (up to
// CLUSTER_BLOCKS · COLUMNS_PER_BLOCK), -DSECOND of the second; -DCLASSES (up to WARP_SIZE), the
// outputs of the last; -DIMAGES=4 per cluster; -DCLUSTER_BLOCKS=8; -DCOLUMNS_PER_BLOCK=16;
// -DTHREADS=512 per block; -DGATHER=1 and -DINPUT as in stage_input.cuh.
#include "common.cuh"
#include "fused_cnn_convolutions.cuh"
#include "fused_cnn_linear.cuh"
#include "stage_input.cuh"

constexpr int PIXELS = IMAGE_CHANNELS * IMAGE_HEIGHT * IMAGE_WIDTH;

// `available` parameters from an offset on, then zeros; only zeros if the offset is negative.
struct ParameterRange {
  const real* parameters;
  int offset, available;
  DEVICE real operator()(int i) const {
    return offset >= 0 && i < available ? parameters[offset + i] : real(0);
  }
};

// All parameters of a block except the weights of the first linear layer.
struct ParameterLoader {
  static constexpr int FILTER1 = Conv1::CHANNELS * Conv1::TAPS;  // elements of a filter
  static constexpr int FILTER2 = Conv2::CHANNELS * Conv2::TAPS;  // .. for the channels of a block
  Copy<CHANNELS2 * FILTER1> filters1;
  Copy<FILTERS2 * FILTER2> filters2;
  Copy<CHANNELS2> conv_bias1;
  Copy<FILTERS2> conv_bias2;
  Copy<COLUMNS_PER_BLOCK * SECOND> second_weight;
  Copy<COLUMNS_PER_BLOCK> first_bias;
  Copy<SECOND> second_bias;
  Copy<LAYERS == 3 ? SECOND * CLASSES : 1> third_weight;
  Copy<CLASSES> third_bias;

  DEVICE ParameterLoader(const CnnLayers& layers, const real* parameters, const Place& place)
      : ParameterLoader(layers.convolutions, layers.linear, parameters, place,
                        max(0, min(USED_COLUMNS, FIRST - place.first_column()))) {}

  DEVICE void store(Shared& shared) const {
    filters1.store(shared.filters1, [](int i) { return i % FILTER1 * CHANNELS2 + i / FILTER1; });
    filters2.store(shared.filters2, [](int i) {
      const int channel = i % FILTER2 / Conv2::TAPS, tap = i % Conv2::TAPS;
      return channel * TAPS_STRIDE + tap * TAP_STRIDE + i / FILTER2;
    });
    conv_bias1.store(shared.conv_bias1);
    conv_bias2.store(shared.conv_bias2);
    second_weight.store(shared.second_weight);
    first_bias.store(shared.first_bias);
    second_bias.store(shared.second_bias);
    third_weight.store(shared.third_weight);
    third_bias.store(shared.third_bias);
  }

 private:
  // Returns the offset of an element of a bias; -1 without bias.
  DEVICE static int bias(const CnnLayer& layer, int first) {
    return layer.bias < 0 ? -1 : layer.bias + first;
  }

  // `columns` is the number of columns of the first linear layer that the block computes.
  DEVICE ParameterLoader(const CnnLayer* convolutions, const CnnLayer* linear,
                         const real* parameters, const Place& place, int columns)
      : filters1(ParameterRange{parameters,
                                convolutions[0].weight + place.half() * CHANNELS2 * FILTER1,
                                CHANNELS2 * FILTER1}),
        filters2([&](int i) {
          const int filter = i / FILTER2 * BLOCKS_PER_IMAGE + place.half();
          return parameters[convolutions[1].weight + filter * FILTER2 + i % FILTER2];
        }),
        conv_bias1(
            ParameterRange{parameters, bias(convolutions[0], place.half() * CHANNELS2), CHANNELS2}),
        conv_bias2(ParameterRange{parameters, convolutions[1].bias, FILTERS2}),
        second_weight(ParameterRange{parameters, linear[1].weight + place.first_column() * SECOND,
                                     columns * SECOND}),
        first_bias(ParameterRange{parameters, bias(linear[0], place.first_column()), columns}),
        second_bias(ParameterRange{parameters, linear[1].bias, SECOND}),
        third_weight(
            ParameterRange{parameters, LAYERS == 3 ? linear[2].weight : -1, SECOND * CLASSES}),
        third_bias(ParameterRange{parameters, LAYERS == 3 ? linear[2].bias : -1, CLASSES}) {}
};

// The pixels of the image of a block with the padding; zeros without an image.
struct PixelLoader {
  Copy<IMAGE_CHANNELS * Conv1::CHANNEL_STRIDE> pixels;

  DEVICE PixelLoader(const StageRows& batch, const Place& place)
      : pixels([&](int i) {
          const int channel = i / Conv1::CHANNEL_STRIDE, column = i % Conv1::ROW_STRIDE - PADDING1;
          const int row = i % Conv1::CHANNEL_STRIDE / Conv1::ROW_STRIDE - PADDING1;
          const bool exists =
              place.has_image() && unsigned(row) < IMAGE_HEIGHT && unsigned(column) < IMAGE_WIDTH;
          if (!exists) return real(0);
          const int pixel = (channel * IMAGE_HEIGHT + row) * IMAGE_WIDTH + column;
          return real(batch.row(place.first + place.image())[pixel]);
        }) {}
};

// Sets what no other thread or block sets: the borders of the input of the second convolution, and
// inputs of the first linear layer that do not exist.
DEVICE void set_zeros(Shared& shared) {
  if (PADDING2 > 0)
    for (int i = threadIdx.x; i < Conv2::SIZE; i += THREADS) shared.y1[i] = 0;
  const int k = threadIdx.x;
  if (k >= INPUTS) shared.stage.forward.x[k] = {};
}

// Stores the gradients of both convolutions. `y` is the output of this thread's cell of the second
// one.
DEVICE void backward_convolutions(const CnnLayer* convolutions, const PixelLoader& image,
                                  const Place& place, real y, int64 member_stride, Shared& shared) {
  const int k = threadIdx.x;
  real gradient = 0;
  if (k < INPUTS) {
#pragma unroll
    for (int rank = 0; rank < CLUSTER_BLOCKS; rank++) gradient += shared.stage.dx[rank][k];
    gradient *= derivative(convolutions[1].activation, y);
  }
  __syncthreads();  // the maps overwrite the partial sums
  if (k < INPUTS) set_cell(k, gradient, shared.largest2[k], shared);
  image.pixels.store(shared.stage.backward.image);
  __syncthreads();
  backward_input(convolutions[0].activation, shared);
  backward_filters2(convolutions[1], place, member_stride, shared);
  __syncthreads();
  backward_filters1(convolutions[0], place, member_stride, shared);
}

// Sets the outputs and gradients that wgrad_update.cu reads, and the loss and correctness of each
// image.
// Grid: (CLUSTER_BLOCKS for each IMAGES images, rounded up, 1, members).
// At most 128 registers.
extern "C" __global__ void __cluster_dims__(CLUSTER_BLOCKS, 1, 1) __launch_bounds__(THREADS, 1)
    fused_cnn(const INPUT* __restrict__ x, StageInput input,
              const __grid_constant__ CnnLayers layers, const real* __restrict__ parameters,
              const int* __restrict__ labels, int64 member_stride, real* losses, int* correct) {
  __shared__ Shared shared;
  begin_exchange(shared.conv_sums_received, sizeof shared.buffer.forward.conv_sums);
  parameters = of_member(parameters, member_stride);
  Place place = {int(blockIdx.x) % CLUSTER_BLOCKS, int(blockIdx.x) / CLUSTER_BLOCKS * IMAGES, 0};
  FirstWeights weights;
  load_first_weights(parameters + layers.linear[0].weight, place, weights);
  const ParameterLoader others(layers, parameters, place);
  const StageRows batch = gathered_rows(x, input, PIXELS, member_stride);
  const bool sets_state = blockIdx.x == 0 && threadIdx.x == 0;
  place.count = min(IMAGES, batch.count - place.first);
  if (place.count <= 0) {  // in all blocks of the cluster
    if (sets_state) set_state(input, member_stride);
    store_zero_gradients(layers.convolutions, place, member_stride);
    __cluster_barrier_wait();
    return;
  }
  const PixelLoader image(batch, place);
  const int k = threadIdx.x;
  const int label = k < place.count ? labels[batch.rows[place.first + k]] : 0;
  if (sets_state) set_state(input, member_stride);  // while the other loads are under way
  set_zeros(shared);
  others.store(shared);
  image.pixels.store(shared.buffer.forward.image);
  if (k < IMAGES) shared.labels[k] = label;
  __syncthreads();

  forward_conv1(layers.convolutions[0].activation, shared);
  __syncthreads();
  Conv2Cell cell;
  cell.forward(place, shared);
  __cluster_barrier_wait();  // all blocks have started, so their shared memory can be written
  cell.send(place, shared);
  mbarrier_wait(shared.conv_sums_received, 0);
  cell.finish(layers.convolutions[1], place, member_stride, shared);
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
  // Other blocks overwrite the inputs later.
  const real y = k < INPUTS ? shared.stage.forward.x[k].of[place.image()] : real(0);

  forward_first(weights, layers.linear[0].activation, place, shared);
  send_second(place, shared);
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
  forward_last(layers, shared);
  compute_losses(place, batch.count, shared);
  backward_last(layers, shared);
  send_input_gradient(weights, place, shared);
  __cluster_barrier_arrive();
  store_linear(layers, place, member_stride, shared);
  store_losses(place, member_stride, losses, correct, shared);
  __cluster_barrier_wait();
  if (place.has_image())  // in all threads of the block
    backward_convolutions(layers.convolutions, image, place, y, member_stride, shared);
  else
    store_zero_gradients(layers.convolutions, place, member_stride);
}

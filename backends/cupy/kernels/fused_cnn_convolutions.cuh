// The two convolutions of fused_cnn.cu, forward and backward, for one image and two blocks.
//
// Forward, a thread computes one cell: the four outputs of a pooling patch, for a few filters. It
// reads each row of the patch once, in pairs. As in convolution.cu, filter row i serves the upper
// outputs with image row i and the lower ones with row i + 1, and all outputs sum their taps in the
// same order.
//
// The gradient of the input of the second convolution is computed from *maps*, one per filter, with
// the gradients of all outputs before pooling; they are 0 at outputs that do not receive the
// gradient. FILTER_LANES lanes compute a row of a channel, each for every FILTER_LANES-th filter.
// For each row of a filter, a lane reads a row of the map once. Without padding, no product has a
// factor outside of the map:
//
//   map          m0  m1  m2  m3            K = 3, 4 columns of the map, 6 pixels
//   pixel    0   w0
//            1   w1  w0
//            2   w2  w1  w0                w: taps of the filter row
//            3       w2  w1  w0
//            4           w2  w1
//            5               w2
//
// Then the lanes exchange their sums, and each lane sets some pixels.
#pragma once

#include "fused_cnn.cuh"

// Adds the products of a filter row with a row of pixels to two neighboring outputs of each filter.
template <int filters, int kernel_size>
DEVICE void add_row(real (&sums)[filters][4], int first,
                    const Elements<filters> (&taps)[kernel_size], const real* pixels) {
#pragma unroll
  for (int filter = 0; filter < filters; filter++)
#pragma unroll
    for (int output = 0; output < 2; output++)
#pragma unroll
      for (int j = 0; j < kernel_size; j++)
        sums[filter][first + output] += taps[j].of[filter] * pixels[output + j];
}

// Adds the convolution to the outputs of a cell. `patch` points to its first pixel, and `filter` to
// the first tap of the first of its filters; its taps are `tap_stride` elements apart, and those of
// the next channel `taps_stride`.
template <class Conv, int filters, int tap_stride, int taps_stride>
DEVICE void add_cell(const real* patch, const real* filter, real (&sums)[filters][4]) {
  constexpr int SIZE = Conv::KERNEL_SIZE, PIXEL_PAIRS = (SIZE + 2) / 2;
#pragma unroll 1
  for (int channel = 0; channel < Conv::CHANNELS; channel++) {
    Elements<filters> taps[SIZE];
#pragma unroll
    for (int i = 0; i <= SIZE; i++) {  // rows of the patch
      real pixels[2 * PIXEL_PAIRS];
#pragma unroll
      for (int j = 0; j < PIXEL_PAIRS; j++) {
        const auto pair = Elements<2>::at(patch + i * Conv::ROW_STRIDE + 2 * j);
        pixels[2 * j] = pair.of[0];
        pixels[2 * j + 1] = pair.of[1];
      }
      if (i > 0) add_row(sums, 2, taps, pixels);  // `taps` still holds the previous filter row
      if (i == SIZE) break;
#pragma unroll
      for (int j = 0; j < SIZE; j++)
        taps[j] = Elements<filters>::at(filter + (i * SIZE + j) * tap_stride);
      add_row(sums, 0, taps, pixels);
    }
    patch += Conv::CHANNEL_STRIDE;
    filter += taps_stride;
  }
}

// Returns the index in the input of a convolution of the patch of a cell.
template <class Conv>
DEVICE int patch_of(int cell) {
  return cell / Conv::CELL_COLUMNS * 2 * Conv::ROW_STRIDE + cell % Conv::CELL_COLUMNS * 2;
}

// The largest of the outputs of a cell, the first one of equal outputs.
struct Maximum {
  real value;
  int output;

  DEVICE explicit Maximum(const real (&outputs)[4]) {
    PatchMaximum<int> maximum = {outputs[0], 0};
#pragma unroll
    for (int i = 1; i < 4; i++) maximum.add(outputs[i], i, false);
    value = maximum.value;
    output = maximum.mask;
  }
};

// Sets shared.y1 to the channels of this block.
DEVICE void forward_conv1(Activation activation, Shared& shared) {
#pragma unroll 1
  for (int item = threadIdx.x; item < Conv1::CELLS * CHANNELS2 / FILTERS_PER_THREAD;
       item += THREADS) {
    const int cell = item % Conv1::CELLS, filter = item / Conv1::CELLS * FILTERS_PER_THREAD;
    real sums[FILTERS_PER_THREAD][4] = {};
    add_cell<Conv1, FILTERS_PER_THREAD, CHANNELS2, Conv1::TAPS * CHANNELS2>(
        shared.buffer.forward.image + patch_of<Conv1>(cell), shared.filters1 + filter, sums);
    const int row = cell / Conv1::CELL_COLUMNS, column = cell % Conv1::CELL_COLUMNS;
#pragma unroll
    for (int i = 0; i < FILTERS_PER_THREAD; i++) {
      const Maximum maximum(sums[i]);
      // Activations are monotonic, so the maximum can be taken first.
      shared.y1[Conv2::at(filter + i, row, column)] =
          activate(activation, maximum.value + shared.conv_bias1[filter + i]);
      shared.largest1[(filter + i) * Conv1::CELLS + cell] = uint8(maximum.output);
    }
  }
}

// The second convolution: a thread computes a pair of filters in one cell. Each block sums over its
// channels, and completes the sums of its half of the filters.
struct Conv2Cell {
  int cell, pair;
  alignas(16) real sums[2][4] = {};

  DEVICE Conv2Cell() : cell(threadIdx.x / PAIRS), pair(threadIdx.x % PAIRS) {}
  DEVICE bool exists() const { return cell < Conv2::CELLS; }
  DEVICE bool belongs_to(int half) const { return pair / BLOCK_PAIRS == half; }
  DEVICE int place() const { return cell * BLOCK_PAIRS + pair % BLOCK_PAIRS; }

  // Sums over the channels of this block, and sends the sums of the other block.
  DEVICE void forward(const Place& place, Shared& shared) {
    if (!exists()) return;
    add_cell<Conv2, 2, TAP_STRIDE, TAPS_STRIDE>(shared.y1 + patch_of<Conv2>(cell),
                                                shared.filters2 + 2 * pair, sums);
  }

  DEVICE void send(const Place& of_block, Shared& shared) const {
    if (!exists() || belongs_to(of_block.half())) return;
    real* const target = shared.buffer.forward.conv_sums[place()].of;
#pragma unroll
    for (int i = 0; i < 8; i += VECTOR)
      store_async(target + i, reinterpret_cast<const Vector&>(sums[i / 4][i % 4]),
                  shared.conv_sums_received, of_block.rank ^ 1);
  }

  // Adds the received sums, sends the outputs to all blocks, and stores them.
  DEVICE void finish(const CnnLayer& layer, const Place& of_block, int64 member_stride,
                     Shared& shared) {
    if (!exists() || !belongs_to(of_block.half())) return;
    const PairSums received = shared.buffer.forward.conv_sums[place()];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) sums[i][j] += received.of[i * 4 + j];
      const Maximum maximum(sums[i]);
      const int filter = 2 * pair + i, k = filter * Conv2::CELLS + cell;
      const real y = activate(layer.activation, maximum.value + shared.conv_bias2[filter]);
#pragma unroll
      for (int rank = 0; rank < CLUSTER_BLOCKS; rank++)
        *in_block(&shared.stage.forward.x[k].of[of_block.image()], rank) = y;
#pragma unroll
      for (int half = 0; half < BLOCKS_PER_IMAGE; half++)
        *in_block(&shared.largest2[k], of_block.image() * BLOCKS_PER_IMAGE + half) =
            uint8(maximum.output);
      if (of_block.has_image())
        of_member(layer.y, member_stride)[of_block.batch_image() * INPUTS + k] = y;
    }
  }
};

// Returns the index in the input of a convolution of the patch of an output of a cell.
template <class Conv>
DEVICE int patch_of_output(int cell, int output) {
  return patch_of<Conv>(cell) + output / 2 * Conv::ROW_STRIDE + output % 2;
}

// Sets what the gradient of input `k` of the first linear layer and the largest output of its cell
// give: elements of the maps, and a cell gradient.
DEVICE void set_cell(int k, real gradient, int largest, Shared& shared) {
  const int cell = k % Conv2::CELLS, row = cell / Conv2::CELL_COLUMNS * 2;
  const int column = cell % Conv2::CELL_COLUMNS * 2;
  real* const first =
      shared.stage.backward.maps + k / Conv2::CELLS * MAP_STRIDE + row * MAP_COLUMNS + column;
#pragma unroll
  for (int output = 0; output < 4; output++)
    first[output / 2 * MAP_COLUMNS + output % 2] = output == largest ? gradient : real(0);
  shared.buffer.backward.conv2[k] = {gradient, patch_of_output<Conv2>(cell, largest)};
}

constexpr int FILTER_LANES = FILTERS2 < 8 ? 4 : 8;
// Sums of a row, and of a lane after the exchange. The others are padding.
constexpr int ROW_SUMS = power_of_two(Conv2::WIDTH < FILTER_LANES ? FILTER_LANES : Conv2::WIDTH);
constexpr int SUMS_PER_LANE = ROW_SUMS / FILTER_LANES;

// Adds the part of one filter to the gradient of a row of a channel.
DEVICE void add_filter(real (&sums)[ROW_SUMS], const real* map, const real* filter, int row) {
  constexpr int SIZE = Conv2::KERNEL_SIZE;
  const int bottom = row + Conv2::PADDING, last = min(SIZE - 1, bottom);
#pragma unroll 1
  for (int i = max(0, bottom - (MAP_ROWS - 1)); i <= last; i++) {  // rows of the filter
    const real* const line = map + (bottom - i) * MAP_COLUMNS;
    real gradients[MAP_COLUMNS];
#pragma unroll
    for (int j = 0; j < MAP_COLUMNS; j += 2) {
      const auto pair = Elements<2>::at(line + j);
      gradients[j] = pair.of[0];
      gradients[j + 1] = pair.of[1];
    }
#pragma unroll
    for (int j = 0; j < SIZE; j++) {
      const real tap = filter[(i * SIZE + j) * TAP_STRIDE];
#pragma unroll
      for (int k = 0; k < MAP_COLUMNS; k++) {
        const int pixel = k + j - Conv2::PADDING;
        if (pixel >= 0 && pixel < Conv2::WIDTH) sums[pixel] += gradients[k] * tap;
      }
    }
  }
}

// Returns row `number` of the input of the second convolution, counted from the middle. So the rows
// at the borders, which have fewer products, come last, and warps have rows with as many products.
DEVICE int row_from_middle(int number) {
  const int middle = (Conv2::HEIGHT - 1) / 2, distance = (number + 1) / 2;
  return number % 2 ? middle + distance : middle - distance;
}

// Sets the gradients of the cells of the first convolution.
DEVICE void backward_input(Activation activation, Shared& shared) {
  constexpr int ITEMS = Conv2::HEIGHT * CHANNELS2;
  const int lane = threadIdx.x % FILTER_LANES;
  // All lanes of a warp execute every iteration, because they exchange sums.
#pragma unroll 1
  for (int begin = 0; begin < ITEMS; begin += THREADS / FILTER_LANES) {
    const int item = begin + int(threadIdx.x) / FILTER_LANES, number = min(item, ITEMS - 1);
    const int channel = number % CHANNELS2, row = row_from_middle(number / CHANNELS2);
    real sums[ROW_SUMS] = {};
#pragma unroll 1
    for (int filter = lane; filter < FILTERS2; filter += FILTER_LANES)
      add_filter(sums, shared.stage.backward.maps + filter * MAP_STRIDE,
                 shared.filters2 + channel * TAPS_STRIDE + filter, row);
    group_reduce_scatter<ROW_SUMS, FILTER_LANES / 2>(sums);
#pragma unroll
    for (int i = 0; i < SUMS_PER_LANE; i++) {
      const int column = lane * SUMS_PER_LANE + i;
      if (item >= ITEMS || column >= Conv2::WIDTH) continue;
      const int cell = row * Conv2::WIDTH + column, at = channel * Conv1::CELLS + cell;
      const real y = shared.y1[Conv2::at(channel, row, column)];
      shared.buffer.backward.conv1[at] = {sums[i] * derivative(activation, y),
                                          patch_of_output<Conv1>(cell, shared.largest1[at])};
    }
  }
}

// The gradients of the filters: the lanes of a warp have the taps, and the warp adds the products
// of one cell after another. The elements under the taps are in different banks of shared memory.

// Adds the products of cells begin, begin + step, .. end with the elements under a tap in each of
// `channels` channels, and their gradients. `tap` points to the tap in the first patch.
template <class Conv, int channels>
DEVICE void add_cells(const CellGradient* cells, int begin, int end, int step, const real* tap,
                      real (&sums)[channels], real& bias) {
#pragma unroll 5
  for (int cell = begin; cell < end; cell += step) {
    const CellGradient given = cells[cell];
    bias += given.gradient;
#pragma unroll
    for (int channel = 0; channel < channels; channel++)
      sums[channel] += given.gradient * tap[given.patch + channel * Conv::CHANNEL_STRIDE];
  }
}

// Calls add(tap, place) for the taps of this lane, where `place` is that of the tap in a patch.
template <class Conv, class Function>
DEVICE void for_taps_of_lane(const Function& add) {
#pragma unroll
  for (int tap = threadIdx.x % WARP_SIZE; tap < Conv::TAPS; tap += WARP_SIZE)
    add(tap, tap / Conv::KERNEL_SIZE * Conv::ROW_STRIDE + tap % Conv::KERNEL_SIZE);
}

// Returns the partial sums of a convolution for the image of this block, so that its first
// parameter has index 0 in the parameter vector.
template <int parameters>
DEVICE real* partial_sums_of(const CnnLayer& layer, const Place& place, int64 member_stride) {
  const int first = layer.bias < 0 ? layer.weight : min(layer.weight, layer.bias);
  return of_member(layer.partial_sums, member_stride) + place.batch_image() * parameters - first;
}

constexpr int PARAMETERS1 = FILTERS1 * (Conv1::CHANNELS * Conv1::TAPS + 1);
constexpr int PARAMETERS2 = FILTERS2 * (FILTERS1 * Conv2::TAPS + 1);

// Stores the gradients of the filters of the second convolution in the channels of this block, and
// in one block the gradients of the biases.
DEVICE void backward_filters2(const CnnLayer& layer, const Place& place, int64 member_stride,
                              const Shared& shared) {
  real* const target = partial_sums_of<PARAMETERS2>(layer, place, member_stride);
#pragma unroll 1
  for (int filter = WARPS - 1 - int(threadIdx.x) / WARP_SIZE; filter < FILTERS2; filter += WARPS) {
    real* const weights =
        target + layer.weight + (filter * FILTERS1 + place.half() * CHANNELS2) * Conv2::TAPS;
    for_taps_of_lane<Conv2>([&](int tap, int at) {
      real sums[CHANNELS2] = {}, bias = 0;
      add_cells<Conv2>(shared.buffer.backward.conv2 + filter * Conv2::CELLS, 0, Conv2::CELLS, 1,
                       shared.y1 + at, sums, bias);
#pragma unroll
      for (int channel = 0; channel < CHANNELS2; channel++)
        weights[channel * Conv2::TAPS + tap] = sums[channel];
      if (tap == 0 && place.half() == 0 && layer.bias >= 0) target[layer.bias + filter] = bias;
    });
  }
}

// Stores the gradients of the filters and biases of the first convolution that this block has.
DEVICE void backward_filters1(const CnnLayer& layer, const Place& place, int64 member_stride,
                              Shared& shared) {
  const int warp = threadIdx.x / WARP_SIZE, filter = warp / CHANNEL_WARPS;
  if (filter < CHANNELS2) {
    real* const warp_sums = shared.buffer.backward.warp_sums[filter][warp % CHANNEL_WARPS];
    for_taps_of_lane<Conv1>([&](int tap, int at) {
      real sums[Conv1::CHANNELS] = {}, bias = 0;
      add_cells<Conv1>(shared.buffer.backward.conv1 + filter * Conv1::CELLS, warp % CHANNEL_WARPS,
                       Conv1::CELLS, CHANNEL_WARPS, shared.stage.backward.image + at, sums, bias);
#pragma unroll
      for (int channel = 0; channel < Conv1::CHANNELS; channel++)
        warp_sums[channel * Conv1::TAPS + tap] = sums[channel];
      if (tap == 0) warp_sums[FILTER_SUMS - 1] = bias;
    });
  }
  __syncthreads();
  real* const target = partial_sums_of<PARAMETERS1>(layer, place, member_stride);
  for (int i = threadIdx.x; i < CHANNELS2 * FILTER_SUMS; i += THREADS) {
    const int own = i / FILTER_SUMS, number = i % FILTER_SUMS, at = place.half() * CHANNELS2 + own;
    real total = 0;
#pragma unroll
    for (int other = 0; other < CHANNEL_WARPS; other++)
      total += shared.buffer.backward.warp_sums[own][other][number];
    if (number < FILTER_SUMS - 1)
      target[layer.weight + at * (FILTER_SUMS - 1) + number] = total;
    else if (layer.bias >= 0)
      target[layer.bias + at] = total;
  }
}

// Stores zeros as the gradients of both convolutions. Each block of an image has one of them.
DEVICE void store_zero_gradients(const CnnLayer* convolutions, const Place& place,
                                 int64 member_stride) {
  const CnnLayer& layer = convolutions[place.half()];
  const int count = place.half() ? PARAMETERS2 : PARAMETERS1;
  real* const target = of_member(layer.partial_sums, member_stride) + place.batch_image() * count;
  for (int i = threadIdx.x; i < count; i += THREADS) target[i] = 0;
}

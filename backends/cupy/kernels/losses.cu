// The loss of each row of logits, its gradient, and whether the row was recognised.
//
// Layout: logits (B, classes), labels (B,) or, where there are `rows` of a section, of the data set;
// a warp a row, a lane every 32nd class. The formulas are those of
// backends/operations/losses.py; gradients are of the mean over the batch.
// Cost per image: reads and writes `classes` numbers, and about as many exponentials.
// Options: -DLABEL=int32 or int64.
#include "common.cuh"

// A row as its warp sees it.
struct Row {
  const real* z;  // logits
  real* dz;
  int number, lane, classes, label, images;
};

#define ARGUMENTS                                                                               \
  const real *__restrict__ logits, const LABEL *__restrict__ labels,                            \
      const int *__restrict__ rows, int classes, batch_t batch, real *__restrict__ dlogits,     \
      real *__restrict__ losses, int *__restrict__ correct
#define OWN_ROW own_row(logits, labels, rows, classes, batch, dlogits)

__device__ __forceinline__ Row own_row(const real* logits, const LABEL* labels,
                                       const int* rows, int classes, batch_t batch,
                                       real* dlogits) {
  const int images = images_of(batch);
  const int number = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int64 start = int64(number) * classes;
  int label = 0;
  if (number < images) label = int(labels[rows ? rows[beginning_of(batch) + number] : number]);
  return {logits + start, dlogits + start, number, int(threadIdx.x % 32), classes, label, images};
}

// Returns, to all lanes, the place of the largest number of a row, the first if there are several.
__device__ __forceinline__ int place_of_largest(const Row& row) {
  int best = row.lane < row.classes ? row.lane : 0;
  for (int c = row.lane; c < row.classes; c += 32)
    if (row.z[c] > row.z[best]) best = c;
  for (int distance = 16; distance > 0; distance /= 2) {
    const int other = __shfl_xor_sync(EVERY_LANE, best, distance);
    const real mine = row.z[best], its = row.z[other];
    if (its > mine || (its == mine && other < best)) best = other;
  }
  return best;
}

// At most 40 registers.
extern "C" __global__ void softmax_cross_entropy(ARGUMENTS) {
  const Row row = OWN_ROW;
  if (row.number >= row.images) return;  // a whole warp
  const int best = place_of_largest(row);
  const real largest = row.z[best];
  real total = 0;
  for (int c = row.lane; c < classes; c += 32) total += exp(row.z[c] - largest);
  const real log_total = log(sum_of_warp(total));
  for (int c = row.lane; c < classes; c += 32) {
    const real target = c == row.label;
    row.dz[c] = (exp(row.z[c] - largest - log_total) - target) / real(row.images);
  }
  if (row.lane == 0) {
    losses[row.number] = log_total - (row.z[row.label] - largest);
    correct[row.number] = best == row.label;
  }
}

// At most 40 registers.
extern "C" __global__ void binary_cross_entropy(ARGUMENTS) {
  const Row row = OWN_ROW;
  if (row.number >= row.images) return;
  const int best = place_of_largest(row);
  real loss = 0;
  for (int c = row.lane; c < classes; c += 32) {
    const real z = row.z[c], target = c == row.label;
    loss += (z > 0 ? z : real(0)) - z * target + log1p(exp(-fabs(z)));
    row.dz[c] = (sigmoid(z) - target) / real(row.images);
  }
  loss = sum_of_warp(loss);
  if (row.lane == 0) {
    losses[row.number] = loss;
    correct[row.number] = best == row.label;
  }
}

// At most 40 registers.
extern "C" __global__ void quadratic(ARGUMENTS) {
  const Row row = OWN_ROW;
  if (row.number >= row.images) return;
  const int best = place_of_largest(row);
  real loss = 0;
  for (int c = row.lane; c < classes; c += 32) {
    const real target = c == row.label, output = sigmoid(row.z[c]);
    const real error = output - target;
    loss += error * error / 2;
    row.dz[c] = error * output * (1 - output) / real(row.images);
  }
  loss = sum_of_warp(loss);
  if (row.lane == 0) {
    losses[row.number] = loss;
    correct[row.number] = best == row.label;
  }
}

// One step of each optimizer over all parameters of a network, which are one vector.
//
// A thread a parameter. The rules are those of backends/operations/updates.py.
// Cost per parameter: reads weight and gradient and writes the weight; reads and writes each array
// that the rule keeps between steps. None per image.
#include "common.cuh"

// The learning rate; for Adam also lr / (1 - beta1^t) and 1 / (1 - beta2^t). As with the size of a
// batch, a captured step finds in memory what changes from step to step.
#ifdef CAPTURED
#define RATES const real *__restrict__ rates
#define LR rates[0]
#define MEAN_RATE rates[1]
#define SQUARE_SCALE rates[2]
#else
#define RATES real lr, real mean_rate, real square_scale
#define LR lr
#define MEAN_RATE mean_rate
#define SQUARE_SCALE square_scale
#endif

__device__ __forceinline__ int own_parameter() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Returns the gradient of the loss plus half the decay times the square of the weight.
__device__ __forceinline__ real decayed(real grad, real weight, real weight_decay) {
  return weight_decay != 0 ? grad + weight_decay * weight : grad;
}

// At most 32 registers.
extern "C" __global__ void sgd(real* __restrict__ weights, const real* __restrict__ grads,
                               int length, RATES, real weight_decay) {
  const int i = own_parameter();
  if (i >= length) return;
  weights[i] -= LR * decayed(grads[i], weights[i], weight_decay);
}

// At most 32 registers.
extern "C" __global__ void momentum(real* __restrict__ weights, const real* __restrict__ grads,
                                    real* __restrict__ velocity, int length, RATES,
                                    real weight_decay, real kept, int nesterov) {
  const int i = own_parameter();
  if (i >= length) return;
  const real grad = decayed(grads[i], weights[i], weight_decay);
  const real now = kept * velocity[i] + grad;
  velocity[i] = now;
  weights[i] -= LR * (nesterov ? grad + kept * now : now);
}

// At most 32 registers.
extern "C" __global__ void adagrad(real* __restrict__ weights, const real* __restrict__ grads,
                                   real* __restrict__ square_sum, int length, RATES,
                                   real weight_decay, real eps) {
  const int i = own_parameter();
  if (i >= length) return;
  const real grad = decayed(grads[i], weights[i], weight_decay);
  const real sum = square_sum[i] + grad * grad;
  square_sum[i] = sum;
  weights[i] -= LR * grad / (sqrt(sum) + eps);
}

// `added` is 1 - decay, rounded once.
// At most 32 registers.
extern "C" __global__ void rmsprop(real* __restrict__ weights, const real* __restrict__ grads,
                                   real* __restrict__ square_mean, int length, RATES,
                                   real weight_decay, real decay, real added, real eps) {
  const int i = own_parameter();
  if (i >= length) return;
  const real grad = decayed(grads[i], weights[i], weight_decay);
  const real square = decay * square_mean[i] + added * grad * grad;
  square_mean[i] = square;
  weights[i] -= LR * grad / (sqrt(square) + eps);
}

// `added1` is 1 - beta1 and `added2` 1 - beta2, each rounded once.
// At most 40 registers.
extern "C" __global__ void adam(real* __restrict__ weights, const real* __restrict__ grads,
                                real* __restrict__ mean, real* __restrict__ square_mean, int length,
                                RATES, real weight_decay, real beta1, real added1, real beta2,
                                real added2, real eps, int decoupled) {
  const int i = own_parameter();
  if (i >= length) return;
  const real weight = decoupled ? weights[i] * (1 - LR * weight_decay) : weights[i];
  const real grad = decoupled ? grads[i] : decayed(grads[i], weight, weight_decay);
  const real m = beta1 * mean[i] + added1 * grad;
  const real square = beta2 * square_mean[i] + added2 * grad * grad;
  mean[i] = m;
  square_mean[i] = square;
  weights[i] = weight - MEAN_RATE * m / (sqrt(square * SQUARE_SCALE) + eps);
}

// How an optimizer changes a parameter. The rules are those of backends/operations/updates.py.
//
// -DRULE=SGD, MOMENTUM, ADAGRAD, RMSPROP or ADAM. A kernel takes RULE_ARGUMENTS: the parameters, the
// arrays that the rule keeps between steps, and its numbers. RULE_OF_ARGUMENTS makes a `Rule` of them.

#define SGD 0
#define MOMENTUM 1
#define ADAGRAD 2
#define RMSPROP 3
#define ADAM 4

// What changes from step to step: the learning rate, and for Adam alone lr / (1 - beta1^t) and
// 1 / (1 - beta2^t).
struct Rates {
  real lr, mean_rate, square_scale;
};

// Returns the gradient of the loss plus half the decay times the square of the weight.
__device__ __forceinline__ real decayed(real grad, real weight, real weight_decay) {
  return weight_decay != 0 ? grad + weight_decay * weight : grad;
}

#if RULE == SGD
#define RULE_ARGUMENTS real *__restrict__ weights, real weight_decay
#define RULE_OF_ARGUMENTS \
  Rule { weights, weight_decay }
struct Rule {
  real* weights;
  real weight_decay;

  __device__ __forceinline__ void update(int i, real grad, Rates rates) const {
    weights[i] -= rates.lr * decayed(grad, weights[i], weight_decay);
  }
};
#elif RULE == MOMENTUM
#define RULE_ARGUMENTS \
  real *__restrict__ weights, real *__restrict__ velocity, real weight_decay, real kept, int nesterov
#define RULE_OF_ARGUMENTS \
  Rule { weights, velocity, weight_decay, kept, nesterov }
struct Rule {
  real *weights, *velocity;
  real weight_decay, kept;
  int nesterov;

  __device__ __forceinline__ void update(int i, real grad, Rates rates) const {
    grad = decayed(grad, weights[i], weight_decay);
    const real now = kept * velocity[i] + grad;
    velocity[i] = now;
    weights[i] -= rates.lr * (nesterov ? grad + kept * now : now);
  }
};
#elif RULE == ADAGRAD
#define RULE_ARGUMENTS \
  real *__restrict__ weights, real *__restrict__ square_sum, real weight_decay, real eps
#define RULE_OF_ARGUMENTS \
  Rule { weights, square_sum, weight_decay, eps }
struct Rule {
  real *weights, *square_sum;
  real weight_decay, eps;

  __device__ __forceinline__ void update(int i, real grad, Rates rates) const {
    grad = decayed(grad, weights[i], weight_decay);
    const real sum = square_sum[i] + grad * grad;
    square_sum[i] = sum;
    weights[i] -= rates.lr * grad / (sqrt(sum) + eps);
  }
};
#elif RULE == RMSPROP
#define RULE_ARGUMENTS                                                                    \
  real *__restrict__ weights, real *__restrict__ square_mean, real weight_decay, real decay, \
      real added, real eps
#define RULE_OF_ARGUMENTS \
  Rule { weights, square_mean, weight_decay, decay, added, eps }
struct Rule {
  real *weights, *square_mean;
  real weight_decay, decay;
  real added;  // 1 - decay, rounded once
  real eps;

  __device__ __forceinline__ void update(int i, real grad, Rates rates) const {
    grad = decayed(grad, weights[i], weight_decay);
    const real square = decay * square_mean[i] + added * grad * grad;
    square_mean[i] = square;
    weights[i] -= rates.lr * grad / (sqrt(square) + eps);
  }
};
#else
#define RULE_ARGUMENTS                                                                       \
  real *__restrict__ weights, real *__restrict__ mean, real *__restrict__ square_mean,       \
      real weight_decay, real beta1, real added1, real beta2, real added2, real eps, int decoupled
#define RULE_OF_ARGUMENTS                                                         \
  Rule {                                                                          \
    weights, mean, square_mean, weight_decay, beta1, added1, beta2, added2, eps, decoupled \
  }
struct Rule {
  real *weights, *mean, *square_mean;
  real weight_decay;
  real beta1, added1, beta2, added2;  // what is added is 1 - beta, rounded once
  real eps;
  int decoupled;

  __device__ __forceinline__ void update(int i, real grad, Rates rates) const {
    const real weight = decoupled ? weights[i] * (1 - rates.lr * weight_decay) : weights[i];
    if (!decoupled) grad = decayed(grad, weight, weight_decay);
    const real m = beta1 * mean[i] + added1 * grad;
    const real square = beta2 * square_mean[i] + added2 * grad * grad;
    mean[i] = m;
    square_mean[i] = square;
    weights[i] = weight - rates.mean_rate * m / (sqrt(square * rates.square_scale) + eps);
  }
};
#endif

// The update rules of the optimizers; the formulas are those of backends/operations/updates.py.
//
// Options: -DRULE=SGD, MOMENTUM, ADAGRAD, RMSPROP or ADAM.
#pragma once

#include "common.cuh"

enum Rule { SGD, MOMENTUM, ADAGRAD, RMSPROP, ADAM };

// The rates of a step; the last two are used by Adam only.
struct Rates {
  real lr;
  real mean_rate;     // lr / (1 - beta1^t)
  real square_scale;  // 1 / (1 - beta2^t)
};

// The settings of all rules; a rule reads only its own. Complements such as 1 - beta1 are rounded
// once, on the host.
struct RuleSettings {
  real weight_decay, momentum, eps;
  real decay, one_minus_decay;
  real beta1, one_minus_beta1;
  real beta2, one_minus_beta2;
  int nesterov, decoupled;
};

// Updates the parameters one by one.
struct Updater {
  real* weights;
  real* state0;  // MOMENTUM: velocity; ADAGRAD, RMSPROP: squares; ADAM: mean
  real* state1;  // ADAM: mean of squares
  RuleSettings settings;
  Rates rates;

  // Updates parameter i by the gradient of the loss.
  DEVICE void apply(int i, real grad) const {
    const RuleSettings& s = settings;
    const real weight = weights[i];
    const bool decay_is_in_gradient = s.weight_decay != 0 && !(RULE == ADAM && s.decoupled);
    if (decay_is_in_gradient) grad = grad + s.weight_decay * weight;
    if constexpr (RULE == SGD) {
      weights[i] = weight - rates.lr * grad;
    } else if constexpr (RULE == MOMENTUM) {
      const real velocity = s.momentum * state0[i] + grad;
      state0[i] = velocity;
      weights[i] = weight - rates.lr * (s.nesterov ? grad + s.momentum * velocity : velocity);
    } else if constexpr (RULE == ADAGRAD) {
      const real sum = state0[i] + grad * grad;
      state0[i] = sum;
      weights[i] = weight - rates.lr * grad / (sqrt(sum) + s.eps);
    } else if constexpr (RULE == RMSPROP) {
      const real square = s.decay * state0[i] + s.one_minus_decay * grad * grad;
      state0[i] = square;
      weights[i] = weight - rates.lr * grad / (sqrt(square) + s.eps);
    } else {
      const real kept = s.decoupled ? weight * (1 - rates.lr * s.weight_decay) : weight;
      const real mean = s.beta1 * state0[i] + s.one_minus_beta1 * grad;
      const real square = s.beta2 * state1[i] + s.one_minus_beta2 * grad * grad;
      state0[i] = mean;
      state1[i] = square;
      weights[i] = kept - rates.mean_rate * mean / (sqrt(square * rates.square_scale) + s.eps);
    }
  }
};

// The update rules of the optimizers, with the formulas of backends/operations/updates.py.
//
// Options: -DRULE, the update rule: SGD, MOMENTUM, ADAGRAD, RMSPROP or ADAM.
#pragma once

#include "common.cuh"

enum Rule { SGD, MOMENTUM, ADAGRAD, RMSPROP, ADAM };

// The factors of step t, counted from 1. Only Adam uses the last two.
struct Rates {
  real lr;            // learning rate
  real mean_rate;     // lr / (1 - beta1^t)
  real square_scale;  // 1 / (1 - beta2^t)
};

// The settings of all rules. Each rule reads only the settings in its formula. The host computes
// complements such as 1 - beta1 in double precision, so they are rounded only once.
struct RuleSettings {
  real weight_decay, momentum, eps;
  real decay, one_minus_decay;
  real beta1, one_minus_beta1;
  real beta2, one_minus_beta2;
  int nesterov, decoupled;
};

// Pointers to the parameters and the optimizer state, and the function that updates one parameter.
struct Updater {
  real* weights;
  real* state0;  // MOMENTUM: velocity; ADAGRAD: sum of squared gradients;
                 // RMSPROP: mean of squared gradients; ADAM: mean of gradients
  real* state1;  // ADAM: mean of squared gradients
  RuleSettings settings;
  Rates rates;

  // Updates parameter i and its state. `grad` is the gradient of the loss with respect to it.
  // Returns whether the parameter is still finite.
  DEVICE bool apply(int i, real grad) const {
    const RuleSettings& s = settings;
    const real weight = weights[i];
    real updated;
    const bool decay_is_in_gradient = s.weight_decay != 0 && !(RULE == ADAM && s.decoupled);
    if (decay_is_in_gradient) grad = grad + s.weight_decay * weight;
    if constexpr (RULE == SGD) {
      updated = weight - rates.lr * grad;
    } else if constexpr (RULE == MOMENTUM) {
      const real velocity = s.momentum * state0[i] + grad;
      state0[i] = velocity;
      updated = weight - rates.lr * (s.nesterov ? grad + s.momentum * velocity : velocity);
    } else if constexpr (RULE == ADAGRAD) {
      const real sum = state0[i] + grad * grad;
      state0[i] = sum;
      updated = weight - rates.lr * grad / (sqrt(sum) + s.eps);
    } else if constexpr (RULE == RMSPROP) {
      const real square = s.decay * state0[i] + s.one_minus_decay * grad * grad;
      state0[i] = square;
      updated = weight - rates.lr * grad / (sqrt(square) + s.eps);
    } else {
      const real decayed = s.decoupled ? weight * (1 - rates.lr * s.weight_decay) : weight;
      const real mean = s.beta1 * state0[i] + s.one_minus_beta1 * grad;
      const real square = s.beta2 * state1[i] + s.one_minus_beta2 * grad * grad;
      state0[i] = mean;
      state1[i] = square;
      updated = decayed - rates.mean_rate * mean / (sqrt(square * rates.square_scale) + s.eps);
    }
    weights[i] = updated;
    return is_finite(updated);
  }
};

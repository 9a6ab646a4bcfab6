"""One step of each optimizer on a part of the parameter vector.

The formulas are in `backends.operations.updates`.

Parameters, their gradient and each array of the optimizer's state are vectors in the same, packed
order; `state` holds its arrays one after the other. What fills up stays 0.

Cost per step, not per image: one pass that reads parameters, gradient and state and writes all but
the gradient, 3 numbers moved a parameter for a plain step, 5 with one array of state, 7 with two.
"""

import math
from typing import Any, NamedTuple

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import part

# The update rules that have a kernel; their numbers are those in this order.
RULES = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
SGD, MOMENTUM, ADAGRAD, RMSPROP, ADAM = range(5)


class Settings(NamedTuple):
    """The numbers of an optimizer; those it does not have are 0."""

    weight_decay: float
    momentum: float
    nesterov: float
    decay: float
    beta1: float
    beta2: float
    eps: float
    decoupled: float


@kernel
def update(
    kind: int,
    settings: Any,
    lr: float,
    step: int,
    packed: Any,
    gradient: Any,
    state: Any,
    begin: int,
    count: int,
) -> None:
    """Change a part of the parameters, and of the rows of `state`, by one step.

    Args:
        kind: of the optimizer.
        settings: its numbers.
        lr: learning rate.
        step: number of the step, counted from 1.
        packed: the parameters.
        gradient: theirs.
        state: the optimizer's arrays, (arrays, parameters).
        begin: where the part begins.
        count: its length.
    """
    number = packed.dtype.type
    weights = part(packed, begin, count)
    grads = part(gradient, begin, count)
    length = state.shape[1]
    rate = number(lr)
    weight_decay = number(settings.weight_decay)
    eps = number(settings.eps)
    if kind == SGD:
        for i in range(len(weights)):
            weights[i] -= rate * (grads[i] + weight_decay * weights[i])
    elif kind == MOMENTUM:
        momentum = number(settings.momentum)
        velocity = part(state, begin, count)
        ahead = momentum if settings.nesterov else number(0)
        own = number(1) if settings.nesterov else number(0)
        along = number(0) if settings.nesterov else number(1)
        for i in range(len(weights)):
            gradient = grads[i] + weight_decay * weights[i]
            velocity[i] = momentum * velocity[i] + gradient
            weights[i] -= rate * (own * gradient + (ahead + along) * velocity[i])
    elif kind == ADAGRAD:
        square_sum = part(state, begin, count)
        for i in range(len(weights)):
            gradient = grads[i] + weight_decay * weights[i]
            square_sum[i] += gradient * gradient
            weights[i] -= rate * gradient / (math.sqrt(square_sum[i]) + eps)
    elif kind == RMSPROP:
        square_mean = part(state, begin, count)
        kept = number(settings.decay)
        added = number(1 - settings.decay)
        for i in range(len(weights)):
            gradient = grads[i] + weight_decay * weights[i]
            square_mean[i] = kept * square_mean[i] + added * gradient * gradient
            weights[i] -= rate * gradient / (math.sqrt(square_mean[i]) + eps)
    else:
        mean = part(state, begin, count)
        square_mean = part(state, length + begin, count)
        beta1, beta2 = number(settings.beta1), number(settings.beta2)
        rest1, rest2 = number(1 - settings.beta1), number(1 - settings.beta2)
        scale = number(lr / (1 - settings.beta1**step))
        correction = number(1 / (1 - settings.beta2**step))
        shrink = number(1 - lr * settings.weight_decay) if settings.decoupled else number(1)
        coupled = number(0) if settings.decoupled else weight_decay
        for i in range(len(weights)):
            weight = weights[i] * shrink
            gradient = grads[i] + coupled * weight
            mean[i] = beta1 * mean[i] + rest1 * gradient
            square_mean[i] = beta2 * square_mean[i] + rest2 * gradient * gradient
            weights[i] = weight - scale * mean[i] / (math.sqrt(square_mean[i] * correction) + eps)

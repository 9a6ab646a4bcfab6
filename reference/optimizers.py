"""Optimizers: the update rules as PyTorch documents them.

Each function updates one parameter w with its gradient g. `past` holds the arrays that the
optimizer kept of earlier steps, empty at first, and `t` counts the steps from 1. It returns the new
parameter and the new `past`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reference.layers import Array

Weights = dict[str, Array]
Past = dict[str, Array]
Update = Callable[..., tuple[Array, Past]]


def sgd(w: Array, g: Array, past: Past, *, lr: float, t: int) -> tuple[Array, Past]:
    """Return w − lr·g."""
    return w - lr * g, {}


def momentum(
    w: Array, g: Array, past: Past, *, lr: float, t: int, momentum: float = 0.9
) -> tuple[Array, Past]:
    """Return w − lr·v with v ← momentum·v + g."""
    v = momentum * past.get("v", 0.0) + g
    return w - lr * v, {"v": v}


def nesterov(
    w: Array, g: Array, past: Past, *, lr: float, t: int, momentum: float = 0.9
) -> tuple[Array, Past]:
    """Return w − lr·(g + momentum·v) with v ← momentum·v + g."""
    v = momentum * past.get("v", 0.0) + g
    return w - lr * (g + momentum * v), {"v": v}


def adagrad(
    w: Array, g: Array, past: Past, *, lr: float, t: int, eps: float = 1e-10
) -> tuple[Array, Past]:
    """Return w − lr·g/(√s + eps) with s ← s + g²."""
    s = past.get("s", 0.0) + g**2
    return w - lr * g / (np.sqrt(s) + eps), {"s": s}


def rmsprop(
    w: Array, g: Array, past: Past, *, lr: float, t: int, alpha: float = 0.99, eps: float = 1e-8
) -> tuple[Array, Past]:
    """Return w − lr·g/(√s + eps) with s ← alpha·s + (1 − alpha)·g²."""
    s = alpha * past.get("s", 0.0) + (1 - alpha) * g**2
    return w - lr * g / (np.sqrt(s) + eps), {"s": s}


def adam(
    w: Array,
    g: Array,
    past: Past,
    *,
    lr: float,
    t: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Array, Past]:
    """Return w − lr·m̂/(√v̂ + eps).

    m ← beta1·m + (1 − beta1)·g, m̂ = m/(1 − beta1ᵗ)
    v ← beta2·v + (1 − beta2)·g², v̂ = v/(1 − beta2ᵗ)
    """
    m = beta1 * past.get("m", 0.0) + (1 - beta1) * g
    v = beta2 * past.get("v", 0.0) + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), {"m": m, "v": v}


OPTIMIZERS: dict[str, Update] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adam,
}


def update(
    optimizer: str,
    weights: Mapping[str, Array],
    gradients: Mapping[str, Array],
    state: Mapping[str, Past],
    *,
    lr: float,
    t: int,
    weight_decay: float = 0.0,
    **options: Any,
) -> tuple[Weights, dict[str, Past]]:
    """Return the weights and the state after one step of an optimizer.

    Weight decay acts on every parameter, biases too. It is added to the gradient (an L2 penalty),
    except by AdamW, which subtracts lr·weight_decay·w from the parameter first.

    Args:
        optimizer: a key of `OPTIMIZERS`.
        weights: parameters by name; not changed.
        gradients: their gradients.
        state: for each parameter the arrays of earlier steps; `{}` at the first step.
        lr: learning rate.
        t: number of the step, counted from 1.
        weight_decay: λ.
        **options: numbers of the optimizer: momentum, beta1, …
    """
    new: Weights = {}
    new_state: dict[str, Past] = {}
    for key, w in weights.items():
        g = gradients[key]
        if optimizer == "adamw":
            w = w - lr * weight_decay * w
        else:
            g = g + weight_decay * w
        rule = OPTIMIZERS[optimizer]
        new[key], new_state[key] = rule(w, g, state.get(key, {}), lr=lr, t=t, **options)
    return new, new_state

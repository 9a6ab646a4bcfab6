"""The operations of a network in JAX, each compiled by itself.

A backward operation is the function that `jax.vjp` returns: what it needs of the forward pass has
been computed beforehand. Only `softmax_cross_entropy` does both, as its results are the loss and
the gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.contenders.base import OperationSession, OperationTask
from benchmarks.contenders.jax_training import (
    Array,
    adam,
    conv2d,
    jax,
    linear,
    max_pool2d,
    sgd,
    softmax_cross_entropy,
)
from mnist_accel.nn import SGD, Adam

Inputs: TypeAlias = dict[str, Array]
Compute: TypeAlias = Callable[[], Sequence[Array]]


def prepare_operation(task: OperationTask) -> OperationSession | None:
    """Return the operation on arrays of the device; None where there is none of this name."""
    if task.name not in _PREPARE:
        return None
    compute = _prepare(task)

    def run() -> None:
        jax.block_until_ready(compute())

    # Updates give up their inputs, so results are those of a new beginning.
    def results() -> Sequence[Any]:
        return [np.asarray(array) for array in _prepare(task)()]

    return OperationSession(run, results)


def _prepare(task: OperationTask) -> Compute:
    return _PREPARE[task.name](jax.device_put(_without_int64(task)), task)


def _without_int64(task: OperationTask) -> Inputs:
    """Return copies of the inputs; labels as int32, because JAX has no int64 by default."""
    return {
        name: np.array(host, np.int32 if host.dtype == np.int64 else host.dtype)
        for name, host in task.inputs.items()
    }


def _differentiable(function: Callable[..., Array]) -> Callable[[Inputs, OperationTask], Compute]:
    """Turn a function of the inputs and settings into its forward or backward operation."""

    def prepare(of: Inputs, task: OperationTask) -> Compute:
        def call(inputs: Inputs) -> Array:
            return function(inputs, **task.settings)

        inputs = {name: array for name, array in of.items() if name != "dy"}
        if task.direction == "forward":
            forward = jax.jit(call)
            return lambda: [forward(inputs)]
        wanted = [inputs.pop(name) for name in task.wanted]

        def of_wanted(*arrays: Array) -> Array:
            return call({**inputs, **dict(zip(task.wanted, arrays, strict=True))})

        _, pull_back = jax.vjp(jax.jit(of_wanted), *wanted)
        backward = jax.jit(lambda pull_back, dy: pull_back(dy))
        return lambda: backward(pull_back, of["dy"])

    return prepare


def _linear(of: Inputs) -> Array:
    return linear(of["x"], of["weight"], of.get("bias"))


def _conv2d(of: Inputs, *, stride: int, padding: int) -> Array:
    return conv2d(of["x"], of["weight"], of.get("bias"), stride=stride, padding=padding)


def _max_pool2d(of: Inputs, *, size: int) -> Array:
    return max_pool2d(of["x"], size=size, stride=size)


def _conv2d_relu_max_pool2d(of: Inputs, *, stride: int, padding: int, size: int) -> Array:
    y = jax.nn.relu(_conv2d(of, stride=stride, padding=padding))
    return max_pool2d(y, size=size, stride=size)


def _softmax_cross_entropy(of: Inputs, task: OperationTask) -> Compute:
    compute = jax.jit(jax.value_and_grad(softmax_cross_entropy))
    return lambda: compute(of["x"], of["labels"])


def _sgd_update(of: Inputs, task: OperationTask) -> Compute:
    optimizer = SGD(lr=task.settings["lr"])
    step = jax.jit(lambda weight, grad: sgd(optimizer, weight, grad, [], None)[0], donate_argnums=0)
    weight = of["weight"]

    def compute() -> Sequence[Array]:
        nonlocal weight
        weight = step(weight, of["grad"])
        return [weight]

    return compute


def _adam_update(of: Inputs, task: OperationTask) -> Compute:
    settings = {key: value for key, value in task.settings.items() if key != "step"}
    optimizer = Adam(**settings)

    def update(state: Sequence[Array], grad: Array, step: Array) -> Sequence[Array]:
        weight, moments = adam(optimizer, state[0], grad, state[1:], step)
        return [weight, *moments]

    compiled = jax.jit(update, donate_argnums=0)
    state: Sequence[Array] = [of["weight"], of["m"], of["v"]]
    step = jax.device_put(np.int32(task.settings["step"]))

    def compute() -> Sequence[Array]:
        nonlocal state
        state = compiled(state, of["grad"], step)
        return state

    return compute


_PREPARE: dict[str, Callable[[Inputs, OperationTask], Compute]] = {
    "linear": _differentiable(_linear),
    "conv2d": _differentiable(_conv2d),
    "max_pool2d": _differentiable(_max_pool2d),
    "conv2d_relu_max_pool2d": _differentiable(_conv2d_relu_max_pool2d),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sgd_update": _sgd_update,
    "adam_update": _adam_update,
}

"""JAX: single operations of a network, each compiled separately.

A backward operation is the function that `jax.vjp` returns; the forward pass runs before. Only
`softmax_cross_entropy` includes both, because its results are the loss and the gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from benchmarks.contenders.base import OperationSession, OperationTask
from benchmarks.contenders.jax_networks import (
    Array,
    adam,
    conv2d,
    linear,
    max_pool2d,
    sgd,
    softmax_cross_entropy,
)
from mnist_accel.nn import SGD, Adam

Inputs: TypeAlias = dict[str, Array]
Compute: TypeAlias = Callable[[], Sequence[Array]]


def prepare_operation(task: OperationTask) -> OperationSession | None:
    """Return the operation on arrays of the device; None if no operation has this name."""
    if task.name not in _PREPARE:
        return None
    compute = _prepare(task)

    def run() -> None:
        jax.block_until_ready(compute())

    # Updates donate their inputs, so the results are computed from new inputs.
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
    """Return a function that prepares the forward or the backward operation of `function`."""

    def prepare(inputs: Inputs, task: OperationTask) -> Compute:
        def call(arrays: Inputs) -> Array:
            return function(arrays, **task.settings)

        constants = {name: array for name, array in inputs.items() if name != "dy"}
        if task.direction == "forward":
            forward = jax.jit(call)
            return lambda: [forward(constants)]
        wanted = [constants.pop(name) for name in task.wanted]

        def call_on_wanted(*arrays: Array) -> Array:
            return call({**constants, **dict(zip(task.wanted, arrays, strict=True))})

        _, pull_back = jax.vjp(jax.jit(call_on_wanted), *wanted)
        backward = jax.jit(lambda pull_back, dy: pull_back(dy))
        return lambda: backward(pull_back, inputs["dy"])

    return prepare


def _linear(inputs: Inputs) -> Array:
    return linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def _conv2d(inputs: Inputs, *, stride: int, padding: int) -> Array:
    return conv2d(inputs["x"], inputs["weight"], inputs.get("bias"), stride=stride, padding=padding)


def _max_pool2d(inputs: Inputs, *, size: int) -> Array:
    return max_pool2d(inputs["x"], size=size, stride=size)


def _conv2d_relu_max_pool2d(inputs: Inputs, *, stride: int, padding: int, size: int) -> Array:
    y = jax.nn.relu(_conv2d(inputs, stride=stride, padding=padding))
    return max_pool2d(y, size=size, stride=size)


def _softmax_cross_entropy(inputs: Inputs, task: OperationTask) -> Compute:
    compute = jax.jit(jax.value_and_grad(softmax_cross_entropy))
    return lambda: compute(inputs["x"], inputs["labels"])


def _sgd_update(inputs: Inputs, task: OperationTask) -> Compute:
    optimizer = SGD(lr=task.settings["lr"])
    step = jax.jit(lambda weight, grad: sgd(optimizer, weight, grad, [], None)[0], donate_argnums=0)
    weight = inputs["weight"]

    def compute() -> Sequence[Array]:
        nonlocal weight
        weight = step(weight, inputs["grad"])
        return [weight]

    return compute


def _adam_update(inputs: Inputs, task: OperationTask) -> Compute:
    settings = {key: value for key, value in task.settings.items() if key != "step"}
    optimizer = Adam(**settings)

    def update(state: Sequence[Array], grad: Array, step: Array) -> Sequence[Array]:
        weight, moments = adam(optimizer, state[0], grad, state[1:], step)
        return [weight, *moments]

    compiled = jax.jit(update, donate_argnums=0)
    state: Sequence[Array] = [inputs["weight"], inputs["m"], inputs["v"]]
    step = jax.device_put(np.int32(task.settings["step"]))

    def compute() -> Sequence[Array]:
        nonlocal state
        state = compiled(state, inputs["grad"], step)
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

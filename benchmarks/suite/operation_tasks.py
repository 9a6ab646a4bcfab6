"""The inputs and the expected results of the operations that are measured individually.

Inputs are random numbers, the same in each run. The expected results are computed by the float64
loops of `reference`, one image at a time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import reference
from benchmarks.contenders.base import HostArray, OperationTask
from benchmarks.suite.cases import OperationCase

Array = NDArray[np.float64]


def operation_task(case: OperationCase) -> OperationTask:
    """Return the operation of a case with its inputs."""
    rng = np.random.default_rng(0)
    inputs: dict[str, HostArray] = {}
    task = OperationTask(case.operation, "forward", inputs, dict(case.settings))
    if case.operation.endswith("_update"):
        for name in ("weight", "grad", *task.rule.state_names):
            inputs[name] = _floats(rng, case.shape)
        if "square_mean" in inputs:
            inputs["square_mean"] **= 2
        return task
    inputs["x"] = _floats(rng, (case.batch, *case.shape))
    if case.operation == "softmax_cross_entropy":
        inputs["labels"] = rng.integers(case.shape[0], size=case.batch)
        return task
    if case.weight_shape is not None:
        outputs = case.weight_shape[1 if case.operation == "linear" else 0]
        inputs["weight"] = _floats(rng, case.weight_shape)
        inputs["bias"] = _floats(rng, (outputs,))
    if case.direction == "forward":
        return task
    inputs["dy"] = _floats(rng, _output_shape(task))
    return replace(task, direction="backward")


def _output_shape(task: OperationTask) -> tuple[int, ...]:
    """Return the shape of the result of an operation's forward direction."""
    one_image = replace(task, inputs={**task.inputs, "x": task.inputs["x"][:1]})
    return (len(task.inputs["x"]), *np.shape(expected_results(one_image)[0])[1:])


def expected_results(task: OperationTask) -> list[Array]:
    """Return the results of an operation in float64, in the order of the task."""
    arrays = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in task.inputs.items()
    }
    if task.name == "sgd_update":
        return [arrays["weight"] - task.settings["lr"] * arrays["grad"]]
    if task.name == "adam_update":
        return _adam_update(arrays, task.settings)
    if task.name == "softmax_cross_entropy":
        pairs = [
            reference.softmax_cross_entropy(row, int(label))
            for row, label in zip(arrays["x"], arrays["labels"], strict=True)
        ]
        losses, gradients = zip(*pairs, strict=True)
        return [np.array(np.mean(losses)), np.array(gradients) / len(pairs)]
    if task.direction == "forward":
        return [np.array([_forward(task, arrays, x)[-1] for x in arrays["x"]])]
    per_image = [
        _backward(task, arrays, x, dy) for x, dy in zip(arrays["x"], arrays["dy"], strict=True)
    ]
    dx, *weight_gradients = zip(*per_image, strict=True)
    # Weight gradients are sums over the images.
    return [np.array(dx), *(np.sum(gradient, axis=0) for gradient in weight_gradients)]


def longest_sum(task: OperationTask) -> int:
    """Return the number of terms of the longest sum in an operation."""
    if task.name.endswith("_update"):
        return 1
    x = task.inputs["x"]
    if task.direction == "forward" or "weight" not in task.inputs:
        weight = task.inputs.get("weight")
        return int(x.shape[-1] if weight is None or weight.ndim == 2 else weight[0].size)
    return int(len(x) * math.prod(x.shape[2:]) * max(task.inputs["weight"].shape))


def _forward(task: OperationTask, inputs: Mapping[str, Array], x: Array) -> list[Array]:
    """Return the intermediate results of the operation for one image; the last is its result."""
    if task.name == "linear":
        return [reference.linear(x, inputs["weight"], inputs["bias"])]
    results = [x]
    if task.name.startswith("conv2d"):
        stride, padding = task.settings["stride"], task.settings["padding"]
        results.append(reference.conv2d(x, inputs["weight"], inputs["bias"], stride, padding))
    if "relu" in task.name:
        results.append(reference.relu(results[-1]))
    if task.name.endswith("max_pool2d"):
        results.append(reference.max_pool2d(results[-1], task.settings["size"]))
    return results


def _backward(
    task: OperationTask, inputs: Mapping[str, Array], x: Array, dy: Array
) -> Sequence[Array]:
    """Return the gradients of the inputs for one image."""
    if task.name == "linear":
        return reference.linear_backward(dy, x, inputs["weight"])
    results = _forward(task, inputs, x)
    if task.name.endswith("max_pool2d"):
        dy = reference.max_pool2d_backward(dy, results[-2], task.settings["size"])
    if "relu" in task.name:
        dy = reference.relu_backward(dy, results[1])
    if not task.name.startswith("conv2d"):
        return [dy]
    stride, padding = task.settings["stride"], task.settings["padding"]
    return reference.conv2d_backward(dy, x, inputs["weight"], stride, padding)


def _adam_update(inputs: Mapping[str, Array], settings: Mapping[str, float]) -> list[Array]:
    beta1, beta2, step = settings["beta1"], settings["beta2"], settings["step"]
    m = beta1 * inputs["mean"] + (1 - beta1) * inputs["grad"]
    v = beta2 * inputs["square_mean"] + (1 - beta2) * inputs["grad"] ** 2
    root = np.sqrt(v / (1 - beta2**step)) + settings["eps"]
    return [inputs["weight"] - settings["lr"] * (m / (1 - beta1**step)) / root, m, v]


def _floats(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)

"""Single operations on the backends of this project."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from backends import Array, Backend
from benchmarks.contenders.base import OperationTask

Compute: TypeAlias = Callable[[], Sequence[Array]]


# A table with one case per operation and direction.
def prepare(backend: Backend, task: OperationTask) -> Compute:  # noqa: C901
    """Return a function that computes the operation and returns its results in the task's order.

    The work that is not timed is done here: the inputs are copied to the device and, for the
    gradient of a pooling, the forward pass computes the tie mask.
    """
    inputs: dict[str, Array] = {name: backend.asarray(array) for name, array in task.inputs.items()}
    if task.name == "softmax_cross_entropy":
        return lambda: backend.loss("softmax_cross_entropy", inputs["x"], inputs["labels"])
    if task.name.endswith("_update"):
        return _update(backend, task, inputs)
    x = inputs["x"]
    weight, bias, dy = (inputs.get(name) for name in ("weight", "bias", "dy"))
    conv = {name: task.settings[name] for name in ("stride", "padding") if name in task.settings}
    pool: Any = {"size": task.settings.get("size"), "stride": task.settings.get("size")}

    def maxima_and_mask(x: Array) -> tuple[Array, Array]:
        return backend.max_pool2d(x, **pool, ties="first")

    def convolve() -> Array:
        return backend.conv2d(x, weight, bias, **conv)

    def convolve_backward(dy: Array) -> Sequence[Array]:
        return backend.conv2d_backward(dy, x, weight, **conv, need_dx=True)

    match task.name, task.direction:
        case "linear", "forward":
            return lambda: [backend.linear(x, weight, bias)]
        case "linear", "backward":
            return lambda: backend.linear_backward(dy, x, weight, need_dx=True)
        case "conv2d", "forward":
            return lambda: [convolve()]
        case "conv2d", "backward":
            return lambda: convolve_backward(dy)
        case "max_pool2d", "forward":
            return lambda: [maxima_and_mask(x)[0]]
        case "max_pool2d", "backward":
            _, mask = maxima_and_mask(x)
            return lambda: [backend.max_pool2d_backward(dy, mask, x_shape=x.shape, **pool)]
        case "conv2d_relu_max_pool2d", "forward":
            return lambda: [maxima_and_mask(backend.activation("relu", convolve()))[0]]
        case "conv2d_relu_max_pool2d", "backward":
            activated = backend.activation("relu", convolve())
            _, mask = maxima_and_mask(activated)

            def backward() -> Sequence[Array]:
                dactivated = backend.max_pool2d_backward(dy, mask, x_shape=activated.shape, **pool)
                return convolve_backward(backend.activation_backward("relu", dactivated, activated))

            return backward
    raise ValueError(
        f"operation {task.name!r}, {task.direction}, is not supported; add it to `prepare`"
    )


def _update(backend: Backend, task: OperationTask, inputs: dict[str, Array]) -> Compute:
    rule, step = task.rule, task.settings.get("step", 1)
    state = {name: inputs[name] for name in rule.state_names}

    def compute() -> Sequence[Array]:
        backend.update(rule, inputs["weight"], inputs["grad"], state, lr=rule.lr, step=step)
        return [inputs["weight"], *state.values()]

    return compute

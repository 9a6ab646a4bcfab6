"""Single operations of this project's backends.

Each function takes the inputs of one operation as arrays of the backend, does the work that is not
timed, and returns the computation. Inputs have the names of `OperationTask`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from backends import SGD, Adam, Backend

Inputs: TypeAlias = Mapping[str, Any]
Settings: TypeAlias = Mapping[str, Any]
Compute: TypeAlias = Callable[[], Sequence[Any]]


def prepare(
    backend: Backend, name: str, direction: str, inputs: Inputs, settings: Settings
) -> Compute:
    """Return the computation of an operation; calling it returns the results."""
    return _OPERATIONS[name, direction](backend, inputs, settings)


def _linear(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    return lambda: [backend.linear(inputs["x"], inputs["weight"], inputs["bias"])]


def _linear_backward(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    return lambda: backend.linear_backward(
        inputs["dy"], inputs["x"], inputs["weight"], need_dx=True
    )


def _conv2d(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    stride, padding = settings["stride"], settings["padding"]
    return lambda: [
        backend.conv2d(
            inputs["x"], inputs["weight"], inputs["bias"], stride=stride, padding=padding
        )
    ]


def _conv2d_backward(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    stride, padding = settings["stride"], settings["padding"]
    return lambda: backend.conv2d_backward(
        inputs["dy"], inputs["x"], inputs["weight"], stride=stride, padding=padding, need_dx=True
    )


def _max_pool2d(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    size = settings["size"]
    return lambda: [backend.max_pool2d(inputs["x"], size=size, stride=size, ties="first")[0]]


def _max_pool2d_backward(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    size, x = settings["size"], inputs["x"]
    _, mask = backend.max_pool2d(x, size=size, stride=size, ties="first")
    return lambda: [
        backend.max_pool2d_backward(inputs["dy"], mask, x_shape=x.shape, size=size, stride=size)
    ]


def _conv2d_relu_max_pool2d(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    conv2d = _conv2d(backend, inputs, settings)
    size = settings["size"]

    def compute() -> Sequence[Any]:
        (y,) = conv2d()
        y = backend.activation("relu", y)
        return [backend.max_pool2d(y, size=size, stride=size, ties="first")[0]]

    return compute


def _conv2d_relu_max_pool2d_backward(
    backend: Backend, inputs: Inputs, settings: Settings
) -> Compute:
    size = settings["size"]
    (y,) = _conv2d(backend, inputs, settings)()
    y = backend.activation("relu", y)
    _, mask = backend.max_pool2d(y, size=size, stride=size, ties="first")

    def compute() -> Sequence[Any]:
        dy = backend.max_pool2d_backward(
            inputs["dy"], mask, x_shape=y.shape, size=size, stride=size
        )
        conv_inputs = {**inputs, "dy": backend.activation_backward("relu", dy, y)}
        return _conv2d_backward(backend, conv_inputs, settings)()

    return compute


def _softmax_cross_entropy(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    return lambda: backend.loss("softmax_cross_entropy", inputs["x"], inputs["labels"])


def _sgd_update(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    rule, lr = SGD(), settings["lr"]

    def compute() -> Sequence[Any]:
        backend.update(rule, inputs["weight"], inputs["grad"], {}, lr=lr, step=1)
        return [inputs["weight"]]

    return compute


def _adam_update(backend: Backend, inputs: Inputs, settings: Settings) -> Compute:
    rule = Adam(**{name: settings[name] for name in ("beta1", "beta2", "eps")})
    state = {"mean": inputs["m"], "square_mean": inputs["v"]}
    lr, step = settings["lr"], settings["step"]

    def compute() -> Sequence[Any]:
        backend.update(rule, inputs["weight"], inputs["grad"], state, lr=lr, step=step)
        return [inputs["weight"], inputs["m"], inputs["v"]]

    return compute


_OPERATIONS: dict[tuple[str, str], Callable[[Backend, Inputs, Settings], Compute]] = {
    ("linear", "forward"): _linear,
    ("linear", "backward"): _linear_backward,
    ("conv2d", "forward"): _conv2d,
    ("conv2d", "backward"): _conv2d_backward,
    ("max_pool2d", "forward"): _max_pool2d,
    ("max_pool2d", "backward"): _max_pool2d_backward,
    ("conv2d_relu_max_pool2d", "forward"): _conv2d_relu_max_pool2d,
    ("conv2d_relu_max_pool2d", "backward"): _conv2d_relu_max_pool2d_backward,
    ("softmax_cross_entropy", "forward"): _softmax_cross_entropy,
    ("sgd_update", "forward"): _sgd_update,
    ("adam_update", "forward"): _adam_update,
}

"""The operations of a backend of this project, as the benchmarks ask for them.

Each function here is handed the inputs of one operation as arrays of the backend, does beforehand
what is not to be timed, and returns the computation. `x`, `weight`, `dy` and the rest are named as
in `OperationTask`.
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
    """Return the computation of an operation; calling it gives its results."""
    return _OPERATIONS[name, direction](backend, inputs, settings)


def _linear(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    return lambda: [backend.linear(of["x"], of["weight"], of["bias"])]


def _linear_backward(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    return lambda: backend.linear_backward(of["dy"], of["x"], of["weight"], need_dx=True)


def _conv2d(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    stride, padding = settings["stride"], settings["padding"]
    return lambda: [
        backend.conv2d(of["x"], of["weight"], of["bias"], stride=stride, padding=padding)
    ]


def _conv2d_backward(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    stride, padding = settings["stride"], settings["padding"]
    return lambda: backend.conv2d_backward(
        of["dy"], of["x"], of["weight"], stride=stride, padding=padding, need_dx=True
    )


def _max_pool2d(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    size = settings["size"]
    return lambda: [backend.max_pool2d(of["x"], size=size, stride=size, ties="first")[0]]


def _max_pool2d_backward(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    size, x = settings["size"], of["x"]
    _, mask = backend.max_pool2d(x, size=size, stride=size, ties="first")
    return lambda: [
        backend.max_pool2d_backward(of["dy"], mask, x_shape=x.shape, size=size, stride=size)
    ]


def _conv2d_relu_max_pool2d(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    conv2d = _conv2d(backend, of, settings)
    size = settings["size"]

    def compute() -> Sequence[Any]:
        (y,) = conv2d()
        return [
            backend.max_pool2d(backend.activation("relu", y), size=size, stride=size, ties="first")[
                0
            ]
        ]

    return compute


def _conv2d_relu_max_pool2d_backward(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    size = settings["size"]
    (y,) = _conv2d(backend, of, settings)()
    y = backend.activation("relu", y)
    _, mask = backend.max_pool2d(y, size=size, stride=size, ties="first")

    def compute() -> Sequence[Any]:
        dy = backend.max_pool2d_backward(of["dy"], mask, x_shape=y.shape, size=size, stride=size)
        inside = {**of, "dy": backend.activation_backward("relu", dy, y)}
        return _conv2d_backward(backend, inside, settings)()

    return compute


def _softmax_cross_entropy(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    return lambda: backend.loss("softmax_cross_entropy", of["x"], of["labels"])


def _sgd_update(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    rule = SGD()

    def compute() -> Sequence[Any]:
        backend.update(rule, of["weight"], of["grad"], {}, lr=settings["lr"], step=1)
        return [of["weight"]]

    return compute


def _adam_update(backend: Backend, of: Inputs, settings: Settings) -> Compute:
    rule = Adam(**{name: settings[name] for name in ("beta1", "beta2", "eps")})
    state = {"mean": of["m"], "square_mean": of["v"]}
    lr, step = settings["lr"], settings["step"]

    def compute() -> Sequence[Any]:
        backend.update(rule, of["weight"], of["grad"], state, lr=lr, step=step)
        return [of["weight"], of["m"], of["v"]]

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

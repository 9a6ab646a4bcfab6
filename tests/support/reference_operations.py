"""Expected results of every operation, computed image by image by the package `reference`."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import reference as ref
from backends import UpdateRule
from tests.support.operation_examples import Example, num_patches

Array = ref.Array


def expected_results(example: Example) -> list[Any]:
    """Return the expected results of an example, or the arrays that it changes, in float64."""
    arrays = {
        name: array.astype(np.float64) if array is not None and array.dtype.kind == "f" else array
        for name, array in example.arrays.items()
    }
    results = globals()[f"_{example.operation}"](**arrays, **example.settings)
    return list(results) if isinstance(results, tuple) else [results]


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    bias = np.zeros(weight.shape[1]) if bias is None else bias
    return np.array([ref.linear(row, weight, bias) for row in x])


def _linear_backward(dy: Array, x: Array, weight: Array, need_dx: bool) -> tuple[Any, ...]:
    parts = [ref.linear_backward(d, row, weight) for d, row in zip(dy, x, strict=True)]
    dx, dweight, dbias = zip(*parts, strict=True)
    return np.array(dx) if need_dx else None, sum(dweight), sum(dbias)


def _activation(x: Array, kind: str) -> Array:
    return ref.ACTIVATIONS[kind](x)


def _activation_backward(dy: Array, y: Array, kind: str) -> Array:
    inverse = {
        "relu": lambda y: y,  # y > 0 where x > 0
        "sigmoid": lambda y: np.log(y / (1 - y)),
        "tanh": np.arctanh,
    }
    return ref.ACTIVATIONS_BACKWARD[kind](dy, inverse[kind](y))


def _taps(
    height: int, width: int, kernel_size: tuple[int, int], stride: int, padding: int
) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield each element (i, j) of a filter with the rows and columns that it multiplies."""
    kh, kw = kernel_size
    oh, ow = num_patches(height, kh, stride, padding), num_patches(width, kw, stride, padding)
    for i in range(kh):
        for j in range(kw):
            down = slice(i, i + stride * (oh - 1) + 1, stride)
            yield i, j, down, slice(j, j + stride * (ow - 1) + 1, stride)


def _im2col(x: Array, kernel_size: tuple[int, int], stride: int, padding: int) -> Array:
    images = []
    for image in x:
        padded = ref.pad(image, padding)
        rows = [
            channel[down, across].ravel()
            for channel in padded
            for _, _, down, across in _taps(*image.shape[1:], kernel_size, stride, padding)
        ]
        images.append(rows)
    return np.array(images)


def _col2im(
    columns: Array,
    x_shape: tuple[int, int, int, int],
    kernel_size: tuple[int, int],
    stride: int,
    padding: int,
) -> Array:
    n, channels, height, width = x_shape
    kh, kw = kernel_size
    padded = np.zeros((n, channels, height + 2 * padding, width + 2 * padding))
    for image, rows in zip(padded, columns, strict=True):
        for c in range(channels):
            for i, j, down, across in _taps(height, width, kernel_size, stride, padding):
                target = image[c, down, across]
                target += rows[(c * kh + i) * kw + j].reshape(target.shape)
    return padded[:, :, padding : padding + height, padding : padding + width]


def _conv2d(
    x: Array, weight: Array, bias: Array | None, stride: int, padding: int, uniform: bool
) -> Array:
    return np.array([ref.conv2d(image, weight, bias, stride, padding) for image in x])


def _conv2d_backward(
    dy: Array, x: Array, weight: Array, stride: int, padding: int, need_dx: bool
) -> tuple[Any, ...]:
    parts = [
        ref.conv2d_backward(d, image, weight, stride, padding)
        for d, image in zip(dy, x, strict=True)
    ]
    dx, dweight, dbias = zip(*parts, strict=True)
    return np.array(dx) if need_dx else None, sum(dweight), sum(dbias)


def _max_pool2d(x: Array, size: int, stride: int, ties: str) -> tuple[Array, Any]:
    y = np.array([ref.max_pool2d(image, size, stride) for image in x])
    mask = np.zeros(y.shape, np.uint8 if size * size <= 8 else np.int64)
    for cell in np.ndindex(y.shape):
        n, c, row, col = cell
        r, s = row * stride, col * stride
        bits = [
            1 << bit
            for bit, value in enumerate(x[n, c, r : r + size, s : s + size].flat)
            if value == y[cell]
        ]
        mask[cell] = bits[0] if ties == "first" else sum(bits)
    return y, mask


def _max_pool2d_backward(
    dy: Array, mask: Any, x_shape: tuple[int, ...], size: int, stride: int
) -> Array:
    dx = np.zeros(x_shape)
    for cell in np.ndindex(dy.shape):
        n, c, row, col = cell
        for bit in range(size * size):
            if int(mask[cell]) >> bit & 1:
                i, j = divmod(bit, size)
                dx[n, c, row * stride + i, col * stride + j] += dy[cell]
    return dx


def _avg_pool2d(x: Array, size: int, stride: int) -> Array:
    return np.array([ref.avg_pool2d(image, size, stride) for image in x])


def _avg_pool2d_backward(dy: Array, x_shape: tuple[int, ...], size: int, stride: int) -> Array:
    image = np.zeros(x_shape[1:])
    return np.array([ref.avg_pool2d_backward(d, image, size, stride) for d in dy])


def _softmax(logits: Array) -> Array:
    return np.array([ref.softmax(z) for z in logits])


def _probabilities(logits: Array, kind: str) -> Array:
    if kind == "squared_error":
        return logits
    return _softmax(logits) if kind == "softmax_cross_entropy" else ref.sigmoid(logits)


def _log_softmax(logits: Array) -> Array:
    return np.log(_softmax(logits))


def _one_hot(labels: Any, like: Array) -> Array:
    return np.array([ref.one_hot(label, like.shape[1]) for label in labels])


def _count_correct(logits: Array, labels: Any) -> Any:
    return np.int64(sum(z.argmax() == label for z, label in zip(logits, labels, strict=True)))


def _loss(
    logits: Array, targets: Any, kind: str, weights: Array | None = None
) -> tuple[Any, Array]:
    formula = {**ref.LOSSES, **ref.NUMBER_LOSSES}[kind]
    total, gradients = 0.0, []
    for number, (z, target) in enumerate(zip(logits, targets, strict=True)):
        loss, gradient = formula(z, target)
        weight = 1.0 if weights is None else weights[number]
        total += weight * loss
        gradients.append(weight * gradient)
    return np.float64(total / len(logits)), np.array(gradients) / len(logits)


def _update(
    weights: Array,
    grads: Array,
    rule: UpdateRule,
    lr: float,
    step: int,
    **state: Array,
) -> tuple[Array, ...]:
    """Return the weights after one step, followed by the arrays of `state`."""
    name, names = _RULES[rule.kind]
    settings = {k: v for k, v in rule.settings.items() if k not in ("decoupled", "nesterov")}
    if rule.kind == "sgd":
        del settings["momentum"]
    if rule.kind == "rmsprop":
        settings["alpha"] = settings.pop("decay")
    if rule.settings.get("nesterov"):
        name = "nesterov"
    if rule.settings.get("decoupled"):
        name = "adamw"
    past = {names[key]: array for key, array in state.items()}
    new, new_state = ref.update(
        name, {"w": weights}, {"w": grads}, {"w": past}, lr=lr, t=step, **settings
    )
    return new["w"], *(new_state["w"][names[key]] for key in state)


# For each kind of rule: the optimizer of the reference, and its names of the arrays.
_RULES: dict[str, tuple[str, dict[str, str]]] = {
    "sgd": ("sgd", {}),
    "momentum": ("momentum", {"velocity": "v"}),
    "adagrad": ("adagrad", {"square_sum": "s"}),
    "rmsprop": ("rmsprop", {"square_mean": "s"}),
    "adam": ("adam", {"mean": "m", "square_mean": "v"}),
}


def _gather_batch(images: Any, indices: Any, dtype: str, shift: float) -> Array:
    scale = 255 if images.dtype == np.uint8 else 1
    return np.array([images[index] / scale + shift for index in indices])

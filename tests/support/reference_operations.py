"""What every operation must return, by the loops of `reference`, one example at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import reference as ref
from tests.support.operation_examples import Example, windows

Array = ref.Array


def expected_results(example: Example) -> list[Any]:
    """What an example must return, or leave in the arrays that it changes, computed in float64."""
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


def _relu(x: Array) -> Array:
    return ref.relu(x)


def _relu_backward(dy: Array, y: Array) -> Array:
    return ref.relu_backward(dy, y)  # y > 0 where x > 0


def _sigmoid(x: Array) -> Array:
    return ref.sigmoid(x)


def _sigmoid_backward(dy: Array, y: Array) -> Array:
    return ref.sigmoid_backward(dy, np.log(y / (1 - y)))


def _tanh(x: Array) -> Array:
    return ref.tanh(x)


def _tanh_backward(dy: Array, y: Array) -> Array:
    return ref.tanh_backward(dy, np.arctanh(y))


def _taps(
    height: int, width: int, kernel_size: tuple[int, int], stride: int, padding: int
) -> Iterator[tuple[int, int, slice, slice]]:
    """Each tap of a patch, with the rows and columns of the padded image that it meets."""
    kh, kw = kernel_size
    oh, ow = windows(height, kh, stride, padding), windows(width, kw, stride, padding)
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
    for window in np.ndindex(y.shape):
        n, c, row, col = window
        r, s = row * stride, col * stride
        bits = [
            1 << bit
            for bit, value in enumerate(x[n, c, r : r + size, s : s + size].flat)
            if value == y[window]
        ]
        mask[window] = bits[0] if ties == "first" else sum(bits)
    return y, mask


def _max_pool2d_backward(
    dy: Array, mask: Any, x_shape: tuple[int, ...], size: int, stride: int
) -> Array:
    dx = np.zeros(x_shape)
    for window in np.ndindex(dy.shape):
        n, c, row, col = window
        for bit in range(size * size):
            if int(mask[window]) >> bit & 1:
                i, j = divmod(bit, size)
                dx[n, c, row * stride + i, col * stride + j] += dy[window]
    return dx


def _avg_pool2d(x: Array, size: int, stride: int) -> Array:
    return np.array([ref.avg_pool2d(image, size, stride) for image in x])


def _avg_pool2d_backward(dy: Array, x_shape: tuple[int, ...], size: int, stride: int) -> Array:
    image = np.zeros(x_shape[1:])
    return np.array([ref.avg_pool2d_backward(d, image, size, stride) for d in dy])


def _softmax(logits: Array) -> Array:
    return np.array([ref.softmax(z) for z in logits])


def _log_softmax(logits: Array) -> Array:
    return np.log(_softmax(logits))


def _one_hot(labels: Any, like: Array) -> Array:
    return np.array([ref.one_hot(label, like.shape[1]) for label in labels])


def _count_correct(logits: Array, labels: Any) -> Any:
    return np.int64(sum(z.argmax() == label for z, label in zip(logits, labels, strict=True)))


def _mean_loss(
    loss: Callable[[Array, int], tuple[float, Array]], logits: Array, labels: Any
) -> tuple[Any, Array]:
    parts = [loss(z, int(label)) for z, label in zip(logits, labels, strict=True)]
    values, gradients = zip(*parts, strict=True)
    return np.float64(sum(values) / len(parts)), np.array(gradients) / len(parts)


def _softmax_cross_entropy(logits: Array, labels: Any) -> tuple[Any, Array]:
    return _mean_loss(ref.softmax_cross_entropy, logits, labels)


def _sigmoid_binary_cross_entropy(logits: Array, labels: Any) -> tuple[Any, Array]:
    return _mean_loss(ref.binary_cross_entropy, logits, labels)


def _sigmoid_quadratic(logits: Array, labels: Any) -> tuple[Any, Array]:
    return _mean_loss(ref.quadratic, logits, labels)


def _updated(
    optimizer: str, weights: Array, grads: Array, state: dict[str, Array], **settings: float
) -> tuple[Array, ...]:
    """The weights after one step, followed by the arrays of `state`, which is keyed as in ref."""
    start = {f"{key} w": array for key, array in state.items() if key != "t"}
    if "t" in state:
        start["t"] = state["t"]
    new, new_state = ref.OPTIMIZERS[optimizer]({"w": weights}, {"w": grads}, start, **settings)
    return new["w"], *(new_state[f"{key} w"] for key in state if key != "t")


def _sgd_update(weights: Array, grads: Array, **settings: float) -> tuple[Array, ...]:
    return _updated("sgd", weights, grads, {}, **settings)


def _momentum_update(
    weights: Array, grads: Array, velocity: Array, nesterov: bool, **settings: float
) -> tuple[Array, ...]:
    optimizer = "nesterov" if nesterov else "momentum"
    return _updated(optimizer, weights, grads, {"v": velocity}, **settings)


def _adagrad_update(
    weights: Array, grads: Array, square_sum: Array, **settings: float
) -> tuple[Array, ...]:
    return _updated("adagrad", weights, grads, {"s": square_sum}, **settings)


def _rmsprop_update(
    weights: Array, grads: Array, square_mean: Array, decay: float, **settings: float
) -> tuple[Array, ...]:
    return _updated("rmsprop", weights, grads, {"s": square_mean}, alpha=decay, **settings)


def _adam_update(
    weights: Array,
    grads: Array,
    mean: Array,
    square_mean: Array,
    decoupled: bool,
    step: int,
    **settings: float,
) -> tuple[Array, ...]:
    state = {"m": mean, "v": square_mean, "t": np.array(step - 1.0)}
    return _updated("adamw" if decoupled else "adam", weights, grads, state, **settings)


def _gather_batch(images: Any, indices: Any, dtype: str, shift: float) -> Array:
    scale = 255 if images.dtype == np.uint8 else 1
    return np.array([images[index] / scale + shift for index in indices])

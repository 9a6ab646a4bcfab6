"""JAX: the project's networks as functions, and a training that is one compiled scan.

Imported by `jax_peer` once JAX is known to be there. Figures in comments are of a step on one core
(AMD EPYC, AVX2) with JAX 0.10.
"""

import importlib
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import (
    HostArray,
    HostArrays,
    InferenceSession,
    TrainingSession,
    TrainingTask,
)
from mnist_accel.nn import (
    SGD,
    Activation,
    Adam,
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    Network,
    UpdateRule,
)

# Of no type, so that types are checked alike where JAX is missing.
jax: Any = importlib.import_module("jax")
jnp: Any = importlib.import_module("jax.numpy")
lax = jax.lax
Array: TypeAlias = Any
Parameters: TypeAlias = dict[str, Array]

# On a GPU, JAX would multiply in TF32. Once for all: a setting for a stretch of code takes time.
jax.config.update("jax_default_matmul_precision", "highest")


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """Return x·weight + bias."""
    y = x @ weight
    return y if bias is None else y + bias


def conv2d(
    x: Array, weight: Array, bias: Array | None, *, stride: int = 1, padding: int = 0
) -> Array:
    """Convolve; on a CPU as one matrix product with all patches, elsewhere as XLA does.

    XLA's own convolutions are slow on a CPU, the more so with images of several channels: lenet at
    1 takes 0.3 ms instead of 0.8, lenet at 64 19 instead of 46; cnn takes the same either way.
    Channels last took longer still: cnn at 64 9.2 ms instead of 7.1, lenet at 64 55 instead of 49.
    """
    if jax.default_backend() == "cpu":
        padded = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        pixels = jnp.stack(_window_positions(padded, weight.shape[2], stride))
        taps, count, channels, height, width = pixels.shape
        patches = pixels.transpose(2, 0, 1, 3, 4).reshape(channels * taps, -1)
        maps = (weight.reshape(len(weight), -1) @ patches).reshape(-1, count, height, width)
        y = maps.transpose(1, 0, 2, 3)
    else:
        y = lax.conv_general_dilated(
            x,
            weight,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
    return y if bias is None else y + bias[:, None, None]


def max_pool2d(x: Array, *, size: int, stride: int) -> Array:
    """Return the largest of each window; its gradient goes to the first of several.

    On a CPU, comparing strided slices is faster than `lax.reduce_window`, whose gradient XLA
    scatters serially: cnn at 64 takes 5.7 ms instead of 7.1, at 512 52 instead of 115.
    """
    if jax.default_backend() != "cpu":
        shape, step = (1, 1, size, size), (1, 1, stride, stride)
        return lax.reduce_window(x, -jnp.inf, lax.max, shape, step, "VALID")
    first, *others = _window_positions(x, size, stride)
    for other in others:
        first = jnp.where(other > first, other, first)
    return first


def avg_pool2d(x: Array, *, size: int, stride: int) -> Array:
    """Return the mean of each window."""
    return sum(_window_positions(x, size, stride)) / size**2


def _window_positions(x: Array, size: int, stride: int) -> list[Array]:
    """Return the pixel that each window has at its first position, at its second, and so on."""
    rows, columns = ((length - size) // stride + 1 for length in x.shape[2:])
    return [
        x[
            :,
            :,
            i : i + stride * (rows - 1) + 1 : stride,
            j : j + stride * (columns - 1) + 1 : stride,
        ]
        for i in range(size)
        for j in range(size)
    ]


def _apply(layer: Layer, parameters: Sequence[Array], x: Array) -> Array:
    match layer:
        case Linear():
            return linear(x, parameters[0], parameters[1] if layer.bias else None)
        case Conv2d(stride=stride, padding=padding):
            bias = parameters[1] if layer.bias else None
            return conv2d(x, parameters[0], bias, stride=stride, padding=padding)
        case MaxPool2d(size=size):
            return max_pool2d(x, size=size, stride=layer.effective_stride)
        case AvgPool2d(size=size):
            return avg_pool2d(x, size=size, stride=layer.effective_stride)
        case Activation(kind="relu"):
            return jax.nn.relu(x)
        case Activation(kind="sigmoid"):
            return jax.nn.sigmoid(x)
        case Activation(kind="tanh"):
            return jnp.tanh(x)
        case Flatten():
            return x.reshape(len(x), -1)
    raise ValueError(f"no function stands for a layer of kind {layer.kind!r}")


def logits_function(model: Network) -> Callable[[Parameters, Array], Array]:
    """Return the function of (parameters, images) that the network computes."""
    plan, shape, number = [], model.input_shape, 0
    for layer in model.layers:
        names = layer.parameter_shapes(shape)
        number += bool(names)
        plan.append((layer, [f"{name}{number}" for name in names]))
        shape = layer.output_shape(shape)

    def logits(parameters: Parameters, x: Array) -> Array:
        for layer, names in plan:
            x = _apply(layer, [parameters[name] for name in names], x)
        return x

    return logits


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the mean of −log softmax at the labels."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean()


def _mean_loss(loss: Loss, logits: Array, labels: Array) -> Array:
    if loss.kind == "softmax_cross_entropy":
        return softmax_cross_entropy(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[1])
    match loss.kind:
        case "binary_cross_entropy":
            return (jax.nn.softplus(logits) - logits * targets).sum() / len(logits)
        case "quadratic":
            return jnp.square(jax.nn.sigmoid(logits) - targets).sum() / (2 * len(logits))
    raise ValueError(f"no function stands for the loss {loss.kind!r}")


def sgd(optimizer: SGD, parameters: Any, gradients: Any, state: Any, step: Array) -> Any:
    """Return parameters and velocities after a step along the gradients, trees of one form."""
    gradients = _decayed(optimizer, parameters, gradients)
    if optimizer.momentum:
        state = [jax.tree.map(lambda v, g: optimizer.momentum * v + g, state[0], gradients)]
        if optimizer.nesterov:
            gradients = jax.tree.map(lambda g, v: g + optimizer.momentum * v, gradients, state[0])
        else:
            gradients = state[0]
    return jax.tree.map(lambda w, g: w - optimizer.lr * g, parameters, gradients), state


def adam(optimizer: Adam, parameters: Any, gradients: Any, state: Any, step: Array) -> Any:
    """Return parameters and [means, means of squares] after step number `step`, from 1."""
    if optimizer.decoupled:
        shrink = 1 - optimizer.lr * optimizer.weight_decay
        parameters = jax.tree.map(lambda w: w * shrink, parameters)
    else:
        gradients = _decayed(optimizer, parameters, gradients)
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    means = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state[0], gradients)
    squares = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state[1], gradients)
    size = optimizer.lr / _bias_correction(beta1, step)
    correction = 1 / jnp.sqrt(_bias_correction(beta2, step))

    def move(w: Array, m: Array, v: Array) -> Array:
        return w - size * m / (jnp.sqrt(v) * correction + optimizer.eps)

    return jax.tree.map(move, parameters, means, squares), [means, squares]


def _bias_correction(beta: float, step: Array) -> Array:
    """Return 1 − betaˢᵗᵉᵖ; written so, float32 loses nothing where it is small."""
    return -jnp.expm1(step * math.log(beta)) if beta else 1.0


def _decayed(optimizer: UpdateRule, parameters: Any, gradients: Any) -> Any:
    if not optimizer.weight_decay:
        return gradients
    return jax.tree.map(lambda g, w: g + optimizer.weight_decay * w, gradients, parameters)


UPDATES: dict[type[UpdateRule], Callable[..., Any]] = {SGD: sgd, Adam: adam}


class ScannedTraining(TrainingSession):
    """An epoch in one call: the permutation, a scan over its batches, and the smaller last one.

    A step at a time, called from Python, backprop at 10 takes 270 µs instead of 55.
    """

    def __init__(self, task: TrainingTask) -> None:
        self._task = task
        model = task.model
        self._logits = logits_function(model)
        pixels = task.images.astype(np.float32) / 255 + np.float32(model.pixel_shift)
        started = time.perf_counter()
        self._data = jax.block_until_ready(
            (
                jax.device_put(pixels.reshape(-1, *model.input_shape)),
                jax.device_put(task.labels.astype(np.int32)),  # JAX has no int64 by default
            )
        )
        self.transfer_s = time.perf_counter() - started
        self._key = jax.random.key(task.seed)
        self._state: Any = None
        self.reset()
        self._updates = jax.jit(self._train, donate_argnums=0)
        self._gradients = jax.jit(jax.value_and_grad(self._mean_loss))
        self._predict = jax.jit(lambda *inputs: self._logits(*inputs).argmax(1))
        self._run: Any = None

    def compile(self) -> None:
        """Compile an epoch."""
        started = time.perf_counter()
        epoch = jax.jit(self._epoch, donate_argnums=(0, 1))
        self._run = epoch.lower(self._state, self._key, self._data).compile()
        self.compile_s = time.perf_counter() - started

    def run(self) -> None:
        """Train an epoch."""
        if self._run is None:
            self.compile()
        self._state, self._key, losses = self._run(self._state, self._key, self._data)
        jax.block_until_ready((self._state, losses))

    def reset(self) -> None:
        """Put the weights of the task on the device, and zeros for the optimizer."""
        parameters = jax.device_put(self._task.model.state_dict())
        names = self._task.optimizer.state_names
        state = [jax.tree.map(jnp.zeros_like, parameters) for _ in names]
        self._state = jax.block_until_ready((parameters, state, jnp.zeros((), np.int32)))

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Differentiate the loss."""
        images, labels = self._data
        _, gradients = self._gradients(self._state[0], images[rows], labels[rows])
        return _on_host(gradients)

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Scan over the batches."""
        self._state, losses = self._updates(self._state, self._data, jnp.asarray(batches))
        return [float(loss) for loss in losses]

    def weights(self) -> HostArrays:
        """Return the parameters."""
        return _on_host(self._state[0])

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the class of the largest logit."""
        model = self._task.model
        pixels = images.astype(np.float32) / 255 + np.float32(model.pixel_shift)
        classes = self._predict(self._state[0], pixels.reshape(-1, *model.input_shape))
        return np.asarray(classes, np.int64)

    def _mean_loss(self, parameters: Parameters, images: Array, labels: Array) -> Array:
        return _mean_loss(self._task.model.loss, self._logits(parameters, images), labels)

    def _step(self, data: tuple[Array, Array], state: Any, rows: Array) -> tuple[Any, Array]:
        """Make an update on the images in these rows."""
        images, labels = data
        if not self._task.takes_all:  # gathering the epoch beforehand was no faster
            images, labels = (
                array.at[rows].get(mode="promise_in_bounds", unique_indices=True) for array in data
            )
        parameters, moments, steps = state
        loss, gradients = jax.value_and_grad(self._mean_loss)(parameters, images, labels)
        optimizer = self._task.optimizer
        update = UPDATES[type(optimizer)]
        parameters, moments = update(optimizer, parameters, gradients, moments, steps + 1)
        return (parameters, moments, steps + 1), loss

    def _train(self, state: Any, data: tuple[Array, Array], order: Array) -> tuple[Any, Array]:
        """Make an update on each row of the order (steps, batch); return the losses, too."""
        return lax.scan(partial(self._step, data), state, order)  # type: ignore[no-any-return]

    def _epoch(self, state: Any, key: Array, data: tuple[Array, Array]) -> tuple[Any, Array, Any]:
        key, draw = jax.random.split(key)
        count, batch = len(self._task.images), self._task.batch_size
        order = jnp.arange(count) if self._task.takes_all else jax.random.permutation(draw, count)
        whole = count // batch * batch
        state, losses = self._train(state, data, order[:whole].reshape(-1, batch))
        if whole == count:
            return state, key, (losses,)
        state, last = self._train(state, data, order[None, whole:])
        return state, key, (losses, last)


def prepare_inference(model: Network) -> InferenceSession:
    """Return predictions of the network, compiled when a batch size comes first."""
    logits = logits_function(model)
    activation = jax.nn.softmax if model.loss.kind == "softmax_cross_entropy" else jax.nn.sigmoid
    parameters = jax.device_put(model.state_dict())

    @jax.jit  # type: ignore[untyped-decorator]
    def compute(parameters: Parameters, pixels: Array) -> Array:
        x = (pixels + model.pixel_shift).reshape(-1, *model.input_shape)
        return activation(logits(parameters, x))

    def predict(images: NDArray[np.float32]) -> HostArray:
        return np.asarray(compute(parameters, images))

    return predict


def _on_host(parameters: Parameters) -> HostArrays:
    return {name: np.asarray(array) for name, array in parameters.items()}

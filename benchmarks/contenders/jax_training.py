"""JAX: a training whose epoch is one compiled scan, and predictions.

Timings in comments are per step on one core (AMD EPYC, AVX2) with JAX 0.10.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from numpy.typing import NDArray

from benchmarks.contenders.base import (
    HostArray,
    HostArrays,
    InferenceSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.jax_networks import (
    UPDATES,
    Array,
    Parameters,
    logits_function,
    mean_loss,
)
from mnist_accel.nn import Network


class ScannedTraining(TrainingSession):
    """An epoch in one call: the permutation, a scan over its batches, and a smaller last batch.

    With one call per step from Python, a step of backprop with batches of 10 takes 270 µs instead
    of 55 µs.
    """

    def __init__(self, task: TrainingTask) -> None:
        self._task = task
        model = task.model
        self._logits = logits_function(model)
        self._convert = jax.jit(partial(network_input, model))
        started = time.perf_counter()
        self._load()
        self.transfer_s = time.perf_counter() - started
        self._key = jax.random.key(task.seed)
        self._state: Any = None
        self.reset()
        self._updates = jax.jit(self._train, donate_argnums=0)
        self._one_step = jax.jit(
            lambda state, data, rows: self._step(data, state, rows), donate_argnums=0
        )
        self._batches: list[NDArray[np.int64]] = []
        self._epochs = 0
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
        """Train one epoch."""
        if self._run is None:
            self.compile()
        self._state, self._key, losses = self._run(self._state, self._key, self._data)
        jax.block_until_ready((self._state, losses))

    def run_from_arrays(self) -> None:
        """Copy the arrays to the device, convert them there, and train one epoch."""
        self._load()
        self.run()

    def step(self) -> None:
        """Make one update with a compiled step."""
        if not self._batches:
            order = np.random.default_rng(self._epochs).permutation(len(self._task.images))
            self._epochs += 1
            last = order.size // self._task.batch_size * self._task.batch_size
            self._batches = list(order[:last].reshape(-1, self._task.batch_size))
        rows = jnp.asarray(self._batches.pop())
        self._state, loss = self._one_step(self._state, self._data, rows)
        jax.block_until_ready((self._state, loss))

    def _load(self) -> None:
        images, labels = self._task.images, self._task.labels.astype(np.int32)
        # JAX has no int64 by default.
        self._data = jax.block_until_ready((self._convert(images), jax.device_put(labels)))

    def reset(self) -> None:
        """Put the weights of the task, and zeros for the optimizer state, on the device."""
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
        classes = self._predict(self._state[0], self._task.pixels(images))
        return np.asarray(classes, np.int64)

    def _mean_loss(self, parameters: Parameters, images: Array, labels: Array) -> Array:
        return mean_loss(self._task.model.loss, self._logits(parameters, images), labels)

    def _step(self, data: tuple[Array, Array], state: Any, rows: Array) -> tuple[Any, Array]:
        """Make an update on the images in these rows."""
        images, labels = data
        if not self._task.is_full_batch:  # gathering the whole epoch at once was not faster
            images, labels = (
                array.at[rows].get(mode="promise_in_bounds", unique_indices=True) for array in data
            )
        parameters, moments, steps = state
        loss, gradients = jax.value_and_grad(self._mean_loss)(parameters, images, labels)
        optimizer = self._task.optimizer
        update = UPDATES[type(optimizer)]
        parameters, moments = update(
            optimizer, parameters, gradients, moments, steps + 1, optimizer.lr
        )
        return (parameters, moments, steps + 1), loss

    def _train(self, state: Any, data: tuple[Array, Array], order: Array) -> tuple[Any, Array]:
        """Make an update on each row of `order` (steps, batch); return the state and the losses."""
        return lax.scan(partial(self._step, data), state, order)  # type: ignore[no-any-return]

    def _epoch(self, state: Any, key: Array, data: tuple[Array, Array]) -> tuple[Any, Array, Any]:
        key, draw = jax.random.split(key)
        count, batch = len(self._task.images), self._task.batch_size
        order = (
            jnp.arange(count) if self._task.is_full_batch else jax.random.permutation(draw, count)
        )
        whole = count // batch * batch
        state, losses = self._train(state, data, order[:whole].reshape(-1, batch))
        if whole == count:
            return state, key, (losses,)
        state, last = self._train(state, data, order[None, whole:])
        return state, key, (losses, last)


def network_input(model: Network, images: Array) -> Array:
    """Return host images (N, pixels) as the float32 input of the network (N, *input_shape)."""
    scale = 255 if images.dtype == jnp.uint8 else 1
    pixels = images.astype(jnp.float32) / scale + model.pixel_shift
    return pixels.reshape(-1, *model.input_shape)


def prepare_inference(model: Network) -> InferenceSession:
    """Return the function that predicts with the network; compiled once per batch size."""
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

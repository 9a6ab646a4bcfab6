"""JAX: networks that are trained together by `jax.vmap`, each epoch in one compiled scan."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from numpy.typing import NDArray

from benchmarks.contenders.base import HostArrays, PopulationSession, TrainingTask
from benchmarks.contenders.jax_networks import UPDATES, Array, logits_function, mean_loss
from benchmarks.contenders.jax_training import network_input


class VmappedTraining(PopulationSession):
    """`jit(vmap(scan))` over the initial weights, learning rates and image orders.

    The images are shared. Each step gathers the batch of each network.
    """

    def __init__(self, members: Sequence[TrainingTask]) -> None:
        self._task = task = members[0]
        self._logits = logits_function(task.model)
        images = jax.jit(partial(network_input, task.model))(task.images)
        self._data = (images, jax.device_put(task.labels.astype(np.int32)))
        states = [member.model.state_dict() for member in members]
        self._start = {name: jnp.stack([one[name] for one in states]) for name in states[0]}
        self._rates = jnp.array([member.optimizer.lr for member in members], jnp.float32)
        self._keys = jax.vmap(jax.random.key)(jnp.array([member.seed for member in members]))
        self._trained = self._start
        self._run: Any = None
        over_members = partial(jax.vmap, in_axes=(0, 0, 0, None))
        self._updates = jax.jit(over_members(self._train))
        self._epochs = jax.jit(over_members(self._epoch))

    def compile(self) -> None:
        """Compile an epoch."""
        inputs = (self._start, self._rates, self._keys, self._data)
        self._run = self._epochs.lower(*inputs).compile()

    def run(self) -> None:
        """Train all networks for one epoch."""
        if self._run is None:
            self.compile()
        self._trained, losses = self._run(self._start, self._rates, self._keys, self._data)
        jax.block_until_ready((self._trained, losses))

    def updates(self, batches: NDArray[np.int64]) -> NDArray[Any]:
        """Scan over the batches."""
        order = jnp.asarray(batches)
        self._trained, losses = self._updates(self._start, self._rates, order, self._data)
        return np.asarray(losses)

    def weights(self, member: int) -> HostArrays:
        """Return the parameters of a network."""
        return {name: np.asarray(array[member]) for name, array in self._trained.items()}

    def _epoch(self, start: Any, rate: Array, key: Array, data: Any) -> tuple[Any, Array]:
        """Train one network on a permutation of the images."""
        order = jax.random.permutation(key, len(self._task.images))
        return self._train(start, rate, order.reshape(-1, self._task.batch_size), data)

    def _train(self, start: Any, rate: Array, order: Array, data: Any) -> tuple[Any, Array]:
        """Make an update of one network for each row of `order` (steps, batch)."""
        optimizer, loss_kind = self._task.optimizer, self._task.model.loss
        images, labels = data

        def loss_of(parameters: Any, rows: Array) -> Array:
            # Rows are permuted, so they are different and within the bounds.
            x, targets = (
                array.at[rows].get(mode="promise_in_bounds", unique_indices=True)
                for array in (images, labels)
            )
            return mean_loss(loss_kind, self._logits(parameters, x), targets)

        def step(state: Any, rows: Array) -> tuple[Any, Array]:
            parameters, moments, steps = state
            loss, gradients = jax.value_and_grad(loss_of)(parameters, rows)
            update = UPDATES[type(optimizer)]
            parameters, moments = update(optimizer, parameters, gradients, moments, steps + 1, rate)
            return (parameters, moments, steps + 1), loss

        moments = [jax.tree.map(jnp.zeros_like, start) for _ in optimizer.state_names]
        (trained, _, _), losses = lax.scan(step, (start, moments, jnp.zeros((), jnp.int32)), order)
        return trained, losses

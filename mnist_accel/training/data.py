"""A data set in the forms in which a network trains on it."""

from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends import Array, CompiledEpoch
from mnist_accel.data.arrays import as_weights
from mnist_accel.nn.network import Network


class Batch(NamedTuple):
    """Some examples, as arrays of the backend.

    Attributes:
        x: inputs of the first layer, (B, *input_shape).
        targets: class indices (B,), or numbers (B, outputs) with the loss "squared_error".
        weights: factor of the loss of each example (B,); None for 1.
    """

    x: Array
    targets: Array
    weights: Array | None


class TrainingData:
    """Images with their labels, copied to the device once when they are first used there.

    Pixels that are uint8 stay uint8 until their batch is used.

    Args:
        model: the network that trains.
        images: host array in any form `load_mnist` returns, or features.
        labels: integers (N,) or one-hot rows; see `Network.as_examples`.
        sample_weight: factor of the loss of each example (N,); None for 1.
        check: whether to check the values of the images; see `Network.as_examples`.

    Raises:
        ValueError, TypeError: as `Network.as_examples`, or the weights are invalid.
    """

    def __init__(
        self,
        model: Network,
        images: NDArray[Any],
        labels: NDArray[Any],
        sample_weight: NDArray[Any] | None = None,
        *,
        check: bool = True,
    ) -> None:
        self.model = model
        self._rows, self._targets = model.as_examples(images, labels, check=check)
        self._weights = sample_weight
        if sample_weight is not None:
            self._weights = as_weights(sample_weight, examples=len(self._rows), dtype=model.dtype)
        self._compiled: tuple[CompiledEpoch, Any] | None = None

    def share(self, model: Network, epoch: CompiledEpoch | None) -> "TrainingData":
        """Return the same data set for another network, without preparing the images again.

        Args:
            model: a network with the same dtype and the same kind of first layer.
            epoch: its compiled steps; None if they run eagerly.
        """
        other = copy(self)
        other.model = model
        if self._compiled is not None and epoch is not None:
            other._compiled = epoch, epoch.share(self._compiled[1])
        return other

    @property
    def examples(self) -> int:
        """Number of images."""
        return len(self._rows)

    @property
    def is_weighted(self) -> bool:
        """Whether the examples have weights."""
        return self._weights is not None

    def for_epoch(self, epoch: CompiledEpoch) -> Any:
        """Return the data set as `epoch.load` returns it; only the first call loads it."""
        if self._compiled is None or self._compiled[0] is not epoch:
            weights = () if self._weights is None else (self._weights,)
            self._compiled = epoch, epoch.load(self._rows, self._targets, *weights)
        return self._compiled[1]

    def batch(self, rows: Array) -> Batch:
        """Return the examples of `rows` (B,), an array of the backend."""
        return self._gather(*self._on_device, rows)

    @cached_property
    def whole(self) -> Batch:
        """All examples in their order, for full-batch training."""
        # `_on_device` is not used here, because it would keep a second copy of the images.
        return self._gather(*self._copies(), self.model.backend.asarray(np.arange(self.examples)))

    @cached_property
    def _on_device(self) -> Batch:
        """All examples as arrays of the backend."""
        return self._copies()

    def _copies(self) -> Batch:
        asarray = self.model.backend.asarray
        weights = None if self._weights is None else asarray(self._weights)
        return Batch(asarray(self._rows), asarray(self._targets), weights)

    def _gather(self, images: Array, labels: Array, weights: Array | None, rows: Array) -> Batch:
        take = self.model.backend.xp.take
        return Batch(
            self.model.gather(images, rows),
            take(labels, rows, axis=0),
            None if weights is None else take(weights, rows, axis=0),
        )

"""A data set in the forms in which a network trains on it."""

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Array, CompiledEpoch
from mnist_accel.nn.network import Network


class TrainingData:
    """Images with their labels, copied to the device once when they are first used there.

    Pixels that are uint8 stay uint8 until their batch is used.

    Args:
        model: the network that trains.
        images: host array in any form `load_mnist` returns.
        labels: integers (N,) or one-hot rows.

    Raises:
        ValueError, TypeError: as `Network.as_examples`.
    """

    def __init__(self, model: Network, images: NDArray[Any], labels: NDArray[Any]) -> None:
        self.model = model
        self._pixels, self._indices = model.as_examples(images, labels)
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
        return len(self._pixels)

    def for_epoch(self, epoch: CompiledEpoch) -> Any:
        """Return the data set as `epoch.load` returns it; only the first call loads it."""
        if self._compiled is None or self._compiled[0] is not epoch:
            self._compiled = epoch, epoch.load(self._pixels, self._indices)
        return self._compiled[1]

    def batch(self, rows: Array) -> tuple[Array, Array]:
        """Return the inputs and labels of `rows` (B,), an array of the backend."""
        return self._gather(*self._on_device, rows)

    @cached_property
    def whole(self) -> tuple[Array, Array]:
        """All inputs and labels in their order, for full-batch training."""
        # `_on_device` is not used here, because it would keep a second copy of the images.
        return self._gather(*self._copies(), self.model.backend.asarray(np.arange(self.examples)))

    @cached_property
    def _on_device(self) -> tuple[Array, Array]:
        """All images and labels as arrays of the backend."""
        return self._copies()

    def _copies(self) -> tuple[Array, Array]:
        backend = self.model.backend
        return backend.asarray(self._pixels), backend.asarray(self._indices)

    def _gather(self, images: Array, labels: Array, rows: Array) -> tuple[Array, Array]:
        return self.model.gather(images, rows), self.model.backend.xp.take(labels, rows, axis=0)

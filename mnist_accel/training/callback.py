"""The base class of callbacks, and checks of callbacks."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backends import require_type, shown
from mnist_accel.training.progress import EpochReport, StepsReport

if TYPE_CHECKING:
    from mnist_accel.training.trainer import Trainer


class Callback:
    """Base class of callbacks. `Trainer.fit` calls their methods between chunks of steps.

    Attributes:
        every: a chunk ends at every multiple of this number of steps; None for no such limit.
        epochs_at_once: maximum number of epochs to which the steps of a chunk belong; None for no
            limit. `on_epoch` is called after the chunk, for each epoch that it completed. So the
            weights are those at the end of the epoch only if this is 1, the default. It is read
            before each chunk.
    """

    every: int | None = None
    epochs_at_once: float | None = 1

    def on_steps(self, trainer: "Trainer", report: StepsReport) -> None:
        """Called after every chunk of steps."""

    def on_epoch(self, trainer: "Trainer", report: EpochReport) -> None:
        """Called after every complete epoch, and if `fit` reaches its last step within an epoch.

        Not called if a request to stop ends `fit` within an epoch.
        """


def checked_callbacks(callbacks: Sequence[Callback]) -> Sequence[Callback]:
    """Return the callbacks.

    Raises:
        TypeError: they are not a list, or one of them is not a callback.
    """
    require_type("callbacks", callbacks, Sequence, "a list of Callback objects")
    for callback in callbacks:
        if not all(hasattr(callback, name) for name in ("every", "on_steps", "on_epoch")):
            raise TypeError(f"callbacks must be a list of Callback objects, got {shown(callback)}")
    return callbacks


def epochs_at_once(callbacks: Sequence[Callback]) -> float:
    """Return the maximum number of epochs to which the steps of a chunk belong.

    Raises:
        ValueError: the limit of a callback is below 1.
    """
    # An object in place of a `Callback` need not have this attribute.
    least = math.inf
    for callback in callbacks:
        limit = getattr(callback, "epochs_at_once", 1)
        if limit is not None:
            if not limit >= 1:
                raise ValueError(f"epochs_at_once must be at least 1, or None, got {shown(limit)}")
            least = min(least, limit)
    return least

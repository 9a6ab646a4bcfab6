"""The base class of callbacks."""

from typing import TYPE_CHECKING

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

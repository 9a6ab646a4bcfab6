"""What a training reports: about a chunk of steps, about an epoch, and in the end."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepsReport:
    """Results of a chunk of steps.

    Attributes:
        first_step: number of its first step, counted from 1 over the whole training.
        losses: mean loss of each step's batch, before its update (steps,).
        correct: number of correct images in each batch, before its update (steps,).
        images: number of images in each batch (steps,).
        seconds: wall-clock time of the chunk.
    """

    first_step: int
    losses: NDArray[np.float64]
    correct: NDArray[np.int64]
    images: NDArray[np.int64]
    seconds: float

    @property
    def last_step(self) -> int:
        """Number of its last step."""
        return self.first_step + len(self.losses) - 1


@dataclass(frozen=True)
class EpochReport:
    """Results of an epoch.

    Attributes:
        epoch: number of the epoch, counted from 1.
        step: number of its last step, counted from 1 over the whole training.
        train_loss: mean loss over the epoch's images, each computed before the update on its batch.
        train_accuracy: fraction of correct images in 0…1, computed at the same time.
        images_per_s: number of images divided by the time of the steps.
        validation_loss: mean loss on the validation data; None if they were not evaluated.
        validation_accuracy: fraction of correct validation images in 0…1, or None.
        validation_correct: number of correct validation images, or None.
        validation_total: number of validation images, or None.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    images_per_s: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_correct: int | None = None
    validation_total: int | None = None


@dataclass
class History:
    """The result of `Trainer.fit`.

    Attributes:
        losses: loss of every step, before its update.
        epochs: a report for every epoch; the last epoch may be incomplete.
        stop_reason: why training stopped early; empty if it did not.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[EpochReport] = field(default_factory=list)
    stop_reason: str = ""

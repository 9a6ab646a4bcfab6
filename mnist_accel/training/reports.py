"""What training tells of itself while it runs, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mnist_accel.training.trainer import Trainer


@dataclass(frozen=True)
class StepsReport:
    """What a chunk of steps did.

    Attributes:
        first_step: number of its first step, counted from 1 over the whole training.
        losses: mean loss of each step's batch, before its update (steps,).
        correct: images of each batch that were recognised, before its update (steps,).
        images: size of each batch (steps,).
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
    """What an epoch did.

    Attributes:
        epoch: number of the epoch, counted from 1.
        step: number of its last step, counted from 1 over the whole training.
        train_loss: mean over the epoch's images, each as it was when its batch was trained on.
        train_accuracy: part recognised, 0…1, counted in the same way.
        images_per_s: images trained on, over the time that their steps took.
        validation_loss: mean loss on the validation data; None where it was not evaluated.
        validation_accuracy: part recognised, 0…1; None where it was not evaluated.
        validation_correct: number recognised; None where it was not evaluated.
        validation_total: number of validation images; None where it was not evaluated.
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
    """What `Trainer.fit` returns.

    Attributes:
        losses: loss of every step, before its update.
        epochs: a report for every epoch; the last may be of an epoch cut short.
        stop_reason: why training ended before its time; empty where it did not.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[EpochReport] = field(default_factory=list)
    stop_reason: str = ""


class Callback:
    """Something that wants a word between chunks of steps.

    Attributes:
        every: a chunk ends at every multiple of this many steps; None where it does not matter.
    """

    every: int | None = None

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Hear of a chunk that was trained."""

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Hear of an epoch that ended."""

"""The position in a training, and the results of a chunk, of an epoch and of the whole training."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.data.batches import Sampling
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.schema import Amount, Count, Finite
from mnist_accel.util.text import count


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
        train_accuracy: fraction of correct images in 0…1, computed at the same time; None if the
            targets are numbers.
        images_per_s: number of images divided by the time of the steps.
        validation_loss: mean loss on the validation data; None if they were not evaluated.
        validation_accuracy: fraction of correct validation images in 0…1, or None.
        validation_correct: number of correct validation images, or None.
        validation_total: number of validation images, or None.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float | None
    images_per_s: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_correct: int | None = None
    validation_total: int | None = None

    def describe(self, validation_name: str = "validation") -> str:
        """Return loss and accuracies in one line of at most 80 characters.

        Args:
            validation_name: what the validation data are called.
        """
        parts = [f"loss {self.train_loss:.4f}"]
        if self.train_accuracy is not None:
            parts.append(f"train accuracy {self.train_accuracy:.2%}")
        if self.validation_accuracy is not None:
            parts.append(f"{validation_name} accuracy {self.validation_accuracy:.2%}")
        elif self.validation_loss is not None:
            parts.append(f"{validation_name} loss {self.validation_loss:.4f}")
        return f"epoch {self.epoch}: {', '.join(parts)}"


@dataclass(repr=False)
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

    def __repr__(self) -> str:
        parts = [count(len(self.losses), "step")]
        parts += [self.epochs[-1].describe()] if self.epochs else []
        parts += [f"stopped: {self.stop_reason}"] if self.stop_reason else []
        return f"<History of {'; '.join(parts)}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the history as lists and numbers, for JSON or a data frame.

        `pandas.DataFrame(history.to_dict()["epochs"])` has a row for each epoch.
        """
        return asdict(self)


@dataclass
class Progress:
    """The position in a training.

    A training can be resumed from this position, the weights and the optimizer's arrays. The types
    of the attributes are the types that a checkpoint file must contain.

    Attributes:
        step: updates done.
        epoch: epochs completed.
        epoch_step: updates done in the epoch in progress.
        epoch_images: images of these updates.
        epoch_loss: sum of the losses of these images.
        epoch_correct: number of these images that were correct.
        epoch_seconds: time of these updates.
    """

    step: Count = 0
    epoch: Count = 0
    epoch_step: Count = 0
    epoch_images: Count = 0
    epoch_loss: Finite = 0.0
    epoch_correct: Count = 0
    epoch_seconds: Amount = 0.0

    def check(self, *, batch_size: int, sampling: Sampling) -> None:
        """Check that the numbers, which may come from a file, do not contradict each other.

        Raises:
            ValueError: no training with these batches can have this position.
        """
        steps, images = self.epoch_step, self.epoch_images
        totals = (images, self.epoch_loss, self.epoch_correct, self.epoch_seconds)
        if self.step < self.epoch + steps:
            raise ValueError(
                f"{self.step} steps are too few for {self.epoch} epochs and {steps} further steps"
            )
        if steps == 0 and any(totals):
            raise ValueError("the epoch in progress has no steps, but images or results")
        # The last batch of an epoch may be smaller.
        fits = (steps - 1) * batch_size < images <= steps * batch_size
        if steps and sampling != "full" and not fits:
            raise ValueError(f"batch_size is {batch_size}, but {steps} steps used {images} images")
        if self.epoch_correct > images:
            raise ValueError(f"{self.epoch_correct} of {images} images cannot be correct")

    def after(
        self, report: StepsReport, steps_per_epoch: int
    ) -> tuple["Progress", list[EpochReport]]:
        """Return the position after a chunk, and the results of epochs that ended within it."""
        progress, ended = self, []
        left = len(report.losses)
        step_seconds = report.seconds / left
        for loss, images, correct in self._epoch_sums(report, steps_per_epoch):
            if progress.epoch_step == steps_per_epoch:
                ended.append(progress.epoch_report())
                progress = progress.next_epoch()
            steps = min(left, steps_per_epoch - progress.epoch_step)
            left -= steps
            progress = Progress(
                step=progress.step + steps,
                epoch=progress.epoch,
                epoch_step=progress.epoch_step + steps,
                epoch_images=int(images),
                epoch_loss=loss,
                epoch_correct=int(correct),
                epoch_seconds=progress.epoch_seconds + steps * step_seconds,
            )
        return progress, ended

    def _epoch_sums(self, report: StepsReport, steps_per_epoch: int) -> list[list[float]]:
        """Return the sums of losses, images and correct images of each epoch of a chunk.

        The losses are added one after the other, so that their sum does not depend on the ends of
        the chunks. Not `losses @ images`: the threads of BLAS would spin for 0.1 s next to a
        compiled epoch.
        """
        steps, first = len(report.losses), self.epoch_step
        epochs = ceil_div(first + steps, steps_per_epoch)
        if epochs == 1:  # leave out the earlier steps of the epoch
            first, steps_per_epoch = 1, 1 + steps
        table = np.zeros((3, epochs * steps_per_epoch))
        table[:, 0] = self.epoch_loss, self.epoch_images, self.epoch_correct
        chunk = slice(first, first + steps)
        np.multiply(report.losses, report.images, out=table[0, chunk])
        table[1, chunk], table[2, chunk] = report.images, report.correct
        sums = np.add.accumulate(table.reshape(3, epochs, steps_per_epoch), axis=2)
        by_epoch: list[list[float]] = sums[:, :, -1].T.tolist()
        return by_epoch

    def epoch_report(self) -> EpochReport:
        """Return the results of the epoch so far, without validation."""
        return EpochReport(
            epoch=self.epoch + 1,
            step=self.step,
            train_loss=self.epoch_loss / self.epoch_images,
            train_accuracy=self.epoch_correct / self.epoch_images,
            images_per_s=self.epoch_images / max(1e-9, self.epoch_seconds),
        )

    def next_epoch(self) -> "Progress":
        """Return the position at the beginning of the next epoch."""
        return Progress(step=self.step, epoch=self.epoch + 1)

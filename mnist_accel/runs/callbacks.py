"""What happens between the steps of a run: metrics, checkpoints, and reasons to stop."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mnist_accel.checkpoints.checkpoint import save_checkpoint
from mnist_accel.runs.folder import RunFolder
from mnist_accel.training.reports import Callback, EpochReport, StepsReport
from mnist_accel.training.trainer import Trainer

# Where nobody said how often, checkpoints are saved at the ends of epochs, but not more often than
# this: the epochs of a small network are shorter than the writing of a file.
CHECKPOINT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class LogLine:
    """Means over the steps since the last line of the log.

    Attributes:
        step: number of the last of these steps.
        epoch: number of the epoch under way, counted from 1.
        loss: mean over the steps.
        losses: loss of each step, to six digits.
        accuracy: part of their images that were recognised, 0…1.
        lr: learning rate of the next step.
        images_per_s: images over the time that the steps took.
        seconds: this time.
    """

    step: int
    epoch: int
    loss: float
    losses: list[float]
    accuracy: float
    lr: float
    images_per_s: float
    seconds: float


class MetricsLog(Callback):
    """Writes a line to `metrics.jsonl` every so many steps and for each epoch.

    Args:
        folder: of the run.
        every: steps between two lines.
        show: is handed the lines at these multiples as well.
    """

    every: int

    def __init__(self, folder: RunFolder, *, every: int, show: Callable[[LogLine], None]) -> None:
        self.every = every
        self._folder = folder
        self._show = show
        self._pending: list[StepsReport] = []

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Collect, and write at every multiple of `every`."""
        self._pending.append(report)
        if trainer.step % self.every == 0:
            self._show(self._write(trainer))

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Write the epoch."""
        self._folder.append_metrics({"event": "epoch", **dataclasses.asdict(report)})

    def flush(self, trainer: Trainer) -> None:
        """Write the steps since the last line, if there are any."""
        if self._pending:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> LogLine:
        losses = np.concatenate([report.losses for report in self._pending])
        images = sum(int(report.images.sum()) for report in self._pending)
        correct = sum(int(report.correct.sum()) for report in self._pending)
        seconds = sum(report.seconds for report in self._pending)
        line = LogLine(
            step=trainer.step,
            epoch=trainer.progress.epoch + 1,
            loss=float(losses.mean()),
            losses=[float(f"{loss:.6g}") for loss in losses],
            accuracy=correct / images,
            lr=trainer.learning_rate(),
            images_per_s=images / max(1e-9, seconds),
            seconds=seconds,
        )
        self._pending = []
        self._folder.append_metrics({"event": "steps", **dataclasses.asdict(line)})
        return line


class Checkpoints(Callback):
    """Saves the training from time to time.

    Args:
        path: of the checkpoint.
        metrics: are written up to the step of each checkpoint before it is, so that a run that is
            killed and resumed lacks none.
        every: steps between two; None for the ends of epochs.
        clock: returns seconds.
    """

    def __init__(
        self,
        path: Path,
        metrics: MetricsLog,
        *,
        every: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every = every
        self._path = path
        self._metrics = metrics
        self._clock = clock
        self._saved_at = clock()

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Save at every multiple of `every`."""
        if self.every is not None and trainer.step % self.every == 0:
            self.save(trainer)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Save at the end of an epoch, if the last time is long enough ago."""
        if self.every is None and self._clock() - self._saved_at >= CHECKPOINT_SECONDS:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now.

        Raises:
            DataError: the metrics cannot be written.
            CheckpointError: the checkpoint cannot be written; the last one is untouched.
        """
        self._metrics.flush(trainer)
        save_checkpoint(self._path, trainer)
        self._saved_at = self._clock()


class StopRules(Callback):
    """Ends a training that is good enough, no longer improves, or takes too long.

    Args:
        target_accuracy: validation accuracy that is good enough, 0…1; None for none.
        patience: evaluations without improvement that are borne; None for any number.
        max_seconds: time that steps may take in all; None for any.
    """

    def __init__(
        self,
        *,
        target_accuracy: float | None,
        patience: int | None,
        max_seconds: float | None,
    ) -> None:
        self._target_accuracy = target_accuracy
        self._patience = patience
        self._max_seconds = max_seconds
        self._seconds = 0.0
        self._best = -1.0
        self._without_improvement = 0

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Look at the time."""
        self.count_seconds(trainer, report.seconds)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Look at the validation accuracy, if there is one."""
        if report.validation_accuracy is not None:
            self.count_evaluation(trainer, report.validation_accuracy)

    def count_seconds(self, trainer: Trainer, seconds: float) -> None:
        """Count the time of some steps; those of a run that is resumed count as well."""
        self._seconds += seconds
        if self._max_seconds is not None and self._seconds >= self._max_seconds:
            trainer.request_stop(f"{self._max_seconds:g} seconds are over")

    def count_evaluation(self, trainer: Trainer, accuracy: float) -> None:
        """Count an evaluation; those of a run that is resumed count as well."""
        if accuracy > self._best:
            self._best = accuracy
            self._without_improvement = 0
        else:
            self._without_improvement += 1
        if self._target_accuracy is not None and accuracy >= self._target_accuracy:
            trainer.request_stop(f"target accuracy {self._target_accuracy:.2%} reached")
        if self._patience is not None and self._without_improvement >= self._patience:
            trainer.request_stop(f"no improvement in {self._patience} evaluations")

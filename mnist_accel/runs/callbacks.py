"""Callbacks of a run: metrics, checkpoints, early stopping and the progress bar."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mnist_accel.checkpoints.checkpoint import save_checkpoint
from mnist_accel.console.progress import Figures, TrainingDisplay
from mnist_accel.runs.folder import RunFolder
from mnist_accel.training.progress import EpochReport, StepsReport
from mnist_accel.training.trainer import Callback, Trainer

# Minimum time between two checkpoints at the ends of epochs. A small network trains an epoch faster
# than a checkpoint is written.
CHECKPOINT_SECONDS = 5.0
# Maximum number of lines about epochs. The first, the last and the best epoch are not counted.
MAX_EPOCH_LINES = 37


def summarize(trainer: Trainer, reports: Sequence[StepsReport]) -> Figures:
    """Return the figures of consecutive chunks that end at the current step of the trainer."""
    images = sum(int(report.images.sum()) for report in reports)
    correct = sum(int(report.correct.sum()) for report in reports)
    seconds = sum(report.seconds for report in reports)
    return Figures(
        step=trainer.step,
        epoch=trainer.progress.epoch + 1,
        loss=float(np.concatenate([report.losses for report in reports]).mean()),
        accuracy=correct / images,
        lr=trainer.learning_rate(),
        images_per_s=images / max(1e-9, seconds),
    )


class MetricsLog(Callback):
    """Appends a line to `metrics.jsonl` every few steps and after each epoch.

    A line with the event "steps" contains the figures of `summarize` for all steps since the
    previous such line, the loss of each step with six significant digits, and the duration of the
    steps in seconds. A line with the event "epoch" contains the fields of `EpochReport`.

    Args:
        folder: the run folder.
        every: number of steps between two lines with the event "steps".
        show: called with the figures of each line that is written at a multiple of `every`.
    """

    every: int

    def __init__(self, folder: RunFolder, *, every: int, show: Callable[[Figures], None]) -> None:
        self.every = every
        self._folder = folder
        self._show = show
        self._pending: list[StepsReport] = []

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Keep the report; write and show a line if the step is a multiple of `every`."""
        self._pending.append(report)
        if trainer.step % self.every == 0:
            self._show(self._write(trainer))

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Write a line for the epoch.

        An incomplete epoch is the last one of the training. The lines of its steps are written
        first, so that a resumed run, which repeats the line of the epoch, writes the same lines.
        """
        if trainer.progress.epoch_step:
            self.flush(trainer)
        self._folder.append_metrics({"event": "epoch", **dataclasses.asdict(report)})

    def flush(self, trainer: Trainer) -> None:
        """Write a line for the steps that no line contains yet, if there are any.

        If an earlier line could not be written, its steps are part of this one.
        """
        if self._pending:
            self._write(trainer)

    def sync(self) -> None:
        """Write all lines to the disk."""
        self._folder.sync_metrics()

    def _write(self, trainer: Trainer) -> Figures:
        figures = summarize(trainer, self._pending)
        losses = [float(f"{loss:.6g}") for report in self._pending for loss in report.losses]
        seconds = sum(report.seconds for report in self._pending)
        self._folder.append_metrics(
            {"event": "steps", **dataclasses.asdict(figures), "losses": losses, "seconds": seconds}
        )
        self._pending = []
        return figures


class Checkpoints(Callback):
    """Saves a checkpoint at regular steps, or at the ends of epochs.

    Args:
        path: the checkpoint file.
        metrics: flushed before each checkpoint, so that `metrics.jsonl` contains every step before
            it even if the run is killed.
        every: number of steps between two checkpoints. None saves at the ends of epochs, at most
            once per `CHECKPOINT_SECONDS`.
        clock: returns the time in seconds.
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
        """Save if `every` is None and the last checkpoint is at least `CHECKPOINT_SECONDS` old."""
        if self.every is None and self._clock() - self._saved_at >= CHECKPOINT_SECONDS:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Flush the metrics and save a checkpoint.

        Raises:
            DataError: the metrics cannot be written.
            CheckpointError: the checkpoint cannot be written; the previous one is unchanged.
        """
        self._metrics.flush(trainer)
        self._metrics.sync()
        save_checkpoint(self._path, trainer)
        self._saved_at = self._clock()


def line_interval(evaluations: int) -> int:
    """Return n such that every n-th evaluation makes at most `MAX_EPOCH_LINES` lines.

    n is 1, 2 or 5 times a power of ten.
    """
    scale = 1
    while True:
        for factor in (1, 2, 5):
            if evaluations <= MAX_EPOCH_LINES * factor * scale:
                return factor * scale
        scale *= 10


class ShowProgress(Callback):
    """Moves the progress bar, and prints a line after evaluated epochs.

    Long trainings have a line only at every n-th evaluation. The first, the last and the best epoch
    are always printed, the last two by `finish` if necessary.

    Args:
        display: draws the bar and prints the lines.
        validation_name: "validation" or "test", the data that the epochs are evaluated on.
        every: number of epochs between two lines.
    """

    def __init__(self, display: TrainingDisplay, validation_name: str, *, every: int) -> None:
        self._display = display
        self._validation_name = validation_name
        self._line_every = every
        self._last: EpochReport | None = None
        self._best: EpochReport | None = None
        self._printed: set[int] = set()  # numbers of epochs

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Move the progress bar."""
        self._display.update(summarize(trainer, [report]))

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Print a line if the epoch was evaluated and is the first or a multiple of `every`."""
        accuracy = report.validation_accuracy
        if accuracy is None:
            return
        self._last = report
        if self._best is None or accuracy > (self._best.validation_accuracy or 0):
            self._best = report
        if not self._printed or report.epoch % self._line_every == 0:
            self._print(report)

    def finish(self) -> None:
        """Print the last and the best epoch, unless they are printed already."""
        if self._last is not None:
            self._print(self._last)
        if self._best is not None:
            self._print(self._best, prefix="best: ")

    def _print(self, report: EpochReport, *, prefix: str = "") -> None:
        """Print loss and accuracies of an evaluated epoch, once. The line fits 80 columns."""
        if report.epoch in self._printed:
            return
        self._printed.add(report.epoch)
        self._display.result(
            f"{prefix}epoch {report.epoch}: loss {report.train_loss:.4f}, "
            f"train accuracy {report.train_accuracy:.2%}, "
            f"{self._validation_name} accuracy {report.validation_accuracy:.2%}"
        )

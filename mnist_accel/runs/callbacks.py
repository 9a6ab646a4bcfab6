"""Callbacks of a run that write its metrics and checkpoints."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnist_accel.checkpoints.checkpoint import save_checkpoint
from mnist_accel.console.progress import Figures
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.tensorboard import EventFile
from mnist_accel.training.callback import Callback
from mnist_accel.training.progress import EpochReport, StepsReport
from mnist_accel.training.show_progress import summarize
from mnist_accel.training.trainer import Trainer

# Minimum time between two checkpoints at the ends of epochs. A small network trains an epoch faster
# than a checkpoint is written.
CHECKPOINT_SECONDS = 5.0


class MetricsLog(Callback):
    """Appends a line to `metrics.jsonl` every few steps and after each epoch.

    A line with the event "steps" contains the figures of `summarize` for all steps since the
    previous such line, the loss of each step with six significant digits, and the duration of the
    steps in seconds. A line with the event "epoch" contains the fields of `EpochReport`.

    Args:
        folder: the run folder.
        every: number of steps between two lines with the event "steps".
        show: called with the figures of each line that is written at a multiple of `every`.
        event_file: gets the same lines, for TensorBoard; None without one.
    """

    every: int

    def __init__(
        self,
        folder: RunFolder,
        *,
        every: int,
        show: Callable[[Figures], None],
        event_file: EventFile | None = None,
    ) -> None:
        self.every = every
        self._folder = folder
        self._show = show
        self._event_file = event_file
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
        self._append({"event": "epoch", **dataclasses.asdict(report)})

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
        self._append(
            {"event": "steps", **dataclasses.asdict(figures), "losses": losses, "seconds": seconds}
        )
        self._pending = []
        return figures

    def _append(self, line: dict[str, Any]) -> None:
        self._folder.append_metrics(line)
        if self._event_file is not None:
            self._event_file.add(line)


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

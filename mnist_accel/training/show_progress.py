"""The progress of a training, as the command `train` and `Trainer.fit(verbose=True)` show it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends import as_integer
from mnist_accel.console.progress import Figures, TrainingDisplay
from mnist_accel.training.callback import Callback
from mnist_accel.training.data import TrainingData
from mnist_accel.training.progress import EpochReport, StepsReport
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.text import count

if TYPE_CHECKING:
    from mnist_accel.training.trainer import Trainer, ValidationData

# Maximum number of lines about epochs. The first, the last and the best epoch are not counted.
MAX_EPOCH_LINES = 37


def summarize(trainer: "Trainer", reports: Sequence[StepsReport]) -> Figures:
    """Return the figures of consecutive chunks that end at the current step of the trainer."""
    images = sum(int(report.images.sum()) for report in reports)
    correct = sum(int(report.correct.sum()) for report in reports)
    seconds = sum(report.seconds for report in reports)
    return Figures(
        step=trainer.step,
        epoch=trainer.progress.epoch + 1,
        loss=float(np.concatenate([report.losses for report in reports]).mean()),
        accuracy=correct / images if trainer.model.loss.has_classes else None,
        lr=trainer.learning_rate(),
        images_per_s=images / max(1e-9, seconds),
    )


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


class ShowSteps(Callback):
    """Moves the progress bar.

    Args:
        display: draws the bar.
    """

    epochs_at_once = None

    def __init__(self, display: TrainingDisplay) -> None:
        self._display = display

    def on_steps(self, trainer: "Trainer", report: StepsReport) -> None:
        """Move the bar to the last step of the chunk."""
        self._display.update(summarize(trainer, [report]))


class ShowEpochs(Callback):
    """Prints a line after epochs, or only after evaluated epochs if the training evaluates any.

    Long trainings have a line only at every n-th of these. The first, the last and the best epoch
    are always printed, the last two by `finish` if necessary.

    Args:
        display: prints the lines.
        validation_name: "validation" or "test", the data that epochs are evaluated on; empty if
            there are none.
        epochs: number of epochs of the training.
        validation_every: epochs between two evaluations.
    """

    epochs_at_once = None

    def __init__(
        self,
        display: TrainingDisplay,
        validation_name: str,
        *,
        epochs: int,
        validation_every: int = 1,
    ) -> None:
        self._display = display
        self._validation_name = validation_name
        every = validation_every if validation_name else 1
        self._line_every = every * line_interval(ceil_div(epochs, every))
        self._last: EpochReport | None = None
        self._best: EpochReport | None = None
        self._printed: set[int] = set()  # numbers of epochs

    def on_epoch(self, trainer: "Trainer", report: EpochReport) -> None:
        """Print a line if the epoch is the first or a multiple of the interval."""
        if self._validation_name and report.validation_loss is None:
            return
        self._last = report
        if self._best is None or _accuracy(report) > _accuracy(self._best):
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
        """Print loss and accuracies of an epoch, once."""
        if report.epoch in self._printed:
            return
        self._printed.add(report.epoch)
        self._display.result(prefix + report.describe(self._validation_name))


def train_shown(
    trainer: "Trainer",
    last_step: int,
    data: TrainingData,
    *,
    validation_data: "ValidationData | None",
    validation_every: int,
    callbacks: Sequence[Callback],
) -> str:
    """Train as `Trainer.train_to` does, and show the progress."""
    display = TrainingDisplay(last_step, quiet=False, progress=True)
    display.note(f"backend {_describe_backend(trainer)}")
    display.note(f"model {trainer.model.name}: {trainer.model.describe()}")
    steps_per_epoch = trainer.sampler(data.examples).steps_per_epoch
    epochs = ShowEpochs(
        display,
        "" if validation_data is None else "validation",
        epochs=ceil_div(last_step - trainer.step, steps_per_epoch),
        validation_every=as_integer("validation_every", validation_every, at_least=1),
    )
    with display:
        stop_reason = trainer.train_to(
            last_step,
            data,
            validation_data=validation_data,
            validation_every=validation_every,
            callbacks=(*callbacks, ShowSteps(display), epochs),
        )
    epochs.finish()
    if stop_reason:
        display.note(f"stopped at step {trainer.step}: {stop_reason}")
    return stop_reason


def _describe_backend(trainer: "Trainer") -> str:
    """Return backend, threads, and whether steps are compiled, such as "numba, compiled"."""
    backend = trainer.model.backend
    threads = "" if backend.threads is None else f", {count(backend.threads, 'thread')}"
    mode = f"eager: {trainer.not_compiled}" if trainer.not_compiled else "compiled"
    return f"{backend.name}{threads}, {mode}"


def _accuracy(report: EpochReport) -> float:
    """Return the validation accuracy of an epoch; 0 without one."""
    return report.validation_accuracy or 0.0

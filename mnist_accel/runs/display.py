"""What a run prints while it trains."""

from mnist_accel.autotune.choose import Choice
from mnist_accel.console.progress import Figures, TrainingDisplay
from mnist_accel.data import Dataset
from mnist_accel.runs.callbacks import LogLine
from mnist_accel.training.reports import EpochReport, StepsReport
from mnist_accel.training.trainer import Callback, Trainer


def print_introduction(
    display: TrainingDisplay, choice: Choice, trainer: Trainer, dataset: Dataset
) -> None:
    """Print the backend, the data and the network, and warn of a fallback or too many threads."""
    backend = trainer.model.backend
    if choice.selection.fell_back:
        display.warn(f"{choice.selection.reason}; training on {backend.name} instead")
    if choice.measurements or not choice.selection.fell_back:
        display.note(f"backend {choice.describe()}")
    threads, max_threads = backend.threads, backend.max_threads
    if threads is not None and max_threads is not None and threads > max_threads:
        display.warn(
            f"{threads} threads are slower than {max_threads}, the number of CPU cores; "
            f"use --threads {max_threads}"
        )
    display.note(f"data {dataset.name} from {dataset.source}")
    display.note(f"model {trainer.model.name}: {trainer.model.describe()}")


def print_log_line(display: TrainingDisplay, line: LogLine) -> None:
    """Print a line of the log, unless a progress bar shows its figures."""
    figures = Figures(line.step, line.epoch, line.loss, line.accuracy, line.images_per_s)
    display.log(figures, lr=line.lr)


class ShowProgress(Callback):
    """Moves the progress bar, and prints a line after each evaluated epoch.

    Args:
        display: the display of the run.
        validation_name: name of the data that the epochs are evaluated on.
    """

    def __init__(self, display: TrainingDisplay, validation_name: str) -> None:
        self._display = display
        self._validation_name = validation_name

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Move the progress bar."""
        images = int(report.images.sum())
        self._display.update(
            Figures(
                step=trainer.step,
                epoch=trainer.progress.epoch + 1,
                loss=float(report.losses.mean()),
                accuracy=float(report.correct.sum() / images),
                images_per_s=images / max(1e-9, report.seconds),
            )
        )

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Print the loss, the accuracies and the throughput of the epoch."""
        if report.validation_accuracy is None:
            return
        self._display.result(
            f"epoch {report.epoch}: loss {report.train_loss:.4f}, "
            f"train accuracy {report.train_accuracy:.2%}, "
            f"{self._validation_name} accuracy {report.validation_accuracy:.2%} "
            f"({report.validation_correct} / {report.validation_total}), "
            f"{report.images_per_s:,.0f} images/s"
        )

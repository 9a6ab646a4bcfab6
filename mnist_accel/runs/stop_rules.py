"""The callback that ends a training early."""

from collections.abc import Iterable, Mapping
from typing import Any

from mnist_accel.training.callback import Callback
from mnist_accel.training.progress import EpochReport, StepsReport
from mnist_accel.training.trainer import Trainer


class StopRules(Callback):
    """Stops a training that is accurate enough, no longer improves, or takes too long.

    Args:
        target_accuracy: validation accuracy at which to stop, 0…1; None for no target.
        patience: number of consecutive evaluations without a new best validation accuracy after
            which to stop; None for no limit.
        max_seconds: total duration of the steps after which to stop; None for no limit.
    """

    epochs_at_once = None  # an evaluated epoch ends its chunk

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
        """Add the duration of the chunk; stop if the limit is reached."""
        self._add_seconds(trainer, report.seconds)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Check target and improvement of the validation accuracy, if the epoch was evaluated."""
        self._add_evaluation(trainer, report.validation_accuracy)

    def replay(self, trainer: Trainer, lines: Iterable[Mapping[str, Any]]) -> None:
        """Apply the rules to the lines of `metrics.jsonl` that precede the resumption of a run.

        If a rule applies, the training ends before its next step.
        """
        for line in lines:
            if line["event"] == "steps":
                self._add_seconds(trainer, line["seconds"])
            else:
                self._add_evaluation(trainer, line["validation_accuracy"])

    def _add_seconds(self, trainer: Trainer, seconds: float) -> None:
        self._seconds += seconds
        if self._max_seconds is not None and self._seconds >= self._max_seconds:
            trainer.request_stop(f"time limit of {self._max_seconds:g} seconds reached")

    def _add_evaluation(self, trainer: Trainer, accuracy: float | None) -> None:
        if accuracy is None:
            return
        if accuracy > self._best:
            self._best = accuracy
            self._without_improvement = 0
        else:
            self._without_improvement += 1
        if self._target_accuracy is not None and accuracy >= self._target_accuracy:
            trainer.request_stop(f"target accuracy {self._target_accuracy:.2%} reached")
        if self._patience is not None and self._without_improvement >= self._patience:
            trainer.request_stop(f"no improvement in {self._patience} evaluations")

"""Detects a training whose network is no better than guessing, and suggests a remedy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.recipes.settings import TrainSettings, resolve
from mnist_accel.training.callback import Callback
from mnist_accel.training.progress import EpochReport
from mnist_accel.training.trainer import Trainer

# Before this step, a network may be no better than guessing because it has hardly been trained.
MIN_STEPS = 200
# An accuracy counts as guessing up to this number of standard deviations above the accuracy of a
# constant answer.
DEVIATIONS = 2.0


def is_guessing(accuracy: float, labels: NDArray[Any]) -> bool:
    """Return whether an accuracy is no better than always giving the most frequent label.

    Args:
        accuracy: fraction of correct images, 0…1.
        labels: the labels (N,) of these images.
    """
    constant = float(np.bincount(labels).max()) / len(labels)
    return accuracy <= constant + DEVIATIONS * math.sqrt(constant * (1 - constant) / len(labels))


def advice(settings: TrainSettings, *, steps: int) -> str:
    """Return what to try after a number of steps that were no better than guessing."""
    default = resolve({"model": settings.model, "optimizer": settings.optimizer}).lr
    if settings.lr < default:
        return f"try a larger --lr, such as the default {default:g}, or more --epochs"
    if settings.lr > default:
        return f"try a smaller --lr, such as the default {default:g}"
    return "try a smaller --lr" if steps >= MIN_STEPS else "train for more --epochs"


class GuessingWarning(Callback):
    """Warns once, after the first epoch that is certainly no better than guessing.

    Args:
        settings: settings of the run.
        labels: labels (N,) of the images that epochs are evaluated on.
        warn: prints a warning.
    """

    def __init__(
        self, settings: TrainSettings, labels: NDArray[Any], warn: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._labels = labels
        self._warn = warn
        self._has_warned = False

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Check the accuracy of an evaluated epoch."""
        accuracy = report.validation_accuracy
        if self._has_warned or accuracy is None or trainer.step < MIN_STEPS:
            return
        if is_guessing(accuracy, self._labels):
            self._has_warned = True
            self._warn(
                f"after epoch {report.epoch}, the network is no better than guessing; "
                f"{advice(self._settings, steps=trainer.step)}"
            )

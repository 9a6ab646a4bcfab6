"""Time to accuracy: trains a network until it reaches a validation accuracy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import to_builtins
from numpy.typing import NDArray

from benchmarks.contenders.base import Contender, TrainingSession
from benchmarks.storage.schema import Check
from benchmarks.suite.cases import AccuracyCase
from benchmarks.suite.checks import check_long_training
from benchmarks.suite.preparer import NotComparableError, require_available
from benchmarks.suite.tasks import accuracy_task


@dataclass
class AccuracyTraining:
    """A training that is checked and compiled, and its accuracy after each epoch.

    Attributes:
        images: for validation, shape (N, 784).
        labels: for validation, shape (N,).
        seconds: time of training until the end of each epoch, without that of validation.
        accuracy: validation accuracy after each epoch, 0…1.
    """

    case: AccuracyCase
    contender: Contender
    seed: int
    check: Check
    session: TrainingSession
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def run(self, clock: Callable[[], float]) -> None:
        """Train until the target or the last epoch is reached."""
        total = 0.0
        while (
            len(self.accuracy) < self.case.max_epochs
            and max(self.accuracy, default=0.0) < self.case.target
        ):
            started = clock()
            self.session.run()
            total += clock() - started
            self.seconds.append(total)
            correct = self.session.predict(self.images) == self.labels
            self.accuracy.append(float(correct.mean()))

    def extra_info(self) -> dict[str, Any]:
        """Return what a result file states about the training."""
        return {
            "network": self.case.network,
            "batch": self.case.batch,
            "seed": self.seed,
            "target": self.case.target,
            "check": to_builtins(self.check),
            "seconds": self.seconds,
            "accuracy": self.accuracy,
        }


def prepare_accuracy(case: AccuracyCase, contender: Contender, seed: int) -> AccuracyTraining:
    """Return a training whose first updates agree with the reference.

    Raises:
        NotComparableError: the contender cannot do the case on this machine.
        CheckError: the contender does not compute what it should.
    """
    require_available(contender)
    task, images, labels = accuracy_task(case, seed)
    if reason := contender.skip_reason(task):
        raise NotComparableError(reason)
    session = contender.training(task)
    check = check_long_training(session, task, contender.ties)
    session.run()  # compiles; compile time is a phase of training rows
    session.reset()
    return AccuracyTraining(case, contender, seed, check, session, images, labels)

"""Times epochs of training; the images are on the device before the first epoch."""

from benchmarks.contenders.base import Contender
from benchmarks.session.plugin import Measure
from benchmarks.suite.cases import TrainingCase


def test_training(
    measure: Measure, case: TrainingCase, contender: Contender, repetition: int
) -> None:
    """Check the gradients and ten updates, then time epochs."""
    measure(case, contender, repetition)

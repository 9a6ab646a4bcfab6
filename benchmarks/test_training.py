"""Training: epochs over images that are already on the device."""

from benchmarks.contenders.base import Contender
from benchmarks.session.plugin import Measure
from benchmarks.suite.cases import TrainingCase


def test_training(
    measure: Measure, case: TrainingCase, contender: Contender, repetition: int
) -> None:
    """Check the gradients and ten updates, then time epochs."""
    measure(case, contender, repetition)

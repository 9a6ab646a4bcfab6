"""Training steps: an epoch over images that lie where they are computed on."""

from benchmarks.cases import TrainingCase
from benchmarks.conftest import Measure
from benchmarks.contenders.base import Contender


def test_training(
    measure: Measure, case: TrainingCase, contender: Contender, repetition: int
) -> None:
    """Check the gradients and ten updates, then time epochs."""
    measure(case, contender, repetition)

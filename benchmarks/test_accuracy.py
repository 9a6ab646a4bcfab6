"""Time to accuracy: seconds of training until a network reaches a validation accuracy.

A tenth of the training set is held out. Accuracy is measured on it after each epoch, outside of the
measured time. The learning rate is constant, and the same for all contenders.
"""

import pytest

from benchmarks.contenders.base import Contender
from benchmarks.session.plugin import Measure
from benchmarks.suite.cases import AccuracyCase


@pytest.mark.timeout(1200)
def test_accuracy(
    measure: Measure, case: AccuracyCase, contender: Contender, repetition: int
) -> None:
    """Check ten updates, then train until the target or the last epoch is reached."""
    measure(case, contender, repetition)

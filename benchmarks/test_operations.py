"""Single operations, on inputs that are already on the device."""

from benchmarks.contenders.base import Contender
from benchmarks.session.plugin import Measure
from benchmarks.suite.cases import OperationCase


def test_operations(
    measure: Measure, case: OperationCase, contender: Contender, repetition: int
) -> None:
    """Check the results, then time calls."""
    measure(case, contender, repetition)

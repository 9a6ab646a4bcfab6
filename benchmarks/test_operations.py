"""The operations under the networks, on inputs that lie where they are computed on."""

from benchmarks.cases import OperationCase
from benchmarks.conftest import Measure
from benchmarks.contenders.base import Contender


def test_operations(
    measure: Measure, case: OperationCase, contender: Contender, repetition: int
) -> None:
    """Check the results, then time calls."""
    measure(case, contender, repetition)

"""Predictions: from images of the host to probabilities on the host."""

from benchmarks.cases import InferenceCase
from benchmarks.conftest import Measure
from benchmarks.contenders.base import Contender


def test_inference(
    measure: Measure, case: InferenceCase, contender: Contender, repetition: int
) -> None:
    """Check the probabilities, then time calls."""
    measure(case, contender, repetition)

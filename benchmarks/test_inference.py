"""Times predictions, from images on the host to probabilities on the host."""

from benchmarks.contenders.base import Contender
from benchmarks.session.plugin import Measure
from benchmarks.suite.cases import InferenceCase


def test_inference(
    measure: Measure, case: InferenceCase, contender: Contender, repetition: int
) -> None:
    """Check the probabilities, then time predictions of one batch."""
    measure(case, contender, repetition)

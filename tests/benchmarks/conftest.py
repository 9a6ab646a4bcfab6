"""Analyses of generated results for the tests of the report, and rows for those of the checks."""

import pytest

from benchmarks.suite.expected import expected_file
from benchmarks.suite.preparer import prepare
from tests.support.benchmark_files import ON_GPU, GeneratedResults, analyze_generated


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    return analyze_generated(tmp_path_factory.mktemp("cpu"), GeneratedResults())


@pytest.fixture(scope="module")
def gpu_analysis(tmp_path_factory):
    return analyze_generated(tmp_path_factory.mktemp("gpu"), GeneratedResults(contenders=ON_GPU))


@pytest.fixture(scope="session")
def prepare_row(tmp_path_factory):
    """Return a function that prepares a row in this process, as a worker does in its own."""
    folder = tmp_path_factory.mktemp("expected")

    def prepare_row(case, contender, **options):
        expected = expected_file(case, contender.ties, folder)
        return prepare(case, contender, str(expected), **options)

    return prepare_row

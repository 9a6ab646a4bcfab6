"""Analyses of generated results, shared by the tests of the report."""

import pytest

from tests.support.benchmark_files import ON_GPU, GeneratedResults, analyze_generated


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    return analyze_generated(tmp_path_factory.mktemp("cpu"), GeneratedResults())


@pytest.fixture(scope="module")
def gpu_analysis(tmp_path_factory):
    return analyze_generated(tmp_path_factory.mktemp("gpu"), GeneratedResults(contenders=ON_GPU))

"""The summary of a run."""

import math

import pytest

from mnist_accel.runs.artifacts import mean_throughput


def test_mean_throughput_is_weighted_by_the_seconds_of_each_line():
    lines = [{"seconds": 1.0, "images_per_s": 100.0}, {"seconds": 3.0, "images_per_s": 20.0}]
    assert mean_throughput(lines) == pytest.approx(160 / 4)
    assert math.isnan(mean_throughput([]))

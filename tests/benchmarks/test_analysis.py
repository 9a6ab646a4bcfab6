"""The analysis follows from the figures."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.report.analysis import analyze, crossover, times_to_accuracy
from tests.support.benchmark_files import GeneratedResults, analyze_generated, set_accuracy_seconds


def test_ratio_and_roofline_are_computed_from_the_figures(analysis):
    row = analysis.rows["training", "two-layer, batch 512", "numba"]
    baseline = analysis.rows["training", "two-layer, batch 512", row.baseline].measurement
    assert row.baseline == "torch-eager"
    medians = [
        {turn: np.median(seconds) for turn, seconds in one.call_rounds.items()}
        for one in (baseline, row.measurement)
    ]
    expected = np.median([medians[0][turn] / medians[1][turn] for turn in medians[0]])
    assert row.speed.value == pytest.approx(expected, rel=1e-3)
    assert row.speed.low < expected < row.speed.high
    images = row.measurement.info.images
    seconds = max(159_000 * images / 2.1e11, 784 * images / 1.6e10)
    assert row.roofline_fraction == pytest.approx(seconds / row.measurement.round_seconds.median)


def test_cpu_and_gpu_rows_have_their_own_best_baselines(gpu_analysis):
    rows = gpu_analysis.rows
    assert rows["training", "lenet, batch 64", "cupy"].baseline == "torch-cuda-graph"
    assert rows["training", "lenet, batch 64", "numba"].baseline == "torch-eager"


def test_roofline_uses_the_ceilings_of_the_device(gpu_analysis):
    for contender, flops_per_s, bytes_per_s in (("numba", 2.1e11, 1.6e10), ("cupy", 5.1e13, 4e12)):
        row = gpu_analysis.rows["training", "lenet, batch 64", contender]
        seconds = max(
            row.measurement.info.flops / flops_per_s, row.measurement.info.bytes / bytes_per_s
        )
        assert row.roofline_fraction == pytest.approx(
            seconds / row.measurement.round_seconds.median
        )


def test_roofline_of_a_device_without_ceilings_is_unknown(gpu_analysis):
    results = replace(gpu_analysis.results, ceilings={"cpu": gpu_analysis.results.ceilings["cpu"]})
    rows = analyze(results).rows
    assert rows["training", "lenet, batch 64", "cupy"].roofline_fraction is None
    assert rows["training", "lenet, batch 64", "numba"].roofline_fraction is not None


def test_crossover_is_interpolated(gpu_analysis):
    results = gpu_analysis.results
    batches = (1, 10, 100, 1000)
    rates = {"numba": [(b, 100.0) for b in batches], "cupy": [(b, 2.0 * b) for b in batches]}
    assert crossover(results, rates) == pytest.approx(50.0)
    ahead = {"numba": [(b, 1.0) for b in batches], "cupy": rates["cupy"]}
    assert crossover(results, ahead) is None
    assert crossover(results, {"numba": rates["numba"]}) is None


def test_growth_exponent_is_that_of_the_generated_times(analysis):
    growth = {(one.network, one.sweep, one.contender): one for one in analysis.growth}
    width = growth["two-layer", "width", "numba"]
    assert [size for size, _ in width.points] == [25, 50, 100, 200, 400]
    sizes = np.array([25, 50, 100, 200, 400])
    seconds = 40 + 1.1 * 512 * (sizes / 50) ** 0.8
    expected = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    assert width.exponent.value == pytest.approx(expected, abs=0.05)
    assert width.exponent.low < expected < width.exponent.high


def test_failed_seeds_are_counted(analysis):
    times = {
        (time.network, time.contender, time.target): time
        for time in times_to_accuracy(analysis.results)
    }
    small = times["two-layer", "numba", 0.95]
    assert (len(small.seconds), small.seeds) == (4, 5)
    assert ("two-layer", "numba", 0.99) not in times  # which no seed reached
    assert np.median(times["lenet", "numba", 0.95].epochs) < np.median(
        times["lenet", "numba", 0.97].epochs
    )


def test_training_does_not_count_for_targets_above_its_own(tmp_path):
    def change(document):
        set_accuracy_seconds(document, {"numba": (2.0, 2.1), "jax": (3.0, 3.1)})
        document["mnist_accel"]["accuracy"][0]["accuracy"] = [0.98]

    generated_analysis = analyze_generated(
        tmp_path, GeneratedResults(("numba", "jax"), passes=2, rounds=2), change
    )
    times = times_to_accuracy(generated_analysis.results)
    assert {(time.contender, time.target, time.seeds) for time in times} == {
        ("numba", 0.95, 2),
        ("jax", 0.95, 2),
    }

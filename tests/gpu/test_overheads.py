"""The benchmark of launches, graph nodes and barriers: its arithmetic and its kernels."""

import json
from typing import Any

import numpy as np
import pytest

from backends.cupy.kernel import cooperative
from benchmarks.gpu import overheads
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder


@pytest.mark.emulated
def test_measurements_are_computed_from_the_times():
    """The stopwatch of this test counts one microsecond per launch."""
    emulator = Emulator()

    def seconds(work: Any) -> float:
        before = len(emulator.launched)
        work()
        return 1e-6 * (len(emulator.launched) - before)

    counts = overheads.Counts(launches=4, nodes=5, rounds=3, copied_bytes=8 * 64, multiply_adds=2)
    benchmark = overheads.Benchmark(EmulatedCupy(emulator), 2, seconds, seconds, counts)
    measurements = {one.name: (one.value, one.unit) for one in benchmark.measure()}
    blocks = 2 * 8
    flops = 2 * 2 * overheads.CHAINS * blocks * overheads.THREADS_PER_BLOCK
    assert measurements == {
        "launch of an empty kernel, host": (pytest.approx(1), "µs"),
        "launch of an empty kernel, GPU": (pytest.approx(1), "µs"),
        "graph of 5 empty kernels, host": (pytest.approx(5), "µs"),
        "additional graph node, GPU": (pytest.approx(1), "µs"),
        "copy, bytes read and written": (pytest.approx(2 * 8 * 64 / 1e-6 / 1e9), "GB/s"),
        "multiply-adds, float32": (pytest.approx(flops / 1e-6 / 1e12), "TFLOP/s"),
        # One launch for any number of rounds.
        "grid barrier of 8 blocks": (0, "µs"),
        "grid barrier of 2 blocks": (0, "µs"),
        "cluster barrier of 8 blocks": (0, "µs"),
        "round trip between 2 blocks, st.async and mbarrier": (0, "µs"),
    }


def test_measurements_before_an_interrupt_are_printed_and_written(tmp_path, capsys):
    out = tmp_path / "overheads.json"

    def measure():
        yield overheads.Measurement("copy, bytes read and written", 1.024, "GB/s")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overheads.write_as_measured(measure(), out, header=overheads.HEADER)
    assert "| copy, bytes read and written | 1.02 GB/s |" in capsys.readouterr().out
    (written,) = json.loads(out.read_text())
    assert written == {"name": "copy, bytes read and written", "value": 1.024, "unit": "GB/s"}


@pytest.mark.emulated
@pytest.mark.parametrize("order", ThreadOrder)
def test_kernels_do_all_the_work_that_is_timed(order):
    cupy = EmulatedCupy(Emulator(order, seed=2))
    source, target = np.arange(1000.0), np.full(1000, np.nan)
    overheads.kernel(cupy, "copy")((3,), (64,), (source, np.int64(1000), target))
    np.testing.assert_array_equal(target, source)
    results = np.full(128, np.nan, np.float32)
    arguments = np.int32(3), np.float32(0.5), results
    overheads.kernel(cupy, "multiply_add")((2,), (64,), arguments)
    sums = np.arange(overheads.CHAINS, dtype=np.float32)
    for _ in range(3):
        sums = sums * 0.5 + 0.5
    np.testing.assert_array_equal(results, sums.sum())
    counters = np.zeros(2, np.uint32)
    cooperative(overheads.kernel(cupy, "barrier"))((5,), (64,), (np.int32(7), counters))
    assert counters.tolist() == [0, 7]
    cluster = overheads.kernel(cupy, "barrier", BLOCKS=8, CLUSTER=1)
    cluster((8,), (64,), (np.int32(7), counters))
    assert counters.tolist() == [0, 7]  # a cluster barrier uses no counters in memory
    round_trip = overheads.kernel(cupy, "round_trip", BLOCKS=8, CLUSTER=1)
    round_trip((8,), (64,), (np.int32(7), counters))
    assert counters.tolist() == [2 * 7, 7]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_measurements_on_a_gpu_are_finite(backend, tmp_path):
    assert overheads.main(["--out", str(tmp_path / "overheads.json")]) == 0
    measurements = json.loads((tmp_path / "overheads.json").read_text())
    assert len(measurements) in (8, 10)  # two more if the GPU has clusters
    assert all(np.isfinite(one["value"]) for one in measurements)

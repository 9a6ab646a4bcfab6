"""The benchmark of kernels and their naive versions, without a GPU.

`test_naive_kernels.py` makes the comparisons of all families at small sizes.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from backends.cupy.backend import CupyBackend
from benchmarks.gpu.bench_kernels import __main__ as command_line
from benchmarks.gpu.bench_kernels import linear
from benchmarks.gpu.bench_kernels.comparison import Comparison, Row
from benchmarks.gpu.bench_kernels.gpu import Gpu
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator


def small(gpu: Gpu) -> Iterator[Comparison]:
    yield linear.forward(gpu, 4, 8, 5, "relu", is_first=True)


def wrong(gpu: Gpu) -> Iterator[Comparison]:
    comparison = next(small(gpu))
    y, naive_y = comparison.results()["y"]
    assert naive_y is not None
    yield replace(comparison, results=lambda: {"y": (y, naive_y + 1)})


def broken(gpu: Gpu) -> Iterator[Comparison]:
    raise MemoryError("out of\nmemory")


@pytest.fixture
def on_emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Let the benchmark run three families on the emulator; a launch takes a microsecond."""
    emulator = Emulator()

    def seconds(cupy: Any, work: Callable[[], None]) -> float:
        before = len(emulator.launched)
        work()
        return 1e-6 * (len(emulator.launched) - before)

    monkeypatch.setitem(sys.modules, "cupy", EmulatedCupy(emulator))
    monkeypatch.setattr(command_line, "get_backend", lambda name: None)
    monkeypatch.setattr(command_line, "elapsed_seconds", seconds)
    families = {"small": small, "wrong": wrong, "broken": broken}
    monkeypatch.setattr(command_line, "FAMILIES", families)
    return emulator


@pytest.mark.emulated
@pytest.mark.usefixtures("on_emulator")
def test_rows_are_computed_from_the_times(tmp_path, capsys):
    """The naive version has two launches, one of which gathers the images."""
    out = tmp_path / "kernels.json"
    assert command_line.main(["small", "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())
    assert 0 <= row.pop("error") < 1
    assert row == {
        "kernel": "linear, bytes",
        "sizes": "4 × 8 → 5",
        "naive_us": pytest.approx(2),
        "fast_us": pytest.approx(1),
        "fraction": pytest.approx(0.5),
        "gflops": pytest.approx(2 * 4 * 8 * 5 * 1e-3),
        "gb_per_s": pytest.approx((4 * 8 + 4 * (8 * 5 + 5 + 4 * 5)) * 1e-3),
        "problem": "",
    }
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith("| linear, bytes | 4 × 8 → 5 | 2.0 µs | 1.0 µs | 0.500 | 0 | 0 | 0.")


@pytest.mark.emulated
def test_other_families_follow_one_that_fails(on_emulator, capsys):
    assert command_line.main(["broken", "wrong", "small"]) == 6
    _, _, first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("| linear, bytes | 4 × 8 → 5 | 2.0 µs |")
    assert "**y differs by" in second
    assert third == "| broken |  | | | | | | **MemoryError: out of memory** |"


def test_families_have_processes_of_their_own(monkeypatch, capsys, tmp_path):
    """Families that crash, hang or differ give a row and do not stop the others."""
    parts = {
        "crash": ([asdict(Row("crash"))], "exit code -11: Segmentation fault"),
        "hang": ([], "no result within 30 s"),
        "good": ([asdict(Row("good"))], ""),
    }
    monkeypatch.setattr(command_line, "FAMILIES", parts)
    monkeypatch.setattr(command_line, "get_backend", lambda name: None)
    monkeypatch.setattr(command_line, "rows_of", lambda module, family, **options: parts[family])
    out = tmp_path / "kernels.json"
    assert command_line.main(["--json", str(out)]) == 6
    rows = [(row["kernel"], row["problem"]) for row in json.loads(out.read_text())]
    assert rows == [
        ("crash", ""),
        ("crash", "exit code -11: Segmentation fault"),
        ("hang", "no result within 30 s"),
        ("good", ""),
    ]


def test_unknown_family_is_refused(capsys):
    assert command_line.main(["convolutoin"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "unknown family 'convolutoin'" in line


def test_benchmark_needs_a_gpu(tmp_path, capsys):
    availability = CupyBackend.availability()
    if availability.ok:
        pytest.skip("this machine has a GPU")
    assert command_line.main(["--json", str(tmp_path / "kernels.json")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"cannot run here: {availability.reason}; {availability.remedy}")
    assert not list(tmp_path.iterdir())


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(command_line.FAMILIES))
def test_comparisons_at_the_sizes_of_recipes_can_be_launched(family):
    """The emulator launches those that it computes in about a second."""
    gpu = Gpu(EmulatedCupy(Emulator(), memory_bytes=1 << 32))
    for comparison in command_line.FAMILIES[family](gpu):
        if comparison.multiply_adds < 1e7 and comparison.moved < 2e6:
            error, name = comparison.largest_error(gpu)
            assert error <= 1, (comparison.kernel, comparison.sizes, name)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_measurements_on_a_gpu(backend, tmp_path):
    out = tmp_path / "kernels.json"
    assert command_line.main(["losses", "--json", str(out)]) == 0
    assert all(row["fast_us"] > 0 for row in json.loads(out.read_text()))

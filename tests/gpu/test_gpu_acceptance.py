"""The acceptance run on a GPU: all of it that can be shown without one."""

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends import BackendUnavailableError, get_backend
from backends.cupy.backend import CupyBackend
from backends.cupy.loader import cooperative
from benchmarks.contenders import choose
from benchmarks.gpu import __main__ as front_door
from benchmarks.gpu import overheads
from benchmarks.gpu.plan import CONTENDERS, plan
from benchmarks.gpu.stages import Stage, run_command, run_stages
from mnist_accel.runs.run import RunResult
from tests import acceptance
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder

ROOT = Path(__file__).parents[2]


def stage(name: str, budget_s: float = 100, **options: Any) -> Stage:
    return Stage(name, f"shows {name}", (name,), budget_s, **options)


class Machine:
    """A machine whose commands take as long, and end, as they are told: seconds and exit code."""

    def __init__(self, **commands: tuple[float, int]) -> None:
        self.commands = commands
        self.now = 1000.0
        self.limits: dict[str, float] = {}
        self.given: dict[str, list[str]] = {}

    def clock(self) -> float:
        return self.now

    def run(self, command: Any, log: Path, limit_s: float) -> int | None:
        name, *self.given[command[0]] = command
        seconds, code = self.commands[name]
        self.limits[name] = limit_s
        log.write_text(f"{name} begins\n| {name} | 1 |\n")
        self.now += min(seconds, limit_s)
        return code if seconds <= limit_s else None


def outcomes(machine: Machine, stages: list[Stage], folder: Path, total_s: float) -> dict[str, str]:
    told: list[list[str]] = []
    results = run_stages(
        stages,
        folder=folder,
        total_s=total_s,
        report=lambda results: told.append([result.outcome for result in results]),
        run=machine.run,
        clock=machine.clock,
    )
    assert told[0] == ["not reached"] * len(stages)
    assert told[-1] == [result.outcome for result in results]
    assert len(told) == len(stages) + 1
    return {result.stage.name: result.outcome for result in results}


def test_stages_run_in_their_order_each_within_its_budget(tmp_path):
    machine = Machine(first=(40, 0), second=(500, 0), third=(30, 3), fourth=(1, 0))
    stages = [stage("first"), stage("second", 60), stage("third"), stage("fourth")]
    assert outcomes(machine, stages, tmp_path, 300) == {
        "first": "passed",
        "second": "cut",
        "third": "failed",
        "fourth": "passed",
    }
    assert list(machine.limits) == ["first", "second", "third", "fourth"]
    assert machine.limits == {"first": 100, "second": 60, "third": 100, "fourth": 100}
    assert machine.now == 1000 + 40 + 60 + 30 + 1


def test_the_last_stages_go_without_when_the_time_is_up(tmp_path):
    machine = Machine(first=(95, 0), second=(500, 0), third=(1, 0))
    stages = [stage("first"), stage("second"), stage("third")]
    assert outcomes(machine, stages, tmp_path, 120) == {
        "first": "passed",
        "second": "cut",
        "third": "not reached",
    }
    assert machine.limits == {"first": 100, "second": 25}


def test_what_cannot_run_takes_no_time(tmp_path):
    machine = Machine(first=(1, 0), second=(1, 0), third=(1, 0))
    there, not_there = tmp_path / "there.json", tmp_path / "none.json"
    there.touch()
    stages = [
        stage("absent", missing="no such tool"),
        stage("first", reads=(there,)),
        stage("second", reads=(not_there,)),
        stage("third", reads=(not_there, there, tmp_path)),
    ]
    assert outcomes(machine, stages, tmp_path, 120) == {
        "absent": "missing",
        "first": "passed",
        "second": "missing",
        "third": "passed",
    }
    assert list(machine.limits) == ["first", "third"]
    assert machine.given == {"first": [str(there)], "third": [str(there)]}


# ------------------------------------------------------------------------- commands for real


def test_command_leaves_its_output_and_its_code(tmp_path):
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['CUPY_TF32']); print('bad', file=sys.stderr); exit(3)"
    assert run_command((sys.executable, "-c", code), log, 60) == 3
    assert sorted(log.read_text().split()) == ["0", "bad"]


def assert_ends(process: str) -> None:
    """Wait for the end of a process that was killed; a moment passes until it is gone."""
    status, deadline = Path(f"/proc/{process}/stat"), time.monotonic() + 10
    with suppress(FileNotFoundError, ProcessLookupError):  # it is gone altogether
        while status.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.05)


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child does so, too
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
signal.signal(signal.SIGINT, signal.default_int_handler)
print(child.pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(600)
"""


def test_command_is_interrupted_and_then_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.stages.GRACE_S", 1.0)
    log = tmp_path / "log"
    assert run_command((sys.executable, "-c", STUBBORN), log, 5) is None
    child, word = log.read_text().split()
    assert word == "interrupted"
    assert_ends(child)


TERMINATED = """
import sys
import benchmarks.gpu.__main__ as front_door
from benchmarks.gpu.stages import Stage

sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
stages = [Stage("one", "waits", (sys.executable, "-c", sleeper), 60)]
front_door._facts = lambda: {"GPU": "NVIDIA Pretended 1, sm_90", "commit": "abc"}
front_door.end_with_stages()
sys.exit(front_door.main(["--out", sys.argv[1]], make_plan=lambda folder: stages))
"""


def test_terminated_run_ends_its_stage_and_leaves_a_report(tmp_path):
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", TERMINATED, str(out)], cwd=ROOT)
    log = out / "one.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 143
    assert_ends(log.read_text().strip())
    assert "not reached" in (out / "report.md").read_text()


def test_accuracy_that_is_cut_has_the_recipes_that_came_to_their_end(monkeypatch, capsys):
    tiny = {"dataset": "digits", "iterations": 3, "hidden_sizes": (5,), "model": "two-layer"}
    wanted = [acceptance.Requirement(name, 0.0, tiny) for name in ("one", "two", "three")]
    monkeypatch.setattr(acceptance, "REQUIREMENTS", wanted)
    runs: list[RunResult] = []
    start_run = acceptance.start_run

    def start(settings: Any, **options: Any) -> RunResult:
        done = replace(runs[0], interrupted=True) if runs else start_run(settings, **options)
        runs.append(done)
        return done

    monkeypatch.setattr(acceptance, "start_run", start)
    monkeypatch.setattr(sys, "argv", ["acceptance", "--backends", "numpy"])
    assert acceptance.main() == 130
    captured = capsys.readouterr()
    assert captured.err.startswith("one on numpy: two on numpy: ")
    rows = [line.split(" | ")[-1] for line in captured.out.splitlines() if line.startswith("| ")]
    assert rows[0] == "numpy |"
    assert re.fullmatch(r"\d+\.\d\d% \|", rows[1])
    assert rows[2:] == ["not reached |"] * 2


# ------------------------------------------------------------------------------ the front door


@pytest.fixture
def gpu(monkeypatch):
    facts = {"GPU": "NVIDIA Pretended 1, sm_90", "commit": "abc"}
    monkeypatch.setattr(front_door, "_facts", lambda: facts)


def main(tmp_path: Path, machine: Machine, stages: list[Stage], *flags: str) -> int:
    argv = ["--out", str(tmp_path / "out"), *flags]
    return front_door.main(argv, make_plan=lambda folder: stages, run=machine.run)


def test_report_says_what_ran_failed_and_was_cut(tmp_path, gpu, capsys):
    machine = Machine(good=(1, 0), bad=(2, 1), long=(500, 0))
    stages = [stage("good"), stage("bad"), stage("long"), stage("absent", missing="no tool")]
    assert main(tmp_path, machine, stages) == 1
    report = (tmp_path / "out" / "report.md").read_text()
    for line in (
        "| GPU | NVIDIA Pretended 1, sm_90 |",
        "1 passed, 1 failed, 1 cut, 1 missing.",
        "| [bad](bad.log) | shows bad | failed: exit code 1 | 0 |",
        "| [long](long.log) | shows long | cut: its 100 s were up | 0 |",
        "| absent | shows absent | missing: no tool |  |",
        "| good | 1 |",  # a table that the stage has printed
    ):
        assert line in report.splitlines()
    assert "TF32 is off" in report
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1] == "bad: failed (exit code 1), 0 s"
    assert captured.out.startswith("1 passed, 1 failed, 1 cut, 1 missing; the report is ")


def test_all_that_can_run_has_passed(tmp_path, gpu):
    stages = [stage("good"), stage("absent", missing="no tool")]
    assert main(tmp_path, Machine(good=(1, 0)), stages) == 0


def test_what_is_cut_off_leaves_what_it_has(tmp_path, gpu):
    machine = Machine(good=(1, 0), bad=(1, 1), last=(1, 0))

    def run(command: Any, log: Path, limit_s: float) -> int | None:
        if command == ("last",):
            raise KeyboardInterrupt
        return machine.run(command, log, limit_s)

    machine_cut_off = SimpleNamespace(run=run)
    stages = [stage("good"), stage("bad"), stage("last")]
    with pytest.raises(KeyboardInterrupt):
        main(tmp_path, machine_cut_off, stages)  # type: ignore[arg-type]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "1 passed, 1 failed, 1 not reached." in report


def test_some_of_the_stages(tmp_path, gpu, capsys):
    machine = Machine(good=(1, 0))
    stages = [stage("good"), stage("bad")]
    assert main(tmp_path, machine, stages, "--only", "goof") == 2
    assert "unknown stage goof; choose good, bad" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(tmp_path, machine, stages, "--only", "good") == 0
    assert main(tmp_path, machine, stages, "--only", "good") == 2
    assert "exists already; choose another --out" in capsys.readouterr().err


def test_results_are_named_after_day_and_gpu(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(front_door, "RESULTS", tmp_path)
    assert front_door.main([], make_plan=lambda folder: [], run=Machine().run) == 0
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith("-nvidia-pretended-1")


def test_without_a_gpu_it_ends_at_once(tmp_path, capsys):
    if CupyBackend.availability().ok:
        pytest.skip("this machine has a GPU")
    assert main(tmp_path, Machine(), [stage("never")]) == 2
    found = CupyBackend.availability()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"cannot run here: {found.reason}; {found.remedy}")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BackendUnavailableError):
        front_door._facts()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_facts_of_a_real_gpu(backend):
    assert front_door._facts()["GPU"] == get_backend("cupy").device_info().name


def test_the_plan_names_what_there_is(tmp_path):
    stages = plan(tmp_path)
    names = [stage.name for stage in stages]
    assert names[0] == "tests"
    assert names.index("benchmarks") < names.index("page")
    assert sorted(names[-2:]) == ["memcheck", "racecheck"]
    assert set(choose(CONTENDERS)) == {
        *("cupy", "torch-eager", "torch-compile", "torch-cuda-graph")
    }
    commands = {stage.name: " ".join(stage.command) for stage in stages}
    for name in ("tests", "memcheck", "racecheck"):
        assert "-m gpu --require-backend cupy" in commands[name]
    for name in ("memcheck", "racecheck"):
        assert "--error-exitcode 1" in commands[name]
    assert commands["accuracy"].endswith("--backends cupy")
    assert names.index("opponent") < names.index("benchmarks")
    assert front_door.TOTAL_S <= 8 * 60
    words = {word for stage in stages for word in stage.command}
    modules = {
        word.replace(".", "/") for word in words if word.startswith(("benchmarks.", "tests."))
    }
    files = {word for word in words if word.startswith("tests/")}
    assert len(modules) >= 3
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [name for name in modules if not (ROOT / f"{name}.py").exists()] == []


# -------------------------------------------------------------------- what a step costs beside


@pytest.mark.emulated
def test_everything_is_measured():
    device = Emulator()

    def seconds(work: Any) -> float:
        before = len(device.launched)
        work()
        return 1e-6 * (len(device.launched) - before)  # as if a launch took a microsecond

    amounts = overheads.Amounts(launches=4, nodes=5, rounds=3, copied_bytes=8 * 64, additions=2)
    figures = {
        figure.name: (figure.value, figure.unit)
        for figure in overheads.measure(
            EmulatedCupy(device),
            multiprocessors=2,
            gpu_s=seconds,
            host_s=seconds,
            amounts=amounts,
        )
    }
    assert figures == {
        "launch of an empty kernel, host": (pytest.approx(1), "µs"),
        "launch of an empty kernel, GPU": (pytest.approx(1), "µs"),
        "graph of 5 empty kernels, host": (pytest.approx(5), "µs"),
        "a further node of a graph, GPU": (pytest.approx(1), "µs"),
        "grid barrier of 8 blocks": (0, "µs"),  # one launch, whatever the number of rounds
        "grid barrier of 2 blocks": (0, "µs"),
        "cluster barrier of 8 blocks": (0, "µs"),
        "copy, read and written": (pytest.approx(2 * 8 * 64 / 1e-6 / 1e9), "GB/s"),
        "multiply-adds, float32": (
            pytest.approx(2 * 2 * overheads.CHAINS * 2 * 8 * overheads.THREADS / 1e-6 / 1e12),
            "TFLOP/s",
        ),
    }
    assert "| copy, read and written | 1.02 GB/s |" in overheads.table(
        [overheads.Figure("copy, read and written", 1.024, "GB/s")]
    )


@pytest.mark.emulated
@pytest.mark.parametrize("order", ThreadOrder)
def test_kernels_that_measure_do_the_work_they_are_timed_for(order):
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
    barrier = np.zeros(2, np.uint32)
    cooperative(overheads.kernel(cupy, "meet"))((5,), (64,), (np.int32(7), barrier))
    assert barrier.tolist() == [0, 7]
    cluster = overheads.kernel(cupy, "meet", BLOCKS=8, CLUSTER=1)
    cluster((8,), (64,), (np.int32(7), barrier))
    assert barrier.tolist() == [0, 7]  # it has one of its own


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_a_real_gpu_is_measured(backend, tmp_path):
    assert overheads.main(["--out", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures) in (8, 9)  # one more where there are clusters
    assert all(np.isfinite(figure["value"]) for figure in figures)

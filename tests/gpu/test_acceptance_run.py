"""Stages, report and command line of the acceptance run for GPUs, tested without a GPU."""

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mnist_accel as ma
from backends import BackendUnavailableError, get_backend
from backends.cupy.backend import CupyBackend
from benchmarks.contenders import contenders
from benchmarks.gpu import __main__ as command_line
from benchmarks.gpu.plan import COMPILED_CONTENDERS, CONTENDERS, GPU_FOLDERS, plan
from benchmarks.gpu.stages import Stage, run_command, run_stages
from tests import acceptance

ROOT = Path(__file__).parents[2]


def stage(name: str, limit_s: float = 100, **options: Any) -> Stage:
    return Stage(name, f"shows {name}", (name,), limit_s, **options)


class SimulatedMachine:
    """Simulates a clock and commands with given running times, in seconds, and exit codes."""

    def __init__(self, **commands: tuple[float, int]) -> None:
        self.commands = commands
        self.now = 1000.0
        self.limits: dict[str, float] = {}
        self.arguments: dict[str, list[str]] = {}

    def clock(self) -> float:
        return self.now

    def run(self, command: Any, log: Path, limit_s: float) -> int | None:
        name, *self.arguments[command[0]] = command
        seconds, code = self.commands[name]
        self.limits[name] = limit_s
        log.write_text(f"{name} begins\n| {name} | 1 |\n")
        self.now += min(seconds, limit_s)
        return code if seconds <= limit_s else None


def outcomes(
    machine: SimulatedMachine, stages: list[Stage], folder: Path, total_s: float
) -> dict[str, str]:
    reports: list[list[str]] = []
    results = run_stages(
        stages,
        folder=folder,
        total_s=total_s,
        report=lambda results: reports.append([result.outcome for result in results]),
        run=machine.run,
        clock=machine.clock,
    )
    assert reports[0] == ["not run"] * len(stages)
    assert reports[-1] == [result.outcome for result in results]
    assert len(reports) == len(stages) + 1
    return {result.stage.name: result.outcome for result in results}


# ------------------------------------------------------------------------------------- stages


def test_stages_run_in_order_within_their_limits(tmp_path):
    machine = SimulatedMachine(first=(40, 0), second=(500, 0), third=(30, 3), fourth=(1, 0))
    stages = [stage("first"), stage("second", 60), stage("third"), stage("fourth")]
    assert outcomes(machine, stages, tmp_path, 300) == {
        "first": "passed",
        "second": "timed out",
        "third": "failed",
        "fourth": "passed",
    }
    assert list(machine.limits) == ["first", "second", "third", "fourth"]
    assert machine.limits == {"first": 100, "second": 60, "third": 100, "fourth": 100}
    assert machine.now == 1000 + 40 + 60 + 30 + 1


def test_stages_after_the_total_time_limit_do_not_run(tmp_path):
    machine = SimulatedMachine(first=(95, 0), second=(500, 0), third=(1, 0))
    stages = [stage("first"), stage("second"), stage("third")]
    assert outcomes(machine, stages, tmp_path, 120) == {
        "first": "passed",
        "second": "timed out",
        "third": "not run",
    }
    assert machine.limits == {"first": 100, "second": 25}


def test_stages_with_a_skip_reason_or_without_inputs_are_skipped(tmp_path):
    machine = SimulatedMachine(first=(1, 0), second=(1, 0), third=(1, 0))
    existing, missing = tmp_path / "existing.json", tmp_path / "missing.json"
    existing.touch()
    stages = [
        stage("absent", skip_reason="no such tool"),
        stage("first", inputs=(existing,)),
        stage("second", inputs=(missing,)),
        stage("third", inputs=(missing, existing, tmp_path)),
    ]
    assert outcomes(machine, stages, tmp_path, 120) == {
        "absent": "skipped",
        "first": "passed",
        "second": "skipped",
        "third": "passed",
    }
    assert list(machine.limits) == ["first", "third"]
    assert machine.arguments == {"first": [str(existing)], "third": [str(existing)]}


@pytest.mark.parametrize(
    ("first", "outcomes"), [((1, 3), ["failed", "not run"]), ((500, 0), ["timed out", "passed"])]
)
def test_no_stage_runs_after_a_required_one_that_failed(tmp_path, first, outcomes):
    """A check that is too slow, as on a cold disk, has found nothing."""
    machine = SimulatedMachine(first=first, second=(1, 0))
    results = run_stages(
        [stage("first", is_required=True), stage("second")],
        folder=tmp_path,
        total_s=300,
        report=lambda results: None,
        run=machine.run,
        clock=machine.clock,
    )
    assert [result.outcome for result in results] == outcomes
    assert ("second" in machine.limits) == (outcomes[1] == "passed")


# ----------------------------------------------------------------------------- real commands


def test_command_writes_its_output_and_returns_its_exit_code(tmp_path):
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['CUPY_TF32']); print('bad', file=sys.stderr); exit(3)"
    assert run_command((sys.executable, "-c", code), log, 60) == 3
    assert sorted(log.read_text().split()) == ["0", "bad"]


def assert_process_ends(process: str) -> None:
    """Wait until a killed process has ended; fail after 10 s."""
    status, deadline = Path(f"/proc/{process}/stat"), time.monotonic() + 10
    with suppress(FileNotFoundError, ProcessLookupError):  # the process no longer exists
        while status.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.05)


IGNORES_INTERRUPTS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the child
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


def test_timed_out_command_is_interrupted_then_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.stages.GRACE_S", 1.0)
    log = tmp_path / "log"
    assert run_command((sys.executable, "-c", IGNORES_INTERRUPTS), log, 5) is None
    child, word = log.read_text().split()
    assert word == "interrupted"
    assert_process_ends(child)


RUN_OF_ONE_STAGE = """
import sys
import benchmarks.gpu.__main__ as command_line
from benchmarks.gpu.stages import Stage

sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
stages = [Stage("one", "waits", (sys.executable, "-c", sleeper), 60)]
command_line._facts = lambda: {"GPU": "NVIDIA Simulated 1, sm_90", "commit": "abc"}
command_line.exit_on_sigterm()
sys.exit(command_line.main(["--out", sys.argv[1]], make_plan=lambda folder: stages))
"""


@pytest.mark.posix
def test_terminated_run_stops_its_stage_and_leaves_a_report(tmp_path):
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", RUN_OF_ONE_STAGE, str(out)], cwd=ROOT)
    log = out / "one.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 143
    assert_process_ends(log.read_text().strip())
    assert "not run" in (out / "report.md").read_text()


def test_recipe_that_fails_does_not_stop_the_accuracy_stage(monkeypatch, capsys):
    tiny = {"data": "digits", "iterations": 3, "hidden_sizes": (5,), "model": "two-layer"}
    requirements = [
        acceptance.Requirement("one", 0.0, {**tiny, "data": "no such data"}),
        acceptance.Requirement("two", 0.0, tiny),
    ]
    monkeypatch.setattr(acceptance, "REQUIREMENTS", requirements)
    monkeypatch.setattr(sys, "argv", ["acceptance", "--backend", "numpy", "--seeds", "2"])
    assert acceptance.main() == 1
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("| one | 0.0% | **failed**: ")
    assert second.startswith("| two | 0.0% | ")


def test_interrupted_accuracy_stage_prints_the_finished_recipes(monkeypatch, capsys):
    tiny = {"data": "digits", "iterations": 3, "hidden_sizes": (5,), "model": "two-layer"}
    requirements = [acceptance.Requirement(name, 0.0, tiny) for name in ("one", "two", "three")]
    monkeypatch.setattr(acceptance, "REQUIREMENTS", requirements)
    train = ma.train_population

    def train_once(**options: Any) -> ma.Population:
        monkeypatch.setattr(ma, "train_population", interrupt)
        return train(**options)

    def interrupt(**options: Any) -> ma.Population:
        raise KeyboardInterrupt

    monkeypatch.setattr(ma, "train_population", train_once)
    monkeypatch.setattr(sys, "argv", ["acceptance", "--backend", "numpy", "--seeds", "2"])
    assert acceptance.main() == 130
    captured = capsys.readouterr()
    assert captured.err.startswith("one: ")
    rows = [line for line in captured.out.splitlines() if line.startswith("| ")]
    assert len(rows) == 2
    assert re.fullmatch(r"\| one \| 0\.0% \| \d+\.\d\d% ± \d+\.\d\d% \|", rows[1])


# ------------------------------------------------------------------------------ command line


@pytest.fixture
def gpu(monkeypatch):
    facts = {"GPU": "NVIDIA Simulated 1, sm_90", "commit": "abc"}
    monkeypatch.setattr(command_line, "_facts", lambda: facts)


def main(tmp_path: Path, machine: Any, stages: list[Stage], *flags: str) -> int:
    argv = ["--out", str(tmp_path / "out"), *flags]
    return command_line.main(argv, make_plan=lambda folder: stages, run=machine.run)


def test_report_lists_outcomes_and_tables_of_all_stages(tmp_path, gpu, capsys):
    machine = SimulatedMachine(good=(1, 0), bad=(2, 1), long=(500, 0))
    stages = [stage("good"), stage("bad"), stage("long"), stage("absent", skip_reason="no tool")]
    assert main(tmp_path, machine, stages) == 1
    report = (tmp_path / "out" / "report.md").read_text()
    for line in (
        "| GPU | NVIDIA Simulated 1, sm_90 |",
        "1 passed, 1 failed, 1 timed out, 1 skipped.",
        "| [bad](bad.log) | shows bad | failed: exit code 1 | 0 |",
        "| [long](long.log) | shows long | timed out: limit 100 s | 0 |",
        "| absent | shows absent | skipped: no tool |  |",
        "| good | 1 |",  # from the table that the stage printed
    ):
        assert line in report.splitlines()
    assert "TF32 is disabled" in report
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1:3] == ["bad: failed (exit code 1), 0 s", "    bad begins"]
    assert captured.out.startswith("1 passed, 1 failed, 1 timed out, 1 skipped; the report is ")


def test_results_are_packed_after_each_stage(tmp_path, gpu):
    archive = tmp_path / "out.tar.gz"
    packed = []

    def run(command: Any, log: Path, limit_s: float) -> int:
        with tarfile.open(archive) as file:
            packed.append(sorted(Path(name).name for name in file.getnames()))
        log.touch()
        return 0

    stages = [stage("first"), stage("second")]
    assert main(tmp_path, SimpleNamespace(run=run), stages) == 0
    assert packed == [["out", "report.md"], ["first.log", "out", "report.md"]]
    with tarfile.open(archive) as file:
        assert "out/second.log" in file.getnames()


def test_archive_may_lie_elsewhere(tmp_path, gpu, capsys):
    archive = tmp_path / "elsewhere" / "packed.tar.gz"
    archive.parent.mkdir()
    flags = ("--archive", str(archive))
    assert main(tmp_path, SimulatedMachine(good=(1, 0)), [stage("good")], *flags) == 0
    with tarfile.open(archive) as file:
        assert "out/good.log" in file.getnames()
    assert f"packed in {archive}" in capsys.readouterr().out
    assert not (tmp_path / "out.tar.gz").exists()


GPU_THAT_FAILS = """
from types import SimpleNamespace
broken = False
def synchronize():
    if broken:
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
cuda = SimpleNamespace(runtime=SimpleNamespace(deviceSynchronize=synchronize))
"""
TESTS_OF_THAT_GPU = """
import cupy, pytest, time
@pytest.mark.parametrize("number", range(4))
def test_one(number):
    assert not cupy.broken
    cupy.broken = number == 1
    if number == 2:
        time.sleep(60)
"""


@pytest.mark.posix
@pytest.mark.slow
def test_tests_that_break_or_hang_the_gpu_fail_alone(tmp_path):
    (tmp_path / "cupy.py").write_text(GPU_THAT_FAILS)
    (tmp_path / "test_gpu.py").write_text(TESTS_OF_THAT_GPU)
    (tmp_path / "pytest.ini").touch()
    tests = next(stage for stage in plan(tmp_path) if stage.name == "tests")
    (begin,) = (i for i, word in enumerate(tests.command) if word.endswith("fresh_context"))
    options = [*tests.command[begin - 1 :]]
    options[options.index("--timeout") + 1] = "2"
    options[options.index("--numprocesses") + 1] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", *options, "test_gpu.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert "2 failed, 2 passed" in done.stdout, done.stdout
    assert "test_one[1]: the GPU failed: cudaErrorIllegalAddress" in done.stderr


def test_skipped_stages_do_not_fail_the_run(tmp_path, gpu):
    stages = [stage("good"), stage("absent", skip_reason="no tool")]
    assert main(tmp_path, SimulatedMachine(good=(1, 0)), stages) == 0


def test_interrupted_run_leaves_a_report(tmp_path, gpu):
    machine = SimulatedMachine(good=(1, 0), bad=(1, 1), last=(1, 0))

    def run(command: Any, log: Path, limit_s: float) -> int | None:
        if command == ("last",):
            raise KeyboardInterrupt
        return machine.run(command, log, limit_s)

    stages = [stage("good"), stage("bad"), stage("last")]
    assert main(tmp_path, SimpleNamespace(run=run), stages) == 130
    report = (tmp_path / "out" / "report.md").read_text()
    assert "1 passed, 1 failed, 1 not run." in report


def test_option_only_selects_stages_and_out_must_be_a_new_folder(tmp_path, gpu, capsys):
    machine = SimulatedMachine(good=(1, 0))
    stages = [stage("good"), stage("bad")]
    assert main(tmp_path, machine, stages, "--only", "goof") == 2
    assert "unknown stage 'goof'; choose from good, bad" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(tmp_path, machine, stages, "--only", "good") == 0
    assert main(tmp_path, machine, stages, "--only", "good") == 2
    assert "exists already; choose another --out" in capsys.readouterr().err


def test_default_folder_is_named_after_date_and_gpu(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(command_line, "RESULTS", tmp_path)
    run = SimulatedMachine().run
    assert command_line.main([], make_plan=lambda folder: [], run=run) == 0
    folder, archive = sorted(tmp_path.iterdir())
    assert folder.name.endswith("-nvidia-simulated-1")
    assert archive.name == f"{folder.name}.tar.gz"


def test_run_without_a_gpu_starts_no_stage(tmp_path, capsys):
    if CupyBackend.availability().ok:
        pytest.skip("this machine has a GPU")
    assert main(tmp_path, SimulatedMachine(), [stage("never")]) == 3
    availability = CupyBackend.availability()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"cannot run here: {availability.reason}; {availability.remedy}")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BackendUnavailableError):
        command_line._facts()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_facts_contain_the_name_of_the_gpu(backend):
    assert command_line._facts()["GPU"] == get_backend("cupy").device_info().name


# ---------------------------------------------------------------------------------------- plan


def test_plan_names_existing_files_modules_and_contenders(tmp_path):
    stages = plan(tmp_path)
    words = {word for stage in stages for word in stage.command}
    modules = {
        word.replace(".", "/") for word in words if word.startswith(("benchmarks.", "tests."))
    }
    files = {word for word in words if re.fullmatch(r"tests/.*\.py", word)}
    assert len(modules) >= 3
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []
    programs = {
        name: [file for file in (f"{name}.py", f"{name}/__main__.py") if (ROOT / file).exists()]
        for name in modules
    }
    assert [name for name, files in programs.items() if not files] == []
    named = {*CONTENDERS.split(","), *COMPILED_CONTENDERS.split(",")}
    assert named <= contenders().keys()
    # The stages run these files with `-m gpu`, which must select at least one test in each.
    for file in files:
        assert re.search(r"@emulated_and_cupy|mark\.gpu", (ROOT / file).read_text()), file


def test_plan_orders_stages_by_value_and_requires_the_gpu(tmp_path):
    stages = plan(tmp_path)
    names = [stage.name for stage in stages]
    important = names[: names.index("report") + 1]
    assert important == [
        *("preflight", "smoke", "tests", "overheads", "accuracy", "pytorch", "benchmarks", "report")
    ]
    assert stages[0].is_required
    assert sum(stage.limit_s for stage in stages[: len(important)]) <= command_line.TOTAL_S
    assert command_line.TOTAL_S <= 9 * 60
    commands = {stage.name: " ".join(stage.command) for stage in stages}
    for name in ("tests", "memcheck", "racecheck"):
        assert "-m gpu --require-backend cupy" in commands[name]
        assert "-v --tb=short" in commands[name]
    for name in ("memcheck", "racecheck"):
        assert "--error-exitcode 1" in commands[name]
    assert commands["accuracy"].endswith("--backend cupy --seeds 1")


def test_all_folders_with_tests_for_a_gpu_are_tested():
    others = [
        folder
        for folder in (ROOT / "tests").iterdir()
        if folder.is_dir() and f"tests/{folder.name}" not in GPU_FOLDERS
    ]
    names = ("mark.gpu", "emulated_and_cupy", "backend: Backend")
    texts = [file.read_text("utf-8") for folder in others for file in folder.glob("test_*.py")]
    assert [text for text in texts if any(name in text for name in names)] == []


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (8, 6), (16, 12)])
def test_tests_run_on_three_quarters_of_the_cores(tmp_path, monkeypatch, cores, workers):
    monkeypatch.setattr("benchmarks.gpu.plan.usable_cores", lambda: cores)
    tests = next(stage for stage in plan(tmp_path) if stage.name == "tests")
    assert f"--numprocesses {workers} " in " ".join(tests.command)

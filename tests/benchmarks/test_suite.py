"""The benchmark suite: does it measure what it says, and refuse to measure what is wrong?"""

import copy
import fcntl
import gzip
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import ClassVar

import numba
import numpy as np
import pytest

from backends import registry
from backends.numpy.backend import NumpyBackend
from benchmarks import ceilings, costs, laboratory, progress, runner, settings, test_accuracy
from benchmarks.__main__ import main
from benchmarks.cases import (
    AccuracyCase,
    InferenceCase,
    OperationCase,
    TrainingCase,
    inference_cases,
    operation_cases,
    training_cases,
)
from benchmarks.checks import CheckError
from benchmarks.contenders import contenders
from benchmarks.contenders.project import ProjectBackend
from benchmarks.host import host_facts
from benchmarks.laboratory import Laboratory, NotComparableError
from benchmarks.memory import own_peak_bytes, peak_memory
from benchmarks.record import Record
from benchmarks.result_files import load_results
from benchmarks.settings import Wishes
from mnist_accel.errors import UsageError
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SMALL = TrainingCase("two-layer", 10)
CNN = TrainingCase("cnn", 10)
POOLING = OperationCase("max_pool2d", "backward", (2, 8, 8), 3, (("size", 2),))
CONVOLUTION = OperationCase(
    "conv2d", "backward", (2, 8, 8), 3, (("stride", 1), ("padding", 0)), (4, 2, 3, 3)
)


# What is measured


def test_every_recipe_is_trained_at_its_own_batch_and_at_all_others():
    batches = {name: set() for name in RECIPES}
    for case in training_cases("full"):
        if "batch" in case.sweeps:
            batches[case.network].add(case.batch)
    assert all(sizes == {1, 10, 64, 512, 4096} for sizes in batches.values())
    own = {case.network: case.batch for case in training_cases("full") if "recipe" in case.sweeps}
    assert own == {
        "fcnn": 60_000, "two-layer": 512, "backprop": 10, "cnn": 1, "three-layer": 64, "lenet": 64,
        "fast99": 64,
    }  # fmt: skip


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize("cases", [training_cases, inference_cases, operation_cases])
def test_names_tell_cases_apart(cases, profile):
    names = [case.name for case in cases(profile)]
    assert names
    assert len(set(names)) == len(names)


def test_cost_of_a_network_is_counted_by_hand():
    model = create_model("two-layer", backend="numpy")
    first, second = 2 * 784 * 50, 2 * 50 * 10
    assert costs.forward_cost(model) == costs.Cost(first + second, 4 * 784)
    assert costs.training_cost(model) == costs.Cost(2 * first + 3 * second, 784)
    model = create_model("cnn", backend="numpy")
    assert costs.forward_cost(model).flops == 2 * 26 * 26 * 8 * 9 + 2 * 1352 * 10


@pytest.mark.parametrize(
    "measure",
    [
        ceilings.processor_ceilings,
        lambda clock: ceilings.device_ceilings(NumpyBackend(), clock),
    ],
)
def test_ceilings_are_those_of_the_fastest_repetition(monkeypatch, measure):
    monkeypatch.setattr(ceilings, "MATRIX_SIDE", {"cpu": 10, "gpu": 10})
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1000)
    # Of seven products the shortest takes 2, of seven copies 4.
    times = iter(np.cumsum([0, 3, 9, 2, 9, 4, *[9, 5] * 4, 9, 6, 9, 4, *[9, 8] * 5]))
    measured = measure(lambda: next(times))
    assert measured.flops_per_s == 2 * 10**3 / 2
    assert measured.bytes_per_s == 2 * 1000 / 4


@pytest.mark.gpu
def test_a_gpu_has_ceilings_of_its_own():
    if not contenders()["cupy"].availability():
        pytest.skip("cupy does not compute on a GPU here")
    best = ceilings.measure_ceilings()
    assert best["gpu"].flops_per_s > best["cpu"].flops_per_s
    assert best["gpu"].bytes_per_s > best["cpu"].bytes_per_s


def test_memory_is_that_of_the_process_alone_however_large_its_parent():
    ballast = np.ones(2**28, np.uint8)
    code = "from benchmarks.memory import own_peak_bytes; print(own_peak_bytes())"
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 2**20 < int(child.stdout) < ballast.nbytes
    assert own_peak_bytes() > ballast.nbytes


@pytest.mark.parametrize(
    ("name", "bytes_a_pixel"),
    [("numpy", 1), pytest.param("scikit-learn", 8, marks=pytest.mark.slow)],
)
def test_memory_of_a_training_holds_all_its_images(name, bytes_a_pixel):
    """Peers make float32 of them, by way of a copy."""
    if not contenders()[name].availability():
        pytest.skip(f"{name} is not installed")
    peak = peak_memory("two-layer", 10, name)
    assert peak.host_bytes > 60_000 * 784 * bytes_a_pixel
    assert peak.device_bytes is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cupy", "torch-eager"])
def test_memory_of_a_training_on_a_gpu_holds_its_images(name):
    one = contenders()[name]
    if not one.availability() or one.device() == "cpu":
        pytest.skip(f"{name} does not compute on a GPU here")
    assert peak_memory("two-layer", 512, name).device_bytes > 60_000 * 784


def test_host_facts_say_on_what():
    facts = host_facts()
    assert facts["cores"] >= facts["threads"] >= 1
    assert facts["versions"]["numpy"] == np.__version__
    assert len(facts["load_average"]) == 3


# What is refused


class Doubled(NumpyBackend):
    """A backend with a broken kernel: gradients of filters are a ten-thousandth too large."""

    name: ClassVar[str] = "doubled"

    def conv2d_backward(self, dy, x, weight, **settings):
        dx, dweight, dbias = super().conv2d_backward(dy, x, weight, **settings)
        return dx, dweight * np.float32(1.0001), dbias


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setitem(registry._registered, Doubled.name, Doubled)
    return ProjectBackend(Doubled.name)


@pytest.mark.parametrize("case", [CNN, CONVOLUTION])
def test_broken_kernel_gets_no_time(broken, case):
    with pytest.raises(CheckError, match=r"is 0\.0001 off the float64 reference"):
        Laboratory().prepare(case, broken)


def test_what_a_broken_kernel_does_not_touch_is_measured(broken):
    assert Laboratory().prepare(POOLING, broken).check.difference < 1e-6
    assert Laboratory().prepare(InferenceCase("cnn", 3), broken).check.difference < 1e-6


@pytest.mark.parametrize("fewest", [1, 2])
def test_broken_epoch_gets_no_time(monkeypatch, fewest):
    """Even if it goes wrong only where a call makes more steps than one."""
    epoch = importlib.import_module("backends.numba.kernels.epoch")
    run_steps = epoch.run_steps

    def broken_steps(*given):
        run_steps(*given)
        packed, bounds = given[6], given[11]
        if len(bounds) >= fewest:
            packed *= np.float32(1.001)

    monkeypatch.setattr(epoch, "run_steps", broken_steps)
    with pytest.raises(CheckError, match="off the float64 reference"):
        Laboratory().prepare(SMALL, contenders()["numba"])


def test_wrong_predictions_get_no_time(monkeypatch):
    class Shifted(NumpyBackend):
        name: ClassVar[str] = "shifted"

        def softmax(self, logits):
            return super().softmax(logits)[:, ::-1]

    monkeypatch.setitem(registry._registered, Shifted.name, Shifted)
    with pytest.raises(CheckError, match="probabilities"):
        Laboratory().prepare(InferenceCase("two-layer", 3), ProjectBackend("shifted"))


def test_reference_itself_is_judged_by_the_loops(monkeypatch):
    """A mistake in the NumPy backend is found, though all others are compared with it."""
    from benchmarks import checks

    linear = NumpyBackend.linear
    monkeypatch.setattr(NumpyBackend, "linear", lambda *given: linear(*given) * (1 + 1e-9))
    checks.judge_network.cache_clear()
    with pytest.raises(CheckError):
        checks.judge_network("two-layer")
    monkeypatch.undo()
    checks.judge_network("two-layer")


def test_absence_has_a_reason():
    gone = ProjectBackend("cupy")
    if gone.availability().ok:
        pytest.skip("a GPU is there")
    with pytest.raises(NotComparableError, match=r".+; .+"):
        Laboratory().prepare(SMALL, gone)


# What is waited for


class Lazy(NumpyBackend):
    """A backend that, as a GPU, has work pending until somebody waits for it, or fetches it."""

    name: ClassVar[str] = "lazy"
    pending: ClassVar[int] = 0

    def linear(self, *arrays):
        Lazy.pending += 1
        return super().linear(*arrays)

    def max_pool2d_backward(self, *arrays, **settings):
        Lazy.pending += 1
        return super().max_pool2d_backward(*arrays, **settings)

    def synchronize(self):
        Lazy.pending = 0

    def to_numpy(self, array):
        Lazy.pending = 0
        return super().to_numpy(array)


@pytest.mark.parametrize("case", [SMALL, InferenceCase("two-layer", 3), POOLING])
def test_nothing_is_pending_when_the_clock_is_read(monkeypatch, case):
    monkeypatch.setitem(registry._registered, Lazy.name, Lazy)
    prepared = Laboratory().prepare(case, ProjectBackend("lazy"))
    Lazy.pending = 0
    prepared.run()
    assert Lazy.pending == 0


# How it is measured


def test_epoch_of_a_slow_contender_is_cut(monkeypatch):
    from benchmarks import laboratory

    monkeypatch.setattr(laboratory, "RUN_S", 1e-9)
    prepared = Laboratory().prepare(SMALL, contenders()["numpy"])
    assert (prepared.steps, prepared.images) == (1, 10)


class Paced(ProjectBackend):
    """NumPy, on a clock that only its updates and its epochs move."""

    def __init__(self, *, update_s, step_s):
        super().__init__("numpy")
        self.now, self._update_s, self._step_s = 0.0, update_s, step_s

    def clock(self):
        return self.now

    def training(self, task):
        session = super().training(task)
        updates, steps = session.updates, len(task.images) // task.batch_size

        def slow_updates(batches):
            self.now += self._update_s * len(batches)
            return updates(batches)

        def slow_run():
            self.now += steps * self._step_s

        session.updates, session.run = slow_updates, slow_run
        return session


def test_pairs_are_prepared_once_and_begin_each_pass_anew():
    contender = Paced(update_s=1e-6, step_s=1e-6)
    laboratory = Laboratory(clock=contender.clock)
    prepared = laboratory.prepare(SMALL, contender)
    assert prepared.steps == SMALL.steps
    assert prepared.images == SMALL.steps * 10
    assert laboratory.prepare(SMALL, contender) is prepared


@pytest.mark.parametrize(
    ("update_s", "step_s", "steps"),
    [
        (1e-6, 1e-6, 500),  # as the case has them
        (5e-3, 1e-6, 500),  # an epoch is far quicker than single updates
        (1e-6, 9.9e-4, 151),  # an epoch of 495 ms is cut to 150
        (5e-3, 9e-3, 30),  # less than double is not worth another session
        (9, 9, 1),
    ],
)
def test_epochs_are_as_long_as_a_contender_is_quick(update_s, step_s, steps):
    contender = Paced(update_s=update_s, step_s=step_s)
    prepared = Laboratory(clock=contender.clock).prepare(SMALL, contender)
    assert prepared.steps == steps


def test_a_contender_that_takes_now_this_and_now_that_long_is_tried_three_times():
    contender = Paced(update_s=1e-3, step_s=1)
    make, paces = contender.training, []

    def training(task):
        contender._step_s = (1, 1e-6)[len(paces) % 2]
        paces.append(contender._step_s)
        return make(task)

    contender.training = training
    Laboratory(clock=contender.clock).prepare(SMALL, contender)
    assert len(paces) == 1 + 3  # one is checked


def test_compiling_is_that_of_the_first_session():
    """Which leaves its code to those that follow."""
    contender = Paced(update_s=1e-6, step_s=1e-6)
    make, left = contender.training, [5.0, 0.0]

    def training(task):
        session = make(task)
        session.compile_s = left.pop(0)
        return session

    contender.training = training
    prepared = Laboratory(clock=contender.clock).prepare(SMALL, contender)
    assert prepared.phases_s["compile"] == 5
    assert left == []


def test_numba_is_timed_where_it_compiles(monkeypatch):
    task = laboratory.training_task(SMALL, 1)
    contender = contenders()["numba"]
    contender.training(task)
    assert contender.training(task).compile_s == 0
    compiled = numba.njit(lambda number: number + 1)
    prepare = Trainer.prepare
    monkeypatch.setattr(Trainer, "prepare", lambda *given: compiled(1) and prepare(*given))
    assert contender.training(task).compile_s > 0


def test_continued_run_keeps_the_length_of_epochs():
    contender = Paced(update_s=9, step_s=9)
    settled = {(SMALL.name, contender.name): 7}
    laboratory = Laboratory(clock=contender.clock, steps_before=settled)
    assert laboratory.prepare(SMALL, contender).steps == 7


@pytest.mark.parametrize(("call_s", "rounds", "calls"), [(1e-5, 100, 50), (0.01, 10, 1), (9, 2, 1)])
def test_short_calls_are_repeated_and_long_ones_are_few(call_s, rounds, calls):
    contender = Paced(update_s=1e-6, step_s=call_s)
    laboratory = Laboratory(clock=contender.clock)
    one_step = TrainingCase("two-layer", 7)
    prepared = laboratory.prepare(one_step, contender)
    assert prepared.steps == 1
    assert laboratory.rounds(prepared, budget_s=0.1) == (rounds, calls)


def test_a_pass_is_measured_when_its_threads_have_spread():
    contender = Paced(update_s=1e-6, step_s=1e-4)
    laboratory = Laboratory(clock=contender.clock)
    prepared = laboratory.prepare(TrainingCase("two-layer", 7), contender)
    spread_at = contender.now + 0.1

    def run():
        contender.now += 8e-3 if contender.now < spread_at else 1e-4

    assert laboratory.rounds(replace(prepared, run=run), budget_s=0.1) == (100, 5)


# What is kept

WISHES = Wishes(levels="operations", contenders="numpy", passes=1)


def test_journal_keeps_all_but_a_line_cut_short(tmp_path):
    journal = tmp_path / "journal"
    record = Record.open(WISHES, journal)
    facts = {"level": "training", "case": SMALL.name, "contender": "numpy", "steps": 7}
    record.add("one", {"params": {"case": SMALL}, "extra_info": facts})
    record.absent("training", "case", "cupy", "no GPU")
    record.absent("training", "case", "cupy", "no GPU")
    with journal.open("a") as file:
        file.write('{"kind": "meas')
    Record.open(Wishes(), journal).failed("training", "other case", "numpy", "wrong")
    again = Record.open(Wishes(), journal)
    assert again.settings == record.settings
    assert again.done == {"one"}
    assert again.steps == {(SMALL.name, "numpy"): 7}
    assert again.missing("training", "case", "cupy") == ("absent", "no GPU")
    assert again.missing("training", "case", "numpy") is None
    document = {}
    again.complete(document)
    assert not document["mnist_accel"]["complete"]
    again.end()
    again.complete(document)
    assert document["mnist_accel"]["complete"]
    assert document["benchmarks"] == [{"params": {"case": SMALL.name}, "extra_info": facts}]
    row = {"level": "training", "case": "case", "contender": "cupy", "reason": "no GPU"}
    assert document["mnist_accel"]["absent"] == [row]
    (failed,) = document["mnist_accel"]["failed"]
    assert (failed["case"], failed["reason"]) == ("other case", "wrong")


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        (Wishes(profile="full"), "with profile quick, not full"),
        (Wishes(levels="operations,training"), "with levels operations, not training,operations"),
        (Wishes(contenders="numba"), "with contenders numpy, not numba"),
        (Wishes(passes=2), "with passes 1, not 2"),
        (Wishes(seed=7), "with seed 0, not 7"),
        (Wishes(threads=999), "not 999"),
    ],
)
def test_run_goes_on_with_its_own_settings(tmp_path, wishes, says):
    journal = tmp_path / "journal"
    begun = Record.open(WISHES, journal).settings
    assert Record.open(WISHES, journal).settings == begun
    with pytest.raises(UsageError, match=says):
        Record.open(wishes, journal)


@pytest.mark.parametrize(
    ("fact", "value"), [("commit", "abc"), ("dirty", "perhaps"), ("threads", 999)]
)
def test_run_does_not_go_on_with_other_code_or_cores(tmp_path, fact, value):
    journal = tmp_path / "journal"
    begun = Record.open(WISHES, journal).settings
    line = json.loads(journal.read_text())
    line["settings"][fact] = value
    journal.write_text(json.dumps(line) + "\n")
    here = getattr(begun, fact)
    with pytest.raises(UsageError, match=f"with {fact} {value}, but here it is {here}"):
        Record.open(Wishes(), journal)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds nothing to go on with"),
        ('{"kind": "run", "settings": {"profile": "quick"}}\n', "not a journal of this version"),
        ("[]\n", "not a journal of this version"),
        ("measured\n", "is not the journal of a benchmark run"),
    ],
)
def test_foreign_journals_are_refused(tmp_path, capsys, content, says):
    (tmp_path / "out.json.journal").write_text(content)
    assert main(["run", "--continue", "--out", str(tmp_path / "out.json")]) == 2
    assert says in capsys.readouterr().err


# The front door

QUICK = ("run", "--levels", "operations", "--passes", "1")


def start(*command, path="", **options):
    # pytest-benchmark takes no time in a worker of pytest-xdist, and knows one by these variables.
    env = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        env=env | {"PYTHONPATH": f"{ROOT}:{path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **{"cwd": ROOT, **options},
    )


def suite(*arguments, **options):
    return start("benchmarks", *arguments, **options)


def interrupted(*arguments, journal, **options):
    """Interrupt a run that has measured something; return the commands to go on, and to report."""
    first = suite(*arguments, **options)
    while not (journal.exists() and journal.read_text().count('"measured"') >= 2):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    return command_after("go on with: ", err), command_after("see what there is with: ", err)


def command_after(words, err):
    """Return the arguments of the command that is proposed behind these words."""
    command = err.partition(f"{words}python -m benchmarks ")[2].partition("\n")[0]
    return shlex.split(command)


def test_a_run_is_interrupted_and_continued(tmp_path):
    out = tmp_path / "my results.json.gz"
    journal = tmp_path / "my results.json.gz.journal"
    arguments = (*QUICK, "--contenders", "numpy,cupy", "--threads", 1, "--out", out)
    go_on, report = interrupted(*arguments, journal=journal)
    measured = journal.read_text().count('"measured"')
    assert list(tmp_path.iterdir()) == [journal]
    assert main([*report, "--out", str(tmp_path / "so far")]) == 0
    so_far = (tmp_path / "so far" / "my results.md").read_text()
    assert "not complete" in so_far
    assert "cupy" in so_far
    shutil.rmtree(tmp_path / "so far")
    second = suite(*go_on)
    printed, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert str(out) in printed
    assert list(tmp_path.iterdir()) == [out]
    document = json.loads(gzip.decompress(out.read_bytes()))
    assert len(document["benchmarks"]) == len(operation_cases("quick"))
    assert document["mnist_accel"]["complete"]
    assert document["mnist_accel"]["threads"] == 1
    assert document["machine_info"]["python_version"]
    assert measured < len(document["benchmarks"])
    results = load_results([out])
    assert {one.contender for one in results.measurements.values()} == {"numpy"}
    assert {row.contender for row in results.absent} == {"cupy"}


def test_a_run_that_still_goes_on_is_left_alone(tmp_path, capsys):
    out, journal = tmp_path / "a.json", tmp_path / "a.json.journal"
    Record.open(WISHES, journal)
    with journal.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["run", "--continue", "--out", str(out)]) == 2
    assert "still goes on; wait for it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [journal]


@pytest.mark.slow
def test_newest_run_goes_on_even_if_nothing_is_left_to_time(tmp_path):
    """Nobody need remember what was interrupted, nor is it lost if all is measured."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    out = folder / "new.json"
    arguments = (*QUICK, "--contenders", "numpy", "--out", out)
    interrupted(*arguments, journal=folder / "new.json.journal", cwd=tmp_path)
    _measure_the_rest(folder / "new.json.journal")
    older = folder / "old.json.journal"
    older.write_text("an older run")
    os.utime(older, (0, 0))
    second = suite("run", "--continue", cwd=tmp_path)
    printed, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "results are in benchmarks/results/new.json" in printed
    assert sorted(folder.iterdir()) == [out, older]
    assert len(load_results([out]).measurements) == len(operation_cases("quick"))


def _measure_the_rest(journal):
    """Make up all times, as if the run had been interrupted a moment before its end."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    measured = next(line for line in lines if line["kind"] == "measured")
    lines = [line for line in lines if line["kind"] != "measured"]
    for case in operation_cases("quick"):
        for number in range(3):
            line = copy.deepcopy(measured)
            name = f"{case.name}-numpy-{number}".encode("unicode_escape").decode()
            line["test"] = f"benchmarks/test_operations.py::test_operations[{name}]"
            line["benchmark"]["extra_info"] |= {"case": case.name, "pass": number}
            lines.append(line)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_run_without_anybody_says_so(tmp_path):
    if contenders()["cupy"].availability().ok:
        pytest.skip("a GPU is there")
    out = tmp_path / "out.json"
    process = suite(*QUICK, "--contenders", "cupy", "--out", out)
    printed, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert f"results are in {out}" in printed
    results = load_results([out])
    assert not results.measurements
    assert {row.case for row in results.absent} == {case.name for case in operation_cases("quick")}


@pytest.mark.parametrize("content", [None, "", '{"benchmarks": []}'])
@pytest.mark.parametrize("code", [0, 1, 3])
def test_journal_stays_until_the_result_file_can_be_read(tmp_path, capsys, content, code):
    """Python ends with 1 when it breaks down, as pytest does when a test has failed."""
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    journal.write_text("measured")
    if content is not None:
        out.write_text(content)
    assert runner._conclude(out, journal, code) == 4
    printed, err = capsys.readouterr()
    assert "results are in" not in printed
    assert f"go on with: python -m benchmarks run --continue --out {out}" in err
    assert journal.read_text() == "measured"


def test_result_file_that_cannot_be_written_loses_nothing(tmp_path):
    journal, out = tmp_path / "journal", tmp_path / "gone" / "out.json"
    process = start("pytest", *SMALLEST, "--journal", journal, "--results", out)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 4
    assert f"cannot write {out}: No such file" in err
    assert journal.read_text().count('"measured"') == 1


CRASHING = """
import time
from pathlib import Path
from backends import register
from backends.numpy.backend import NumpyBackend

class Crashing(NumpyBackend):
    name = "crashing"

    def max_pool2d(self, *arrays, **settings):
        with Path("CALLS").open("a") as file:
            file.write("called\\n")
        raise RuntimeError("no such pool\\nand much more")

    def conv2d(self, *arrays, **settings):
        raise MemoryError

    def linear(self, *arrays):
        time.sleep(60)

register(Crashing)
"""


def test_crashes_are_recorded_once_and_shown(tmp_path):
    calls, out = tmp_path / "calls", tmp_path / "out.json"
    (tmp_path / "crashing_backend.py").write_text(CRASHING.replace("CALLS", str(calls)))
    choice = ("--levels", "operations", "--contenders", "crashing", "--passes", "2")
    cases = ("-k", "max_pool2d-forward or forward and not relu")
    process = start(
        *("pytest", "benchmarks", "-p", "crashing_backend", *choice, *cases, "--timeout", "2"),
        *("--results", out),
        path=tmp_path,
    )
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 1, printed
    results = load_results([out])
    failed = {row.case.split()[0]: row.reason for row in results.failed}
    assert failed.pop("linear").startswith("Failed: Timeout")
    assert failed == {"max_pool2d": "RuntimeError: no such pool", "conv2d": "MemoryError"}
    assert "RuntimeError: no such pool" in printed
    assert calls.read_text() == "called\n"
    measured = {row.case.network for row in results.measurements.values()}
    assert measured == {"softmax_cross_entropy", "sgd_update", "adam_update"}


KILLING = """
import os
import signal
from backends import register
from backends.numpy.backend import NumpyBackend

class Killing(NumpyBackend):
    name = "killing"

    def max_pool2d(self, *arrays, **settings):
        os.kill(os.getpid(), signal.SIGKILL)

register(Killing)
"""


@pytest.mark.slow
def test_what_ends_the_process_is_not_met_again(tmp_path):
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    (tmp_path / "killing_backend.py").write_text(KILLING)
    command = (
        *("pytest", "benchmarks", "-p", "killing_backend", "--levels", "operations"),
        *("-k", "max_pool2d and forward and not relu or sgd_update", "--passes", "2"),
        *("--contenders", "killing", "--journal", journal, "--results", out),
    )
    killed = start(*command, path=tmp_path)
    killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert runner._conclude(out, journal, killed.returncode) == 4
    goes_on = start(*command, path=tmp_path)
    printed, _ = goes_on.communicate(timeout=200)
    assert goes_on.returncode == 1, printed
    results = load_results([out])
    (failed,) = results.failed
    assert failed.case.startswith("max_pool2d forward")
    assert failed.reason == "it ended the process"
    assert {row.case.network for row in results.measurements.values()} == {"sgd_update"}


def test_nothing_is_blamed_that_did_not_end_the_process(tmp_path):
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    record = Record.open(WISHES, journal)
    record.begin("training", "case", "numpy")
    record.failed("training", "case", "numpy", "wrong")
    assert runner._conclude(out, journal, -signal.SIGKILL) == 4  # between two measurements
    record.begin("training", "other case", "numpy")
    for code in (1, 130):  # no signal, or a key
        runner._conclude(out, journal, code)
    assert "ended the process" not in journal.read_text()


def test_who_is_spared_a_quick_run_is_absent_with_the_reason(tmp_path):
    journal = tmp_path / "journal"
    collect = ("pytest", "benchmarks", "--collect-only", "-q", "--journal", journal)
    process = start(*collect, "--levels", "inference,operations", "--passes", "1")
    printed, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "torch-compile" not in printed
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert {row["case"] for row in rows} == {case.name for case in inference_cases("quick")}
    assert {(row["kind"], row["contender"]) for row in rows} == {("absent", "torch-compile")}
    assert all("name it in --contenders" in row["reason"] for row in rows)
    named = settings.settle(Wishes(contenders="torch-compile"))
    assert (named.contenders, named.left_out) == (("torch-compile",), ())
    assert settings.settle(Wishes(profile="full")).left_out == ()


@pytest.mark.parametrize(
    ("step_s", "says"),
    [
        (0.1, "25 of 75 done, about 5 s left"),
        (2.4, "25 of 75 done, about 2 min left"),
        (78, "25 of 75 done, about 1 h 5 min left"),
    ],
)
def test_time_left_is_said_without_a_terminal_too(capsys, step_s, says):
    class Session:
        items: ClassVar[list] = [None] * 75

    now = 0.0
    plugin = progress.ProgressPlugin(clock=lambda: now)
    now = 1000.0  # collecting does not count
    plugin.pytest_collection_finish(Session)
    for _ in range(25):
        now += step_s
        plugin.pytest_runtest_logfinish("test")
    plugin.pytest_sessionfinish()
    assert capsys.readouterr().err.splitlines()[1:] == [says]


def test_what_cannot_be_imported_is_no_interruption(capsys):
    report = pytest.CollectReport("test_training.py", "failed", "ImportError: no laboratory", [])
    with pytest.raises(pytest.exit.Exception) as ended:
        progress.ProgressPlugin().pytest_collectreport(report)
    assert ended.value.returncode == 1
    assert "ImportError: no laboratory" in capsys.readouterr().err


# Time to accuracy


class Skewed(NumpyBackend):
    """A backend whose gradients of weights are a thousandth too large."""

    name: ClassVar[str] = "skewed"

    def linear_backward(self, *given, **settings):
        dx, dweight, *rest = super().linear_backward(*given, **settings)
        return dx, dweight * np.float32(1.001), *rest


class Timed:
    """What a training to an accuracy needs of pytest-benchmark."""

    def __init__(self):
        self.extra_info = {}

    def pedantic(self, work, *, rounds):
        assert rounds == 1
        work()


@pytest.fixture
def few_images(monkeypatch):
    images, labels = laboratory._images()
    monkeypatch.setattr(laboratory, "_images", lambda: (images[:300], labels[:300]))


@pytest.mark.parametrize(("target", "epochs"), [(0.05, 1), (0.999, 3)])
def test_training_to_an_accuracy_is_recorded_by_epochs(few_images, target, epochs):
    """With and without reaching the target."""
    case = AccuracyCase("two-layer", 30, target, 3)
    record = Record.open(Wishes(profile="full", levels="accuracy", contenders="numpy"), None)
    ticks = count()
    timed = Timed()
    test_accuracy.train(
        timed, Laboratory(clock=lambda: next(ticks)), case, contenders()["numpy"], seed=1
    )
    record.add("one", {"params": {"case": case}, "extra_info": timed.extra_info})
    document = {}
    record.complete(document)
    assert document["benchmarks"] == []
    (curve,) = document["mnist_accel"]["accuracy"]
    assert curve["seconds"] == [*range(1, epochs + 1)]  # that of predicting does not count
    assert len(curve["accuracy"]) == epochs
    assert (max(curve["accuracy"]) >= target) == (epochs < 3)
    assert (curve["network"], curve["contender"], curve["batch"]) == ("two-layer", "numpy", 30)
    assert (curve["seed"], curve["target"]) == (1, target)
    assert curve["check"]["difference"] <= curve["check"]["tolerance"]


def test_wrong_training_is_not_timed(few_images, monkeypatch):
    monkeypatch.setitem(registry._registered, Skewed.name, Skewed)
    timed = Timed()
    timed.pedantic = None
    with pytest.raises(CheckError, match="off the float64 reference"):
        test_accuracy.train(
            timed, Laboratory(), AccuracyCase("two-layer", 30, 0.9, 3), ProjectBackend("skewed"),
            seed=0,
        )  # fmt: skip


# pytest itself, without the front door

SMALLEST = (
    *("benchmarks", "--levels", "operations", "--contenders", "numpy", "--passes", "1"),
    *("-k", "sgd_update"),
)


@pytest.mark.slow
def test_pytest_saves_what_its_own_options_ask_for(tmp_path):
    out, storage = tmp_path / "out.json", tmp_path / "storage"
    options = (f"--benchmark-json={out}", "--benchmark-autosave", f"--benchmark-storage={storage}")
    process = start("pytest", *SMALLEST, *options)
    printed, err = process.communicate(timeout=100)
    assert process.returncode == 0, printed + err
    assert "1 passed" in printed
    (saved,) = storage.rglob("*.json")
    for path in (out, saved):
        (row,) = load_results([path]).measurements.values()
        assert (row.case.network, row.contender) == ("sgd_update", "numpy")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--levels", "speed"], "unknown level speed; choose training,"),
        (["--contenders", "tpu"], "unknown contender tpu; choose "),
        (["--levels", "accuracy"], "there is no case: the profile quick has none of the level acc"),
        (["--passes", "0"], "--passes is 0; expected at least 1"),
    ],
)
def test_pytest_refuses_what_the_front_door_refuses(options, says):
    process = start("pytest", "benchmarks", *options)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert err.startswith(f"ERROR: {says}")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_pairs_of_all_passes_are_shuffled_together():
    choice = ("--levels", "operations", "--contenders", "numpy,numba", "--passes", "4")

    def order(seed):
        collect = ("pytest", "benchmarks", "--collect-only", "-q", *choice, "--order-seed", seed)
        printed, err = start(*collect).communicate(timeout=60)
        names = [line for line in printed.splitlines() if "::" in line]
        assert len(names) == 4 * 2 * len(operation_cases("quick")), err
        return names

    names = order(1)
    assert order(1) == names
    others = order(2)
    assert sorted(others) == sorted(names)
    assert others != names
    # Passes and contenders change from each measurement to the next, as in a shuffled deck.
    for values, key in ((4, lambda name: name[-2]), (2, lambda name: "numba" in name)):
        changes = sum(key(one) != key(other) for one, other in pairwise(names))
        assert changes == pytest.approx(len(names) * (1 - 1 / values), rel=0.25)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    assert all({name[-2] for name in half} == set("0123") for half in halves)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*QUICK, "--contenders", "tpu"], "unknown contender tpu"),
        (["run", "--levels", "speed"], "unknown level speed"),
        (["run", "--levels", "accuracy"], "there is no case"),
        (["run", "--out", "results.txt"], "expected a name that ends in .json or .json.gz"),
        ([*QUICK, "--threads", "999"], "--threads is 999, but there are"),
        ([*QUICK, "--continue"], "there is no unfinished run"),
        (["run", "--quick", "--full"], "not allowed with argument"),
        (["compare", "a.json"], "NEW"),
        (["compare", "a.json", "b.json", "--fail-over", "x"], "expected a percentage"),
        (["compare", "a.json", "b.json", "--fail-over", "x%"], "expected a percentage"),
        (["compare", "a.json", "b.json", "--fail-over", "0.1"], "such as 10%, got 0.1"),
        (["compare", "a.json", "b.json"], "a.json"),
        (["report", "a.json"], "a.json"),
        ([], "run|report|compare"),
    ],
)
def test_wrong_usage_is_one_line_and_2(tmp_path, arguments, says):
    if arguments[:1] == ["run"] and "--out" not in arguments:
        arguments = [*arguments, "--out", tmp_path / "out.json"]
    process = suite(*arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert says in err
    assert len(err.splitlines()) == 1, err
    assert list(tmp_path.iterdir()) == []


def test_results_are_not_overwritten(tmp_path, capsys):
    out = tmp_path / "results.json"
    out.write_text("{}")
    assert main([*QUICK, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "{}"

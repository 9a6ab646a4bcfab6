"""The trial that finds what trains fastest: who gets how many turns, and that it does no harm."""

import itertools
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from backends import get_backend
from mnist_accel.autotune import cache as trial_cache
from mnist_accel.autotune import choose as backend_choice
from mnist_accel.autotune import measure as trial
from mnist_accel.autotune.choose import choose_fastest, fastest
from mnist_accel.autotune.measure import Candidate, Copy, race, watch_disturbance
from mnist_accel.commands import main
from mnist_accel.console.display import format_pace
from mnist_accel.console.phases import Phases
from mnist_accel.data import load_dataset
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs import run as training_run

NUMBA_1, NUMBA_2 = Candidate("numba", 1), Candidate("numba", 2)
NUMPY_1, NUMPY_2 = Candidate("numpy", 1), Candidate("numpy", 2)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a folder of its own to run in, on a machine with nothing else to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "_involuntary_switches", lambda: 0)


@pytest.fixture
def run(capfd):
    """Run a command that must succeed; return its stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        err = capfd.readouterr().err
        assert code == 0, err
        return err

    return run


def read_json(path):
    return json.loads(Path(path).read_text())


# Turns


class Track:
    """Candidates with a known pace, and a clock that only they move."""

    def __init__(self, paces, slowness=lambda turn: 1.0):
        self.now = 0.0
        self.turns = []
        self._paces = paces
        self._slowness = slowness

    def turn(self, candidate, seconds):
        self.now += seconds
        self.turns.append(candidate)
        return self._paces[candidate] / self._slowness(len(self.turns))

    def race(self, **settings):
        return race(self.turn, list(self._paces), clock=lambda: self.now, **settings)


def test_those_who_are_near_run_all_turns_and_no_longer_than_allowed():
    track = Track({"a": 100.0, "b": 99.0, "c": 98.0})
    assert track.race(seconds=0.6) == {"a": 100.0, "b": 99.0, "c": 98.0}
    assert track.turns == ["a", "b", "c"] * 4
    assert track.now == pytest.approx(0.6)


def test_who_is_far_behind_gives_up_early():
    track = Track({"a": 100.0, "slow": 20.0, "middle": 40.0, "near": 90.0})
    track.race()
    turns = {name: track.turns.count(name) for name in ("a", "slow", "middle", "near")}
    assert turns == {"a": 4, "slow": 1, "middle": 2, "near": 4}


def test_nobody_runs_on_alone():
    track = Track({"a": 100.0, "slow": 10.0})
    track.race()
    assert track.turns == ["a", "slow"]


def test_a_disturbance_that_ends_misleads_nobody():
    track = Track({"a": 100.0, "b": 80.0}, slowness=lambda turn: 2.0 if turn == 1 else 1.0)
    paces = track.race()
    assert paces == {"a": 100.0, "b": 80.0}


def test_when_turns_take_too_long_each_has_had_one():
    track = Track({"a": 100.0, "b": 90.0, "c": 95.0})
    turn = track.turn
    track.turn = lambda candidate, seconds: turn(candidate, 1.0)
    assert track.race(seconds=0.5).keys() == {"a", "b", "c"}
    assert track.turns == ["a", "b", "c"]


def digits(count):
    data = load_dataset("digits")
    return data.x_train[:count], data.t_train[:count]


def copy_of(trainer):
    images, labels = digits(256)
    return Copy(trainer, trainer.prepare(images, labels))


@pytest.mark.parametrize(("seconds_a_chunk", "images_a_step"), [(0.001, 200), (0.1, 16)])
def test_batch_is_cut_where_a_step_takes_long(seconds_a_chunk, images_a_step):
    """A chunk takes two looks at the clock."""
    clock = itertools.count()
    trainer = ma.Trainer(
        ma.create_model("two-layer", backend=get_backend("numpy")),
        batch_size=200,
        clock=lambda: next(clock) * seconds_a_chunk,
    )
    copy = copy_of(trainer)
    assert copy.turn(1, 0.05) > 0
    assert trainer.batch_size == images_a_step
    assert trainer.model.backend.threads == 1


def test_disturbance_is_noticed(monkeypatch):
    for switches, disturbed in ((0, False), (10**9, True)):
        counts = iter((5, 5 + switches))
        monkeypatch.setattr(trial, "_involuntary_switches", lambda counts=counts: next(counts))
        with watch_disturbance() as was_disturbed:
            pass
        assert was_disturbed() == disturbed


def test_switches_are_counted_by_the_system(monkeypatch):
    monkeypatch.undo()
    assert trial._involuntary_switches() >= 0


# The choice


@pytest.mark.parametrize(
    ("paces", "winner"),
    [
        ({NUMBA_1: 300.0, NUMBA_2: 400.0, NUMPY_1: 100.0}, NUMBA_2),
        ({NUMBA_1: 395.0, NUMBA_2: 400.0, NUMPY_1: 399.0}, NUMBA_1),
        ({NUMBA_1: 100.0, NUMPY_1: 99.0, NUMPY_2: 200.0}, NUMPY_2),
        ({Candidate("cupy", None): 500.0, NUMBA_2: 499.0}, Candidate("cupy", None)),
    ],
)
def test_fastest_backend_with_no_more_threads_than_it_needs(paces, winner):
    assert fastest(paces) == winner


@pytest.mark.parametrize(
    ("cores", "batch_size", "counts"),
    [(1, 64, [1]), (2, 64, [1, 2]), (6, 64, [1, 2, 4, 6]), (8, 3, [1, 2, 3]), (8, 1, [1])],
)
def test_powers_of_two_and_all_cores_are_tried(cores, batch_size, counts, monkeypatch):
    backend = get_backend("numba")
    monkeypatch.setattr(backend, "_max_threads", cores)
    assert backend_choice._thread_counts(backend, None, batch_size) == counts
    assert backend_choice._thread_counts(backend, 5, batch_size) == [5]


class Laboratory:
    """Copies of known pace, in place of those that train."""

    def __init__(self, monkeypatch, paces):
        self.trials = 0
        self.copied = []
        self._paces = paces
        monkeypatch.setattr(backend_choice, "_copy", self._copy)
        monkeypatch.setattr(backend_choice, "race", self._race)

    def _copy(self, settings, backend, *rest):
        self.copied.append(backend.name)

    def _race(self, turn, candidates):
        self.trials += 1
        return {candidate: self._paces[candidate] for candidate in candidates}

    def choose(self, *, images=None, **given):
        """Choose for these settings; return the choice and the phases."""
        phases = Phases()
        images = np.eye(784, dtype=np.uint8) if images is None else images
        choice = choose_fastest(
            resolve({"batch_size": 64, **given}),
            images,
            np.zeros(len(images), int),
            make_trainer=lambda settings, backend: pytest.fail("made by the laboratory"),
            phases=phases,
            note=lambda text: pytest.fail(text),
        )
        return choice, phases


@pytest.fixture
def laboratory(monkeypatch):
    for name in ("numpy", "numba"):
        backend_class = type(get_backend(name))
        monkeypatch.setattr(backend_class, "max_threads", property(lambda self: 2))
    monkeypatch.setitem(sys.modules, "cupy", None)
    return Laboratory(
        monkeypatch, {NUMBA_1: 250e3, NUMBA_2: 410e3, NUMPY_1: 160_400, NUMPY_2: 155e3}
    )


def test_auto_takes_the_fastest_and_says_by_how_much(laboratory):
    choice, phases = laboratory.choose()
    assert (choice.selection.backend.name, choice.selection.backend.threads) == ("numba", 2)
    assert choice.describe() == (
        "numba, 2 threads (measured: numba 410 k images/s with 2 threads, numpy 160 k with 1; "
        "not cupy: CuPy is not installed)"
    )
    assert list(phases.seconds) == ["setup", "prepare", "trial"]


def test_a_backend_that_is_named_gets_a_trial_of_its_threads(laboratory):
    choice, _ = laboratory.choose(backend="numpy")
    assert laboratory.copied == ["numpy"]
    assert choice.describe() == (
        "numpy, 1 thread (measured: numpy 160 k images/s with 1 thread, 155 k with 2)"
    )


def test_threads_that_are_named_are_those_of_every_candidate(laboratory):
    choice, _ = laboratory.choose(threads=1)
    assert (choice.selection.backend.name, choice.selection.backend.threads) == ("numba", 1)
    assert "numba 250 k images/s with 1 thread, numpy 160 k with 1;" in choice.describe()


def test_no_trial_where_nothing_is_open(laboratory):
    choice, phases = laboratory.choose(backend="numpy", threads=2)
    assert choice.describe() == f"numpy, 2 threads (NumPy {np.__version__})"
    laboratory.choose(backend="numba", batch_size=1)  # has work for one thread
    assert laboratory.trials == 0
    assert list(phases.seconds) == ["setup"]


def test_what_was_measured_is_remembered(laboratory, trials, monkeypatch):
    monkeypatch.setenv("HOME", str(trials.parents[1]))
    first, _ = laboratory.choose()
    again, phases = laboratory.choose()
    assert laboratory.trials == 1
    assert again.selection.backend.threads == first.selection.backend.threads == 2
    assert again.measurements == first.measurements.replace(
        "measured", f"remembered in ~/{trials.relative_to(trials.parents[1])}"
    )
    assert list(phases.seconds) == ["setup"]
    for file in trials.iterdir():  # as the line invites to
        file.unlink()
    laboratory.choose()
    assert laboratory.trials == 2


def test_what_a_busy_machine_did_is_not_remembered(laboratory, trials, monkeypatch):
    counts = itertools.count(step=10**9)
    monkeypatch.setattr(trial, "_involuntary_switches", lambda: next(counts))
    choice, _ = laboratory.choose()
    assert choice.measurements.startswith("measured on a busy machine: numba 410 k")
    assert not trials.exists()
    laboratory.choose()
    assert laboratory.trials == 2


def test_every_question_has_an_answer_of_its_own(laboratory, trials):
    bright = np.full((64, 784), 255, np.uint8)
    questions = [
        {}, {"model": "three-layer"}, {"hidden_sizes": (60,)}, {"activation": "tanh"},
        {"batch_size": 128}, {"dtype": "float64"}, {"optimizer": "adam"}, {"momentum": 0.5},
        {"weight_decay": 0.1}, {"threads": 1}, {"backend": "numpy"}, {"images": bright},
    ]  # fmt: skip
    for number, question in enumerate(questions, start=1):
        laboratory.choose(**question)
        assert laboratory.trials == number
    for question in ({}, {"seed": 5}, {"lr": 0.5}, {"epochs": 3}, {"images": bright // 2}):
        laboratory.choose(**question)
    assert laboratory.trials == len(questions)


def test_another_machine_or_version_is_another_question(laboratory, monkeypatch):
    laboratory.choose()
    monkeypatch.setattr(backend_choice, "__version__", "99")
    laboratory.choose()
    monkeypatch.setattr("backends.numpy.backend._processor_name", lambda: "Another One")
    laboratory.choose()
    monkeypatch.setattr(np, "__version__", "99")
    laboratory.choose()
    assert laboratory.trials == 4


# What is kept


def test_figures_come_back(trials):
    paces = {NUMBA_2: 410_123.5, Candidate("cupy", None): 1e6}
    trial_cache.remember({"a": [1, None]}, paces)
    assert trial_cache.recall({"a": [1, None]}, list(paces)) == paces
    assert trial_cache.recall({"a": [2, None]}, list(paces)) is None
    assert [file.suffix for file in trials.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace('"key"', '"kex"'),
        lambda text: text.replace('"a": 1', '"a": 2'),
        lambda text: text.replace("410.5", '"many"'),
        lambda text: text.replace("410.5", "-1"),
        lambda text: text.replace("410.5", "NaN"),
        lambda text: text.replace('"numba"', '"jumbo"'),
        lambda text: text.replace('"numba"', "[]"),
        lambda text: '{"key": {"a": 1}, "paces": []}',
        lambda text: '{"key": {"a": 1}, "paces": [[1]]}',
        lambda text: "\xff\xfe",
    ],
)
def test_damaged_file_is_a_warning_and_is_replaced(damage, trials):
    paces = {NUMBA_2: 410.5}
    trial_cache.remember({"a": 1}, paces)
    (file,) = trials.iterdir()
    file.write_bytes(damage(file.read_text()).encode("latin-1"))
    with pytest.warns(UserWarning, match=rf"{file.name} is damaged .* measured anew"):
        assert trial_cache.recall({"a": 1}, list(paces)) is None
    trial_cache.remember({"a": 1}, paces)
    assert trial_cache.recall({"a": 1}, list(paces)) == paces


def test_folder_that_cannot_be_used_is_a_warning(trials, run, tmp_path):
    trials.parent.write_text("a file, where a folder should be")
    small = ("--dataset", "digits", "--backend", "numpy", "--iterations", 1, "--quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        err = run("train", *small)
    lines = err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["warning:"] * 2
    assert "cannot be read (Not a directory), so threads are measured anew" in lines[0]
    assert "cannot be kept in" in lines[1]


# The real thing


@pytest.mark.parametrize(
    "flags", [("--backend", "numpy"), (), ("--model", "lenet", "--batch-size", 33)]
)
def test_training_is_what_it_would_be_without_a_trial(run, flags):
    small = ("--dataset", "digits", "--iterations", 7, "--optimizer", "adam", *flags)
    err = run("train", *small, "--out", "tried")
    config = read_json("tried/config.json")
    used, threads = (config["backend"][name] for name in ("used", "threads"))
    line = next(line for line in err.splitlines() if line.startswith("backend "))
    assert re.match(rf"backend {used}, {threads} threads? \(measured: {used} [\d.]+ ", line)
    assert config["backend"]["figures"] in line
    assert "trial" in read_json("tried/summary.json")["seconds"]
    run("train", *small, "--backend", used, "--threads", threads, "--out", "told")
    assert "trial" not in read_json("told/summary.json")["seconds"]
    tried, told = (
        ma.load_checkpoint(f"{name}/checkpoint", backend="numpy") for name in ("tried", "told")
    )
    assert tried.step == told.step == 7
    for name, array in tried.model.state_dict().items():
        assert np.array_equal(array, told.model.state_dict()[name]), name
    for name, array in tried.optimizer_state.items():
        assert np.array_equal(array, told.optimizer_state[name]), name


def test_full_batch_of_many_images_is_tried_in_parts(monkeypatch):
    """As is one that fits no memory."""
    batches = []

    class Spy(Copy):
        def __init__(self, trainer, data):
            super().__init__(trainer, data)
            batches.append((trainer.batch_size, trainer.sampling, data.examples))
            assert trainer.optimizer.lr == backend_choice.TRIAL_LR

        def turn(self, threads, seconds):
            return 1.0

    monkeypatch.setattr(backend_choice, "Copy", Spy)
    images, labels = np.zeros((20_000, 784), np.uint8), np.zeros(20_000, int)
    for batch_size in (0, 10**15):
        settings = resolve({"model": "fcnn", "backend": "numpy", "batch_size": batch_size})
        backend_choice._copy(
            settings,
            get_backend("numpy"),
            images[: trial.EXAMPLES],
            labels[: trial.EXAMPLES],
            lambda settings, backend: training_run._make_trainer(
                settings, backend, examples=len(labels)
            ),
        )
    assert [(sampling, examples) for _, sampling, examples in batches] == [
        ("shuffle", trial.EXAMPLES)
    ] * 2


@pytest.mark.slow
def test_resume_takes_the_same_number_and_measures_nothing(run, monkeypatch):
    small = ("--dataset", "digits", "--backend", "numba", "--batch-size", 64)
    run("train", *small, "--threads", 2, "--iterations", 5, "--out", "parted")
    run("train", *small, "--threads", 2, "--iterations", 9, "--out", "straight", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "choose_fastest", lambda *_, **__: pytest.fail("a trial"))
        err = run("train", "--resume", "parted", "--iterations", 9)
        assert "backend numba, 2 threads (Numba " in err
        weights = [
            ma.load_model(name, backend="numpy").state_dict()
            for name in ("parted/model.safetensors", "straight/model.safetensors")
        ]
        for name, array in weights[0].items():
            assert np.array_equal(array, weights[1][name]), name
        run("train", "--resume", "parted", "--iterations", 10, "--threads", 1, "--quiet")
        assert read_json("parted/config.json")["backend"]["threads"] == 1
        run("train", "--resume", "parted", "--iterations", 11, "--backend", "numpy", "--quiet")
        backend = read_json("parted/config.json")["backend"]
        assert (backend["used"], backend["threads"]) == ("numpy", None)
    config = read_json("straight/config.json")
    del config["backend"]["threads"], config["settings"]["threads"]  # of an earlier version
    Path("straight/config.json").write_text(json.dumps(config))
    run("train", "--resume", "straight", "--iterations", 10, "--quiet")
    assert read_json("straight/config.json")["backend"]["threads"] is None


def test_more_threads_than_help_are_warned_of(run):
    most = get_backend("numba").max_threads
    flags = ("--backend", "numba", "--threads", most + 1, "--dataset", "digits")
    err = run("train", *flags, "--iterations", 2, "--quiet")
    assert f"warning: {most + 1} threads wait for each other where {most} would do" in err


def test_threads_bound_the_other_commands_too(run, capfd):
    flags = ("--dataset", "digits", "--backend", "numpy", "--threads", 1)
    run("train", *flags, "--iterations", 3, "--out", "run", "--quiet")
    for command in (("evaluate", "run"), ("predict", "run", "--index", 0)):
        run(*command, "--threads", 1)
        assert main([*command, "--threads", "0"]) == 2
        assert main([*command, "--backend", "array-api-strict", "--threads", "2"]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert "--threads: expected an integer from 1 to 1024, got 0" in lines[0]
        assert lines[1].endswith("does not take a number of threads, got 2; leave it out")
    run("gradcheck", "--elements", 1, "--threads", 1)
    run("compare", "--dataset", "digits", "--iterations", 1, "--threads", 1)


@pytest.mark.parametrize(
    ("pace", "text"),
    [(0.5, "0.5"), (850.4, "850"), (999.9, "1 k"), (4371, "4.37 k"), (31_249, "31.2 k"),
     (410_000, "410 k"), (999_600, "1 M"), (1_234_567, "1.23 M"), (99_990, "100 k")],
)  # fmt: skip
def test_paces_have_three_digits(pace, text):
    assert format_pace(pace) == text

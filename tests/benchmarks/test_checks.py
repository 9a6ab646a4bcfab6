"""Contenders with wrong results are not timed."""

import importlib
from itertools import count
from typing import ClassVar

import numpy as np
import pytest

from backends import registry
from backends.numpy.backend import NumpyBackend
from benchmarks.contenders import contenders
from benchmarks.contenders.project import ProjectBackend
from benchmarks.session import plugin
from benchmarks.session.settings import RunRequest, open_journal
from benchmarks.suite import checks, tasks
from benchmarks.suite.accuracy import measure_accuracy
from benchmarks.suite.cases import (
    AccuracyCase,
    InferenceCase,
    OperationCase,
    TrainingCase,
)
from benchmarks.suite.checks import CheckError
from benchmarks.suite.preparer import NotComparableError, Preparer

SMALL = TrainingCase("two-layer", 10)


CNN = TrainingCase("cnn", 10)


POOLING = OperationCase("max_pool2d", "backward", (2, 8, 8), 3, {"size": 2})


CONVOLUTION = OperationCase(
    "conv2d", "backward", (2, 8, 8), 3, {"stride": 1, "padding": 0}, (4, 2, 3, 3)
)


class Doubled(NumpyBackend):
    """A backend whose gradients of filters are too large by a factor of 1.0001."""

    name: ClassVar[str] = "doubled"

    def conv2d_backward(self, dy, x, weight, **settings):
        dx, dweight, dbias = super().conv2d_backward(dy, x, weight, **settings)
        return dx, dweight * np.float32(1.0001), dbias


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setitem(registry._registered, Doubled.name, Doubled)
    return ProjectBackend(Doubled.name)


@pytest.mark.parametrize("case", [CNN, CONVOLUTION])
def test_wrong_kernel_fails_the_check(broken, case):
    with pytest.raises(CheckError, match=r"differs from the float64 reference by 0\.0001"):
        Preparer().prepare(case, broken)


def test_cases_without_the_wrong_kernel_pass_the_check(broken):
    assert Preparer().prepare(POOLING, broken).info.check.difference < 1e-6
    assert Preparer().prepare(InferenceCase("cnn", 3), broken).info.check.difference < 1e-6


@pytest.mark.parametrize("min_steps", [1, 2])
def test_wrong_compiled_epoch_fails_the_check(monkeypatch, min_steps):
    """The check detects errors of all calls, and errors of only the calls with several steps."""
    epoch = importlib.import_module("backends.numba.kernels.epoch")
    run_steps = epoch.run_steps

    def broken_steps(*given):
        run_steps(*given)
        packed, bounds = given[4].packed, given[6].bounds
        if len(bounds) >= min_steps:
            packed *= np.float32(1.001)

    monkeypatch.setattr(epoch, "run_steps", broken_steps)
    with pytest.raises(CheckError, match="differs from the float64 reference"):
        Preparer().prepare(SMALL, contenders()["numba"])


def test_wrong_probabilities_fail_the_check(monkeypatch):
    class Shifted(NumpyBackend):
        name: ClassVar[str] = "shifted"

        def softmax(self, logits):
            return super().softmax(logits)[:, ::-1]

    monkeypatch.setitem(registry._registered, Shifted.name, Shifted)
    with pytest.raises(CheckError, match="probabilities"):
        Preparer().prepare(InferenceCase("two-layer", 3), ProjectBackend("shifted"))


def test_reference_network_is_compared_with_the_loops(monkeypatch):
    """An error in the NumPy backend is found, although all others are compared with it."""
    linear = NumpyBackend.linear
    monkeypatch.setattr(NumpyBackend, "linear", lambda *given: linear(*given) * (1 + 1e-9))
    checks.check_reference_network.cache_clear()
    with pytest.raises(CheckError):
        checks.check_reference_network("two-layer")
    monkeypatch.undo()
    checks.check_reference_network("two-layer")


def test_absent_contender_has_reason_and_remedy():
    absent = ProjectBackend("cupy")
    if absent.availability().ok:
        pytest.skip("this machine has a GPU")
    with pytest.raises(NotComparableError, match=r".+; .+"):
        Preparer().prepare(SMALL, absent)


class Lazy(NumpyBackend):
    """A backend with pending work, like a GPU, until `synchronize` or `to_numpy` is called."""

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
def test_no_work_is_pending_when_a_call_returns(monkeypatch, case):
    monkeypatch.setitem(registry._registered, Lazy.name, Lazy)
    prepared = Preparer().prepare(case, ProjectBackend("lazy"))
    Lazy.pending = 0
    prepared.run()
    assert Lazy.pending == 0


class Skewed(NumpyBackend):
    """A backend whose gradients of weights are too large by a factor of 1.001."""

    name: ClassVar[str] = "skewed"

    def linear_backward(self, *given, **settings):
        dx, dweight, *rest = super().linear_backward(*given, **settings)
        return dx, dweight * np.float32(1.001), *rest


class Timed:
    """The part of the `benchmark` fixture that time to accuracy uses."""

    def __init__(self):
        self.extra_info = {}

    def pedantic(self, work, *, rounds):
        assert rounds == 1
        work()


@pytest.fixture
def few_images(monkeypatch):
    images, labels = tasks.training_set()
    monkeypatch.setattr(tasks, "training_set", lambda: (images[:300], labels[:300]))


@pytest.mark.parametrize(("target", "epochs"), [(0.05, 1), (0.999, 3)])
def test_time_to_accuracy_is_recorded_after_each_epoch(few_images, target, epochs):
    """Training ends at the target, or after the last epoch without reaching it."""
    case = AccuracyCase("two-layer", 30, target, 3)
    request = RunRequest(profile="full", levels="accuracy", contenders="numpy")
    journal = open_journal(request, None)
    plugin.describe_machine(journal)
    ticks = count()
    timed = Timed()
    measure_accuracy(timed, case, contenders()["numpy"], seed=1, clock=lambda: next(ticks))
    info = {"level": "accuracy", "case": case.name, "contender": "numpy", **timed.extra_info}
    journal.measured("one", {"params": {"case": case}, "extra_info": info})
    document = journal.document()
    assert document["benchmarks"] == []
    (curve,) = document["mnist_accel"]["accuracy"]
    assert curve["seconds"] == [*range(1, epochs + 1)]  # without the time of prediction
    assert len(curve["accuracy"]) == epochs
    assert (max(curve["accuracy"]) >= target) == (epochs < 3)
    assert (curve["network"], curve["contender"], curve["batch"]) == ("two-layer", "numpy", 30)
    assert (curve["seed"], curve["target"]) == (1, target)
    assert curve["check"]["difference"] <= curve["check"]["tolerance"]


def test_wrong_training_to_an_accuracy_fails_the_check(few_images, monkeypatch):
    monkeypatch.setitem(registry._registered, Skewed.name, Skewed)
    timed = Timed()
    timed.pedantic = None
    case = AccuracyCase("two-layer", 30, 0.9, 3)
    with pytest.raises(CheckError, match="differs from the float64 reference"):
        measure_accuracy(timed, case, ProjectBackend("skewed"), seed=0)

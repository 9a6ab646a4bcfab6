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
from benchmarks.suite import checks, tasks
from benchmarks.suite.accuracy import measure_accuracy
from benchmarks.suite.cases import (
    AccuracyCase,
    InferenceCase,
    OperationCase,
    TrainingCase,
)
from benchmarks.suite.checks import CheckError
from benchmarks.suite.networks import SIMPLECHAINS, create_network
from benchmarks.suite.preparer import NotComparableError

SMALL = TrainingCase("two-layer", 10)


CNN = TrainingCase("cnn", 10)


POOLING = OperationCase("max_pool2d", "backward", (2, 8, 8), 3, (("size", 2),))


CONVOLUTION = OperationCase(
    "conv2d", "backward", (2, 8, 8), 3, (("stride", 1), ("padding", 0)), (4, 2, 3, 3)
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
def test_wrong_kernel_fails_the_check(broken, case, prepare_row):
    with pytest.raises(CheckError, match=r"differs from the float64 reference by 0\.0001"):
        prepare_row(case, broken)


def test_cases_without_the_wrong_kernel_pass_the_check(broken, prepare_row):
    assert prepare_row(POOLING, broken).info.check.difference < 1e-6
    assert prepare_row(InferenceCase("cnn", 3), broken).info.check.difference < 1e-6


@pytest.mark.parametrize("min_steps", [1, 2])
def test_wrong_compiled_epoch_fails_the_check(monkeypatch, min_steps, prepare_row):
    """The check detects errors of all calls, and errors of only the calls with several steps."""
    epoch = importlib.import_module("backends.numba.kernels.epoch")
    run_steps = epoch.run_steps

    def broken_steps(*given):
        run_steps(*given)
        (_, packed, *_), (_, bounds, *_) = given[4], given[6]
        if len(bounds) >= min_steps:
            packed *= np.float32(1.001)

    monkeypatch.setattr(epoch, "run_steps", broken_steps)
    with pytest.raises(CheckError, match="differs from the float64 reference"):
        prepare_row(SMALL, contenders()["numba"])


def test_wrong_probabilities_fail_the_check(monkeypatch, prepare_row):
    class Shifted(NumpyBackend):
        name: ClassVar[str] = "shifted"

        def softmax(self, logits):
            return super().softmax(logits)[:, ::-1]

    monkeypatch.setitem(registry._registered, Shifted.name, Shifted)
    with pytest.raises(CheckError, match="probabilities"):
        prepare_row(InferenceCase("two-layer", 3), ProjectBackend("shifted"))


def test_reference_network_is_compared_with_the_loops(monkeypatch):
    """An error in the NumPy backend is found, although all others are compared with it."""
    linear = NumpyBackend.linear
    monkeypatch.setattr(NumpyBackend, "linear", lambda *given: linear(*given) * (1 + 1e-9))
    checks.check_reference_network.cache_clear()
    with pytest.raises(CheckError):
        checks.check_reference_network("two-layer")
    monkeypatch.undo()
    checks.check_reference_network("two-layer")


def test_absent_contender_has_reason_and_remedy(prepare_row):
    absent = ProjectBackend("cupy")
    if absent.availability().ok:
        pytest.skip("this machine has a GPU")
    with pytest.raises(NotComparableError, match=r".+; .+"):
        prepare_row(SMALL, absent)


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
def test_no_work_is_pending_when_a_call_returns(monkeypatch, case, prepare_row):
    monkeypatch.setitem(registry._registered, Lazy.name, Lazy)
    prepared = prepare_row(case, ProjectBackend("lazy"))
    Lazy.pending = 0
    prepared.run()
    assert Lazy.pending == 0


class Skewed(NumpyBackend):
    """A backend whose gradients of weights are too large by a factor of 1.001."""

    name: ClassVar[str] = "skewed"

    def linear_backward(self, *given, **settings):
        dx, dweight, *rest = super().linear_backward(*given, **settings)
        return dx, dweight * np.float32(1.001), *rest


@pytest.fixture
def few_images(monkeypatch):
    images, labels = tasks.training_set()
    monkeypatch.setattr(tasks, "training_set", lambda: (images[:300], labels[:300]))


@pytest.mark.parametrize(("target", "epochs"), [(0.05, 1), (0.999, 3)])
def test_time_to_accuracy_is_recorded_after_each_epoch(few_images, target, epochs):
    """Training ends at the target, or after the last epoch without reaching it."""
    case = AccuracyCase("two-layer", 30, target, 3)
    ticks = count()
    trained = measure_accuracy(case, contenders()["numpy"], seed=1, clock=lambda: next(ticks))
    assert trained.seconds == tuple(range(1, epochs + 1))  # without the time of prediction
    assert len(trained.accuracy) == epochs
    assert (max(trained.accuracy) >= target) == (epochs < 3)
    assert trained.check.difference <= trained.check.tolerance


def test_wrong_training_to_an_accuracy_fails_the_check(few_images, monkeypatch):
    monkeypatch.setitem(registry._registered, Skewed.name, Skewed)
    case = AccuracyCase("two-layer", 30, 0.9, 3)
    with pytest.raises(CheckError, match="differs from the float64 reference"):
        measure_accuracy(case, ProjectBackend("skewed"), seed=0)


def test_network_of_simplechains_is_compared_with_the_loops():
    checks.check_reference_network(SIMPLECHAINS)
    network = create_network(SIMPLECHAINS)
    # 6 and 16 filters of 5×5, then 256-120-84-10: without padding, the images shrink to 4×4.
    assert [weight.shape for weight in network.state_dict().values() if weight.ndim > 1] == [
        (6, 1, 5, 5), (16, 6, 5, 5), (256, 120), (120, 84), (84, 10),
    ]  # fmt: skip

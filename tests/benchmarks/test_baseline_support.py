"""Baselines state what they cannot do, and on what their speed depends."""

import importlib
import sys
from typing import Any

import pytest

from backends import pip
from mnist_accel.data import Dataset
from mnist_accel.nn import SGD, AdaGrad, Adam
from mnist_accel.recipes.models import create_model
from tests.support.baselines import BASELINES, QUICK, available, make_task


@pytest.mark.parametrize(
    ("name", "network", "changes", "reason"),
    [
        ("torch-compile", "two-layer", {"optimizer": AdaGrad()}, "not AdaGrad"),
        ("torch-cuda-graph", "two-layer", {"optimizer": AdaGrad()}, "not AdaGrad"),
        ("jax", "two-layer", {"optimizer": AdaGrad()}, "not AdaGrad"),
        ("scikit-learn", "cnn", {}, "it supports only linear layers"),
        ("scikit-learn", "backprop", {"optimizer": SGD()}, "not quadratic"),
        ("scikit-learn", "backprop", {}, "weight decay excludes biases"),
        ("scikit-learn", "three-layer", {}, "adds eps before the bias correction"),
        ("loops", "lenet", {}, "support the network cnn, not lenet"),
        ("loops", "cnn", {"batch_size": 10}, "support a batch of 1, not 10"),
        ("loops", "cnn", {"batch_size": 1, "optimizer": Adam()}, "only SGD without momentum"),
    ],
)
def test_unsupported_training_has_a_skip_reason(
    mnist: Dataset, name: str, network: str, changes: dict[str, Any], reason: str
) -> None:
    assert reason in BASELINES[name].skip_reason(make_task(mnist, network, **changes))


@pytest.mark.parametrize("name", ["scikit-learn", "loops"])
def test_unsupported_network_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot (express|compute) lenet: its? "):
        available(name).inference(create_model("lenet", backend="numpy"))


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("torch", ["torch-eager", "torch-compile", "torch-cuda-graph"]),
        ("jax", ["jax"]),
        ("sklearn", ["scikit-learn"]),
    ],
)
def test_missing_library_is_unavailable_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, library: str, names: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in names:
        availability = BASELINES[name].availability()
        assert not availability.ok
        assert "does not work" in availability.reason
        assert availability.remedy.startswith(pip("install"))


def test_missing_compiler_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    available("torch-eager")
    monkeypatch.setenv("CXX", "no-such-compiler")
    availability = BASELINES["torch-compile"].availability()
    assert not availability.ok
    assert "'no-such-compiler' was not found" in availability.reason


def test_missing_gpu_is_unavailable() -> None:
    available("torch-eager")
    if importlib.import_module("torch").cuda.is_available():
        pytest.skip("this machine has a GPU")
    availability = BASELINES["torch-cuda-graph"].availability()
    assert not availability.ok
    assert "need an NVIDIA GPU" in availability.reason


@pytest.mark.parametrize("name", [*QUICK, "loops"])
def test_versions_state_the_threads(name: str) -> None:
    assert int(available(name).versions()["threads"]) >= 1

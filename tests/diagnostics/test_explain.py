"""`doctor --explain` prints how each backend computes a recipe."""

import json
import re
import sys
from dataclasses import replace

import pytest

from backends import get_backend
from mnist_accel.commands import main
from mnist_accel.nn import AvgPool2d, Dropout, Flatten, Linear, Tanh
from mnist_accel.recipes.models import RECIPES, create_model


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def explain(capsys, *arguments):
    """Run `doctor --explain`, which must succeed, and return its output."""
    assert main(["doctor", "--explain", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_backends_and_stages_of_a_recipe_are_printed(capsys):
    lines = [" ".join(line.split()) for line in explain(capsys, "lenet").splitlines()]
    assert lines[0].startswith("lenet: 1×28×28 → conv2d 6×28×28 → relu")
    assert lines[1] == "softmax cross entropy, adam, batches of 64 images"
    threads = get_backend("numba").max_threads
    for line in (
        "cupy – cannot run here: CuPy is not installed",
        f"numba {threads} compiled: one call runs many steps",
        "1 conv2d 5×5, padding 2 relu, max_pool2d 2×2 1×28×28 → 6×14×14",
        "2 conv2d 5×5 relu, max_pool2d 2×2 6×14×14 → 16×5×5",
        "3 linear relu 400 → 120",
        "5 linear – 84 → 10",
    ):
        assert line in lines
    assert "eager: the backend numpy has no compiled epochs" in " ".join(lines)
    assert len(lines) <= 24  # one screen
    assert not any(line.startswith("numba: stage") for line in lines)


@pytest.mark.parametrize("model", RECIPES)
def test_sparse_input_is_mentioned_if_it_is_used(capsys, model):
    takes_sparse_input = "conv2d" not in create_model(model, backend="numpy").kinds
    line = r"numba: stage 1 takes sparse \(CSR\) input if fewer than (27|35)% of pixels are nonzero"
    assert bool(re.search(line, explain(capsys, model))) == takes_sparse_input


def test_explanation_can_be_printed_as_json(capsys):
    report = json.loads(explain(capsys, "cnn", "--json"))
    assert report["stages"] == [
        {"layer": "conv2d 3×3", "fused": "max_pool2d 2×2", "shapes": "1×28×28 → 8×13×13"},
        {"layer": "linear", "fused": "–", "shapes": "1352 → 10"},
    ]
    assert [way["backend"] for way in report["ways"]][:3] == ["cupy", "numba", "numpy"]


def test_network_without_compiled_form_is_explained(capsys, monkeypatch):
    """No recipe has such a network, so the test changes one."""

    def build(hidden_sizes, activation):
        return [Dropout(0.5), AvgPool2d(2), Tanh(), Flatten(), Linear(10)]

    recipe = replace(RECIPES["cnn"], build=build, batch_size=0)
    monkeypatch.setitem(RECIPES, "cnn", recipe)
    out = explain(capsys, "cnn")
    assert "softmax cross entropy, sgd, the whole set at each step" in out
    reason = "the masks of dropout are drawn on the host at every step"
    # Once per backend, and once for the missing stages.
    assert " ".join(out.split()).count(reason) >= 3
    assert "This recipe has no compiled form" in out
    monkeypatch.setitem(
        RECIPES, "cnn", replace(recipe, build=lambda *_: build(*_)[1:], batch_size=1)
    )
    lines = [" ".join(line.split()) for line in explain(capsys, "cnn").splitlines()]
    assert "softmax cross entropy, sgd, batches of 1 image" in lines
    assert "1 avg_pool2d 2×2 – 1×28×28 → 1×14×14" in lines
    assert "2 tanh – 1×14×14 → 1×14×14" in lines


def test_unknown_recipe_is_a_usage_error(capsys):
    assert main(["doctor", "--explain", "lanet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "unknown model 'lanet'; choose from fcnn" in err
    assert "did you mean 'lenet'?" in err
    assert len(err.splitlines()) == 1

"""`--import` makes the commands know layers, optimizers and recipes of the user."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnist_accel as ma
from backends import OPTIMIZERS
from mnist_accel.commands import main
from mnist_accel.nn import LAYERS

PARTS = """
from dataclasses import dataclass

import mnist_accel as ma
from mnist_accel.nn import Layer, Linear, SoftmaxCrossEntropy, UpdateRule
from mnist_accel.recipes.models import Recipe


@ma.register
@dataclass(frozen=True)
class LeakyReLU(Layer):
    slope: float = 0.01
    kind = "leaky_relu"

    def forward(self, backend, parameters, x, rng):
        return backend.xp.where(x > 0, x, self.slope * x), x

    def backward(self, backend, parameters, saved, dy, *, need_dx):
        return backend.xp.where(saved > 0, dy, self.slope * dy), {}


@ma.register
@dataclass(frozen=True)
class SignDescent(UpdateRule):
    kind = "sign"

    def apply(self, xp, w, g, state, *, lr, step):
        w -= lr * xp.sign(self.decayed(g, w))


ma.RECIPES["leaky"] = Recipe(
    summary="LeakyReLU(0.3)",
    build=lambda hidden_sizes, activation: [Linear(12), LeakyReLU(0.3), Linear(10)],
    loss=SoftmaxCrossEntropy(),
    optimizer="sign",
    lr=0.001,
    batch_size=64,
    epochs=1,
)
"""
TRAIN = ["train", "--model", "leaky", "--dataset", "digits", "--backend", "numpy", "--out", "run"]


@pytest.fixture(autouse=True)
def folder(own_tables: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that contains the module `parts`."""
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("parts", "broken"):
        sys.modules.pop(name, None)
    ma.RECIPES.pop("leaky", None)


@pytest.mark.parametrize("module", ["parts", "parts.py"])
def test_run_with_own_parts_is_resumed_evaluated_and_predicted(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--import", module]
    assert main([*TRAIN, *own, "--quiet"]) == 0
    assert main(["train", "--resume", "run", "--epochs", "2", *own]) == 0
    assert "predict run --index 0 --import " + module in capsys.readouterr().err
    assert main(["evaluate", "run", "--dataset", "digits", "--backend", "numpy", *own]) == 0
    assert "linear 12 → leaky_relu → linear 10" in capsys.readouterr().out
    assert main(["predict", "run", "--index", "0", "--json", *own]) == 0
    assert ma.load_model("run", backend="numpy").layers[1].slope == 0.3


def test_run_with_own_parts_needs_the_import(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--import", "parts", "--quiet"]) == 0
    del ma.RECIPES["leaky"]
    del LAYERS["leaky_relu"]
    del OPTIMIZERS["sign"]
    assert main(["evaluate", "run", "--dataset", "digits"]) == 4
    assert "unknown layer 'leaky_relu'" in (err := capsys.readouterr().err)
    assert "give --import MODULE" in err
    assert main(["train", "--resume", "run"]) == 2
    assert "--import MODULE adds your own" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["optimizer", "model", "schedule"])
def test_unknown_names_mention_the_import(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--{option}", "mine"]) == 2
    assert "; --import MODULE adds your own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (PARTS.replace('"sign"', '"adam"'), "ValueError: the optimizer 'adam' exists already"),
    ],
)
@pytest.mark.parametrize("module", ["broken", "broken.py"])
def test_module_that_fails_is_an_error_in_one_line(
    folder: Path, module: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text(content)
    assert main(["train", "--import", module]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mnist-accel train: cannot import {module}: {message}")
    assert "broken.py, line" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("module", ["absent", "absent.py"])
def test_missing_module_is_named(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--import", module]) == 2
    assert f"cannot import {module}: " in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--Import", "--IMPORT"])
def test_flag_in_another_case_imports_the_module(flag: str) -> None:
    assert main(["doctor", "--explain", "leaky", flag, "parts.py"]) == 0


@pytest.mark.parametrize(
    "command", [["doctor", "--explain"], ["compare", "--dataset", "digits", "--model"]]
)
def test_recipe_whose_layers_do_not_fit_is_refused_in_one_line(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "parts.py").write_text(
        PARTS.replace("epochs=1,", "epochs=1, input=ma.Pixels((1, 28, 28)),")
    )
    assert main([*command, "leaky", "--import", "parts.py"]) == 2
    err = capsys.readouterr().err
    assert "a linear layer takes vectors, got (1, 28, 28); put Flatten before" in err
    assert err.count("\n") == 1

"""`ma.load_model` loads the same weights as the commands, with the same errors."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.runs.folder import RunFolder

TRAIN = "train --dataset digits --backend numpy --no-progress --iterations"


def train(steps: int, out: str) -> None:
    assert main([*TRAIN.split(), str(steps), "--out", out]) == 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same(one: ma.Network, other: ma.Network) -> bool:
    state = other.state_dict()
    return all(np.array_equal(value, state[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("as_type", [str, Path])
def test_run_folder_its_files_and_the_newest_run(
    as_type: type, capsys: pytest.CaptureFixture[str]
) -> None:
    train(2, "runs/old")
    train(3, "runs/new")
    for name, age in [("old", 100), ("new", 0)]:
        config = RunFolder(Path("runs") / name).config
        os.utime(config, (config.stat().st_mtime - age,) * 2)
    old, new = (ma.load_model(as_type(f"runs/{name}"), backend="numpy") for name in ("old", "new"))
    assert not same(old, new)
    assert same(ma.load_model(backend="numpy"), new)
    for path in ("model.safetensors", "checkpoint", "checkpoint/last.safetensors"):
        assert same(ma.load_model(as_type(f"runs/old/{path}"), backend="numpy"), old)
    x, t = (array[:100] for array in ma.load_mnist(dataset="digits")[1])
    capsys.readouterr()
    assert main(["evaluate", "--backend", "numpy", "--limit-test", "100"]) == 0
    assert f"({ma.evaluate(new, x, t).correct} / 100)" in capsys.readouterr().out


def test_legacy_weights_are_loaded_with_their_activation() -> None:
    weights = ma.create_model("two-layer", backend="numpy", activation="tanh").state_dict()
    Path("weights.pkl").write_bytes(pickle.dumps(weights))
    model = ma.load_model("weights.pkl", backend="numpy", model="two-layer", activation="tanh")
    assert model.layers[1].kind == "tanh"


def test_errors_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    train(2, "unfinished")
    Path("unfinished/model.safetensors").unlink()
    Path("empty").mkdir()
    Path("junk.safetensors").write_bytes(b"junk")
    for path in (None, "absent", "empty", "unfinished", "junk.safetensors"):
        capsys.readouterr()
        assert main(["evaluate", *([path] if path else [])]) == 4
        message = capsys.readouterr().err.removeprefix("mnist-accel evaluate: ").strip()
        with pytest.raises(ma.DataError, match=re.escape(message)):
            ma.load_model(path)

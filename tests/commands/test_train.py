"""`train`: the files of a run folder, the configuration, and what is printed."""

import dataclasses
import json
import shlex
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import mnist_accel as ma
from backends import registry
from backends.numpy.backend import NumpyBackend
from mnist_accel.nn import StepSchedule
from mnist_accel.runs import artifacts
from mnist_accel.runs.folder import RunFolder
from tests.support.command_line import (
    DIGITS,
    QUICK,
    assert_same_weights,
    environment,
    read_json,
    start_training,
    weights,
)


def test_train_writes_a_run_folder(run):
    code, out, err = run("train", *QUICK, "--out", "run", "--log-every", "10")
    assert code == 0
    assert "epoch 1: loss" in out
    assert "test accuracy" in out.splitlines()[-1]
    assert "step" in err
    assert "step" not in out
    folder = Path("run")
    files = {file.name for file in folder.iterdir()}
    assert files == {
        "checkpoint",
        "config.json",
        "curves.png",
        "filters.png",
        "metrics.jsonl",
        "mistakes.png",
        "model.safetensors",
        "summary.json",
    }
    config = read_json(folder / "config.json")
    assert config["backend"] == {
        "requested": "numpy",
        "used": "numpy",
        "threads": 1,
        "device": None,
        "reason": f"NumPy {np.__version__}",
        "figures": "",
        "fell_back": False,
        "compiled": False,
        "not_compiled": "the backend numpy has no compiled epochs",
    }
    assert config["settings"]["iterations"] == 40
    assert config["versions"]["mnist_accel"] == ma.__version__
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "steps"] == [10, 20, 30, 40]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2]
    summary = read_json(folder / "summary.json")
    assert {"test_loss", "test_accuracy", "images_per_s", "seconds", "backend"} <= summary.keys()
    assert {"data", "setup", "prepare", "train", "evaluate", "pictures"} == summary[
        "seconds"
    ].keys()
    with Image.open(folder / "curves.png") as picture:
        assert picture.width > 800


def test_features_have_no_pictures_of_weights_and_mistakes_and_the_run_says_so(run):
    rows = "".join(f"{n % 7},{n % 3},{'abc'[n % 3]}\n" for n in range(30))
    Path("table.csv").write_text(f"x,y,label\n{rows}")
    arguments = ("--dataset", "csv:table.csv", "--test-split", 0.2, "--iterations", 2)
    code, _, err = run("train", *arguments, "--backend", "numpy", "--out", "run")
    assert code == 0
    assert "not drawn for 2 features: filters.png, mistakes.png" in err
    assert [file.name for file in Path("run").glob("*.png")] == ["curves.png"]


def test_the_default_folder_name_contains_time_model_and_backend(run):
    assert run("train", *QUICK, "--quiet")[0] == 0
    assert run("train", *QUICK, "--quiet")[0] == 0
    names = sorted(folder.name for folder in Path("runs").iterdir())
    assert len(names) == 2
    assert all("-two-layer-numpy" in name for name in names)


def test_two_runs_never_share_a_folder(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5)
    names = [
        RunFolder.create(None, model="cnn", backend="numpy", now=now).path.name for _ in range(3)
    ]
    assert names == [f"20260102-030405-cnn-numpy{number}" for number in ("", "-2", "-3")]
    RunFolder.create("mine", model="cnn", backend="numpy", now=now).write_metrics([{}])
    with pytest.raises(ma.MnistAccelError, match="mine already contains a run"):
        RunFolder.create("mine", model="cnn", backend="numpy", now=now)


def test_quiet_and_no_progress_reduce_the_output(run):
    code, out, err = run("train", *QUICK, "--out", "quiet", "--quiet")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert err == ""
    _, out, err = run("train", *QUICK, "--out", "calm", "--no-progress", "--log-every", "5")
    assert "epoch 1" in out
    assert "step" not in err


def test_no_control_characters_are_written_to_a_pipe(run, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, err = run("train", *QUICK, "--out", "run")
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_every_flag_takes_effect(run):
    code, _, err = run(
        "train", *DIGITS, "--model", "three-layer", "--no-fallback", "--epochs", 2,
        "--lr", 0.01, "--optimizer", "nesterov", "--momentum", 0.8, "--weight-decay", 1e-4,
        "--schedule", "step", "--hidden-sizes", "20, 10", "--activation", "tanh", "--seed", 5,
        "--dtype", "float64", "--limit-train", 300, "--limit-test", 100,
        "--validation-split", 0.1, "--target-accuracy", 0.99, "--patience", 9,
        "--max-seconds", 60, "--checkpoint-every", 2, "--log-every", 3, "--sampling", "replacement",
        "--validation-every", 2, "--log", "none", "--out", "run", "--no-progress", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    config = read_json("run/config.json")
    assert config["settings"] == {
        "model": "three-layer", "backend": "numpy", "threads": 1, "device": None,
        "no_fallback": True, "dataset": "digits", "data_dir": None, "label_column": None,
        "test_split": None, "kind": "auto", "epochs": 2,
        "iterations": None, "batch_size": 64,
        "sampling": "replacement", "lr": 0.01, "optimizer": "nesterov", "momentum": 0.8,
        "weight_decay": 1e-4, "schedule": "step", "hidden_sizes": [20, 10], "activation": "tanh",
        "seed": 5, "dtype": "float64", "limit_train": 300, "limit_test": 100,
        "validation_split": 0.1, "validation_every": 2, "target_accuracy": 0.99, "patience": 9,
        "max_seconds": 60.0, "checkpoint_every": 2, "log_every": 3,
        "log": "none",
    }  # fmt: skip
    assert config["data"] == {
        "name": "digits",
        "source": config["data"]["source"],
        "train_images": 270,
        "validation_images": 30,
        "test_images": 100,
        "class_names": list("0123456789"),
        "kind": "pixels",
        "shape": [28, 28],
    }
    assert config["device"].keys() == {"name", "memory_total_bytes"}
    assert config["device"]["name"]
    state = weights("run")
    assert [state[key].shape for key in ("W1", "W2", "W3")] == [(784, 20), (20, 10), (10, 10)]
    assert state["W1"].dtype == np.float64
    trainer = ma.load_checkpoint("run/checkpoint", backend="numpy")
    assert trainer.step == 2 * (270 // 64)
    assert (trainer.optimizer.momentum, trainer.optimizer.nesterov) == (0.8, True)
    assert trainer.schedule == StepSchedule()
    epochs = RunFolder(Path("run")).read_metrics("epoch")
    assert [epoch["validation_accuracy"] is not None for epoch in epochs] == [False, True]


def test_the_config_of_a_run_repeats_the_run(run):
    flags = ("--lr", "0.1", "--seed", "7", "--hidden-sizes", "20,10", "--optimizer", "momentum")
    assert run("train", *QUICK, *flags, "--out", "one", "--quiet")[0] == 0
    assert run("train", "--config", "one/config.json", "--out", "two", "--quiet")[0] == 0
    assert_same_weights("one", "two")
    assert run("train", "--config", "one/config.json", "--seed", 8, "--out", "three")[0] == 0
    assert not np.array_equal(weights("one")["W1"], weights("three")["W1"])


def test_a_toml_file_overrides_the_recipe_and_flags_override_the_file(run):
    Path("config.toml").write_text(
        'model = "three-layer"\ndataset = "digits"\nepochs = 1\nbatchSize = 100\n'
        'learning_rate = 0.5\noptimizer = "SGD"\nhidden_sizes = [12, 8]\n'
    )
    assert run("train", "--config", "config.toml", "--lr", 0.25, "--out", "run")[0] == 0
    settings = read_json("run/config.json")["settings"]
    assert settings["hidden_sizes"] == [12, 8]
    assert (settings["batch_size"], settings["lr"], settings["epochs"]) == (100, 0.25, 1)
    assert settings["activation"] == "sigmoid"


def test_an_empty_list_of_hidden_sizes_means_a_network_without_hidden_layers(run):
    flags = (*QUICK, "--quiet", "--out")
    Path("config.toml").write_text("hidden_sizes = []\n")
    assert run("train", *flags, "one", "--config", "config.toml")[0] == 0
    assert weights("one").keys() == {"W1", "b1"}
    assert run("train", *flags, "two", "--config", "one/config.json")[0] == 0
    assert_same_weights("one", "two")
    assert run("train", "--resume", "one", "--iterations", 50, "--quiet")[0] == 0
    assert run("train", *flags, "cnn", "--model", "cnn")[0] == 0  # it has no choice of sizes
    assert run("train", *flags, "same", "--config", "cnn/config.json")[0] == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr = -1\n", "--lr: expected a number above 0, got -1"),
        ('lr = ""\n', "--lr: expected a number above 0, got nothing"),
        ("epochs = []\n", "--epochs: expected an integer of at least 1, got nothing"),
        ("learnin_rate = 1\n", "has an unknown setting 'learnin_rate'; did you mean lr?"),
        ("epochs = 1\niterations = 1\n", "either --epochs or --iterations"),
    ],
)
def test_an_invalid_config_file_is_refused_in_one_line(run, text, says):
    Path("config.toml").write_text(text)
    code, _, err = run("train", "--config", "config.toml")
    assert code == 2
    assert says in err
    assert len(err.splitlines()) == 1


def test_validation_uses_held_out_images_if_there_are_any(run):
    code, out, _ = run(
        "train", *QUICK, "--validation-split", 0.2, "--target-accuracy", 0.2, "--out", "run"
    )
    assert code == 0
    assert "validation accuracy" in out
    summary = read_json("run/summary.json")
    assert summary["stop_reason"] == "target accuracy 20.00% reached"
    assert summary["train_images"] == round(1437 * 0.8)


def test_the_suggested_next_command_names_the_program_that_was_called(run, monkeypatch, tmp_path):
    """The installed program if it is on the path, otherwise the interpreter with the module."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "mnist-accel", "train"])
    for folder, on_the_path in (("my run", True), ("other", False)):
        if on_the_path:
            script = tmp_path / "bin" / "mnist-accel"
            script.parent.mkdir()
            script.touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin" if on_the_path else tmp_path))
        code, out, err = run("train", *QUICK, "--out", folder)
        assert code == 0
        assert "next:" not in out
        program = "mnist-accel" if on_the_path else f"{sys.executable} -m mnist_accel"
        line = f"next: {program} predict {shlex.quote(folder)} --index 0"
        assert err.splitlines()[-1] == line


def test_the_suggested_next_command_works():
    process = start_training(*QUICK, "--out", "run")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    command = err.splitlines()[-1].removeprefix("next: ")
    assert command == f"{sys.executable} -m mnist_accel predict run --index 0"
    done = subprocess.run(
        shlex.split(command),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("weights in run\n")


@pytest.mark.emulated
def test_a_run_on_an_emulated_gpu_matches_numpy(run):
    few = ("--limit-train", 40, "--limit-test", 20, "--batch-size", 17, "--iterations", 5)
    for backend in ("cupy-emulated", "numpy"):
        flags = ("--dataset", "digits", "--hidden-sizes", 5, *few, "--backend", backend, "--quiet")
        code, out, err = run("train", *flags, "--lr", 0.1, "--out", backend)
        assert (code, err) == (0, "")
        assert out.startswith("test accuracy ")
    config = read_json("cupy-emulated/config.json")
    assert config["backend"]["used"] == "cupy-emulated"
    assert config["backend"]["not_compiled"] == ""
    assert config["device"]["name"] == "emulated GPU cuda:0"
    expected = weights("numpy")
    for name, got in weights("cupy-emulated").items():
        np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=1e-6)
    losses = [
        [loss for line in RunFolder(Path(folder)).read_metrics("steps") for loss in line["losses"]]
        for folder in ("cupy-emulated", "numpy")
    ]
    assert len(losses[0]) == 5
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_an_infinite_loss_is_written_as_null(run, monkeypatch):
    """JSON has no infinity. Here only the test loss is infinite, so training does not diverge."""
    evaluate = artifacts.evaluate

    def overflowing(*arguments):
        return dataclasses.replace(evaluate(*arguments), loss=float("inf"))

    monkeypatch.setattr(artifacts, "evaluate", overflowing)
    assert run("train", *DIGITS, "--iterations", 3, "--out", "run", "--quiet")[0] == 0
    text = Path("run/summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["test_loss"] is None


def test_a_warning_is_printed_in_one_line_without_its_source_location(run, monkeypatch):
    class Warns(NumpyBackend):
        """Warns in every activation."""

        name: ClassVar[str] = "warns"

        def activation(self, kind, x):
            warnings.warn("the relu is old", RuntimeWarning, stacklevel=1)
            return super().activation(kind, x)

    monkeypatch.setitem(registry._registered, Warns.name, Warns)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run(
            "train", "--dataset", "digits", "--backend", "warns", "--iterations", 3, "--quiet"
        )
    assert code == 0
    assert err == "warning: the relu is old\n"

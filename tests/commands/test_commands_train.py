"""Training runs that meet trouble: a full disk, damaged folders, data that changed, no memory."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import mnist_accel as ma
from backends import registry
from backends.numpy.backend import NumpyBackend
from mnist_accel.commands import main
from mnist_accel.nn import StepSchedule
from mnist_accel.runs import run as training_run
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.run import _stop_on_signals

ROOT = Path(__file__).parents[2]
ON_NUMPY = ("--dataset", "digits", "--backend", "numpy", "--threads", 1)
DIGITS = (*ON_NUMPY, "--batch-size", 64)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a folder of its own to run in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd):
    """Run a command; return its exit code, and what it wrote to stdout and to stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def fails(run):
    """Assert that a command ends with a code and a single line that says something."""

    def fails(code, *arguments, says):
        got, _, err = run(*arguments)
        assert got == code, err
        assert says in err
        assert len(err.splitlines()) == 1, err

    return fails


def subprocess_of(command, *arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "mnist_accel", command, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **settings,
    )


def weights(folder):
    return ma.load_model(Path(folder) / "model.safetensors", backend="numpy").state_dict()


def read_json(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = (*DIGITS, "--iterations", 10, "--log-every", 5, "--out", folder, "--quiet")
    assert main(["train", *map(str, arguments)]) == 0
    return folder


def test_every_flag_is_taken(run):
    code, _, err = run(
        "train", *DIGITS, "--model", "three-layer", "--no-fallback", "--epochs", 2,
        "--lr", 0.01, "--optimizer", "nesterov", "--momentum", 0.8, "--weight-decay", 1e-4,
        "--schedule", "step", "--hidden-sizes", "20, 10", "--activation", "tanh", "--seed", 5,
        "--dtype", "float64", "--limit-train", 300, "--limit-test", 100,
        "--validation-split", 0.1, "--target-accuracy", 0.99, "--patience", 9,
        "--max-seconds", 60, "--checkpoint-every", 2, "--log-every", 3, "--sampling", "replacement",
        "--validation-every", 2, "--out", "run", "--no-progress", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    config = read_json("run/config.json")
    assert config["settings"] == {
        "model": "three-layer", "backend": "numpy", "threads": 1, "device": None,
        "no_fallback": True, "dataset": "digits", "data_dir": None, "epochs": 2,
        "iterations": None, "batch_size": 64,
        "sampling": "replacement", "lr": 0.01, "optimizer": "nesterov", "momentum": 0.8,
        "weight_decay": 1e-4, "schedule": "step", "hidden_sizes": [20, 10], "activation": "tanh",
        "seed": 5, "dtype": "float64", "limit_train": 300, "limit_test": 100,
        "validation_split": 0.1, "validation_every": 2, "target_accuracy": 0.99, "patience": 9,
        "max_seconds": 60.0, "checkpoint_every": 2, "log_every": 3,
    }  # fmt: skip
    assert config["data"] == {
        "name": "digits",
        "source": config["data"]["source"],
        "train_images": 270,
        "validation_images": 30,
        "test_images": 100,
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


@pytest.mark.emulated
def test_a_run_on_an_emulated_gpu(run):
    few = ("--limit-train", 40, "--limit-test", 20, "--batch-size", 17, "--iterations", 5)
    for backend in ("cupy-emulated", "numpy"):
        flags = ("--dataset", "digits", "--hidden-sizes", 5, *few, "--backend", backend, "--quiet")
        code, out, err = run("train", *flags, "--lr", 0.1, "--out", backend)
        assert (code, err) == (0, "")
        assert out.startswith("test accuracy ")
    config = read_json("cupy-emulated/config.json")
    assert config["backend"]["used"] == "cupy-emulated"
    assert config["backend"]["not_compiled"] == ""
    assert config["device"]["name"] == "emulated GPU 0"
    expected = weights("numpy")
    for name, got in weights("cupy-emulated").items():
        np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=1e-6)
    losses = [
        [loss for line in RunFolder(Path(folder)).read_metrics("steps") for loss in line["losses"]]
        for folder in ("cupy-emulated", "numpy")
    ]
    assert len(losses[0]) == 5
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_time_that_is_over_ends_the_run(run):
    """Even before its first epoch ends; it has a pace all the same."""
    arguments = (*ON_NUMPY, "--batch-size", 1)
    code, *_ = run("train", *arguments, "--max-seconds", 1e-3, "--out", "run", "--quiet")
    assert code == 0
    summary = read_json("run/summary.json")
    assert summary["stop_reason"] == "0.001 seconds are over"
    assert 0 < summary["steps"] < 1437
    assert summary["epochs"] == 0
    assert summary["images_per_s"] > 0


def test_patience_outlasts_an_interruption(run):
    """Three evaluations, the first of which is the best: two before the end, one after a resume."""
    small = (*DIGITS, "--lr", 1e-9, "--patience", 2, "--quiet")
    assert run("train", *small, "--epochs", 2, "--out", "run")[0] == 0
    assert read_json("run/summary.json")["stop_reason"] == ""
    assert run("train", "--resume", "run", "--epochs", 9, "--quiet")[0] == 0
    summary = read_json("run/summary.json")
    assert summary["stop_reason"] == "no improvement in 2 evaluations"
    assert summary["epochs"] == 3


def test_rules_that_were_met_stop_a_resumed_run_before_its_first_step(run):
    arguments = (*DIGITS, "--epochs", 3, "--target-accuracy", 0.3, "--quiet")
    assert run("train", *arguments, "--out", "run")[0] == 0
    before = read_json("run/summary.json")
    assert before["stop_reason"] == "target accuracy 30.00% reached"
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] == before["steps"]
    assert run("train", "--resume", "run", "--target-accuracy", 1, "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] > before["steps"]


def test_time_counts_on_when_a_run_goes_on(run):
    long = (*ON_NUMPY, "--batch-size", 1, "--epochs", 99)
    assert run("train", *long, "--max-seconds", 0.1, "--out", "run", "--quiet")[0] == 0
    steps = read_json("run/summary.json")["steps"]
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] == steps
    assert run("train", "--resume", "run", "--max-seconds", 0.2, "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] > steps


def test_resumed_run_stays_on_its_backend_and_remembers_how_it_began(run):
    arguments = ("--dataset", "digits", "--backend", "cupy", "--iterations", 3, "--quiet")
    assert run("train", *arguments, "--out", "run")[0] == 0
    began = read_json("run/config.json")
    assert run("train", "--resume", "run", "--iterations", 5, "--quiet")[0] == 0
    resumed = read_json("run/config.json")
    assert resumed["backend"]["requested"] == began["backend"]["used"]
    assert resumed["backend"]["used"] == began["backend"]["used"]
    assert resumed["earlier"] == [began]
    assert (
        run("train", "--resume", "run", "--iterations", 7, "--backend", "numpy", "--quiet")[0] == 0
    )
    again = read_json("run/config.json")
    assert again["backend"]["used"] == "numpy"
    assert [config["settings"]["iterations"] for config in again["earlier"]] == [3, 5]
    assert "earlier" not in resumed["earlier"][0]


def test_losses_beyond_all_bounds_are_written_as_null(run, monkeypatch):
    """JSON knows no infinity; here the test loss is infinite though the training was not."""
    evaluate = training_run.evaluate

    def overflowing(*arguments):
        return dataclasses.replace(evaluate(*arguments), loss=float("inf"))

    monkeypatch.setattr(training_run, "evaluate", overflowing)
    assert run("train", *DIGITS, "--iterations", 3, "--out", "run", "--quiet")[0] == 0
    text = Path("run/summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["test_loss"] is None


def test_two_runs_do_not_get_the_same_folder(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5)
    names = [
        RunFolder.create(None, model="cnn", backend="numpy", now=now).path.name for _ in range(3)
    ]
    assert names == [f"20260102-030405-cnn-numpy{number}" for number in ("", "-2", "-3")]
    RunFolder.create("mine", model="cnn", backend="numpy", now=now)
    with pytest.raises(ma.MnistAccelError, match="mine holds a run already"):
        RunFolder.create("mine", model="cnn", backend="numpy", now=now)


def test_reader_that_goes_away_ends_the_training_but_loses_nothing(run):
    command = (
        f"{sys.executable} -m mnist_accel.train {' '.join(map(str, DIGITS))} "
        "--iterations 20000 --log-every 1 --out run 2>&1 >/dev/null | head -5"
    )
    shell = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode not in (0, 1), shell
    assert len(shell.stdout.splitlines()) == 5
    step = ma.load_checkpoint("run/checkpoint", backend="numpy").step
    assert 0 < step < 20000
    assert run("train", "--resume", "run", "--iterations", step + 5, "--quiet")[0] == 0
    lines = RunFolder(Path("run")).read_metrics("steps")
    assert sum(len(line["losses"]) for line in lines) == step + 5


@pytest.fixture
def ctrl_c_interrupts():
    """As in a foreground process, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_ctrl_c_does_not_wait_for_the_step(ctrl_c_interrupts):
    trainer = ma.Trainer(ma.create_model("cnn", backend="numpy"))
    with _stop_on_signals(trainer):
        signal.raise_signal(signal.SIGINT)
        assert trainer.fit(np.zeros((5, 784)), np.zeros(5, int), epochs=1).stop_reason
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_is_ignored_stays_ignored():
    """As in a process that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = ma.Trainer(ma.create_model("cnn", backend="numpy"))
        with _stop_on_signals(trainer):
            signal.raise_signal(signal.SIGINT)
            assert trainer.fit(np.zeros((5, 784)), np.zeros(5, int), epochs=1).stop_reason == ""
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_killed_process_was_writing_is_removed(run, trained):
    shutil.copytree(trained, "run")
    left = [Path("run/checkpoint/.last.safetensors.12.unfinished"), Path("run/.c.3.unfinished")]
    for path in left:
        path.write_bytes(b"half a file")
    assert run("train", "--resume", "run", "--iterations", 11, "--quiet")[0] == 0
    assert not any(path.exists() for path in left)


def test_full_disk_is_one_line_and_the_run_goes_on_later(run, trained):
    """A limit on the size of files fails a write as a full disk does."""
    shutil.copytree(trained, "run")
    full = subprocess_of(
        "train", "--resume", "run", "--iterations", 20, "--quiet",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip
    assert full.returncode == 4
    assert "cannot write run/checkpoint/last.safetensors: File too large" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert ma.load_checkpoint("run/checkpoint", backend="numpy").step == 10
    assert [file.name for file in Path("run/checkpoint").iterdir()] == ["last.safetensors"]
    assert run("train", "--resume", "run", "--iterations", 20, "--quiet")[0] == 0
    steps = [
        line for line in Path("run/metrics.jsonl").read_text().splitlines() if "losses" in line
    ]
    assert sum(len(json.loads(line)["losses"]) for line in steps) == 20


def test_length_in_epochs_replaces_one_in_steps(run, trained):
    """22 steps an epoch, of batches drawn with replacement."""
    shutil.copytree(trained, "run")
    assert run("train", "--resume", "run", "--epochs", 1, "--quiet")[0] == 0
    config = ("--config", "run/config.json", "--out", "other", "--quiet")
    assert run("train", *config, "--iterations", 5)[0] == 0
    assert [read_json(f"{name}/summary.json")["steps"] for name in ("run", "other")] == [22, 5]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", "[]", "run/config.json is not the config.json of a run"),
        ("config.json", "{}", "run/config.json is not the config.json of a run"),
        ("config.json", '{"settings"', "run/config.json is not valid JSON"),
        ("config.json", '{"settings": {}}', "run/config.json does not say which backend was used"),
        (
            "config.json",
            '{"settings": {}, "backend": {"used": "numpy", "threads": "all"}}',
            "run/config.json does not say which backend was used",
        ),
        ("metrics.jsonl", "5\n", "run/metrics.jsonl, line 1, is not a line of metrics"),
        ("metrics.jsonl", "{}\n", "run/metrics.jsonl, line 1, is not a line of metrics"),
        ("metrics.jsonl", "{\n{}\n", "run/metrics.jsonl, line 1, is not JSON"),
        ("metrics.jsonl", "\xff\n{}\n", "run/metrics.jsonl, line 1, is not JSON"),
        ("metrics.jsonl", None, "cannot read run/metrics.jsonl"),
        ("checkpoint/last.safetensors", None, "there is no file run/checkpoint/last.safetensors"),
    ],
)
def test_damaged_run_is_refused_by_the_name_of_the_file(fails, trained, file, content, says):
    shutil.copytree(trained, "run")
    path = Path("run", file)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode("latin-1"))
    fails(4, "train", "--resume", "run", "--iterations", 19, "--quiet", says=says)


def test_line_that_a_killed_process_was_writing_is_written_again(run, trained):
    shutil.copytree(trained, "run")
    with Path("run/metrics.jsonl").open("a") as file:
        file.write('{"event": "steps", "st')
    assert run("train", "--resume", "run", "--iterations", 20, "--quiet")[0] == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "steps"] == [5, 10, 15, 20]


def write_idx(path, array):
    header = [0, 0, 8, array.ndim, *b"".join(side.to_bytes(4, "big") for side in array.shape)]
    path.write_bytes(bytes(header) + array.astype(np.uint8).tobytes())


def write_custom(folder, *, images):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count))


def test_own_data_are_found_again_and_must_stay_as_they_were(fails, run):
    write_custom(Path("mine"), images=50)
    arguments = ("--dataset", "custom", "--data-dir", "mine", "--backend", "numpy")
    assert run("train", *arguments, "--iterations", 3, "--out", "run", "--quiet")[0] == 0
    code, out, _ = run("evaluate", "run")
    assert code == 0
    assert "custom, 20 test images" in out
    write_custom(Path("mine"), images=60)
    fails(4, "train", "--resume", "run", "--iterations", 9, "--quiet", says="trained on 50 images")


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (("--hidden-sizes", 9_999_999_999), "not enough memory: Unable to allocate"),
        (
            ("--batch-size", 10**15, "--sampling", "replacement"),
            "batch_size must be less than 2147483648, got 1000000000000000",
        ),
    ],
)
def test_sizes_that_fit_nowhere_are_wrong_usage(fails, sizes, says):
    arguments = ("--dataset", "digits", "--backend", "numpy", *sizes, "--quiet")
    fails(2, "train", *arguments, says=says)


def test_closed_streams_are_no_trouble():
    arguments = [*map(str, DIGITS), "--iterations", "3", "--out", "run"]
    command = f"{sys.executable} -m mnist_accel.train {' '.join(arguments)} >&- 2>&-"
    shell = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert shell.returncode == 0
    assert Path("run/summary.json").is_file()


def test_warnings_are_one_line_without_a_place_in_the_code(run, monkeypatch):
    class Warns(NumpyBackend):
        """Has something to say about every activation."""

        name: ClassVar[str] = "warns"

        def relu(self, x):
            warnings.warn("the relu is worn", RuntimeWarning, stacklevel=1)
            return super().relu(x)

    monkeypatch.setitem(registry._registered, Warns.name, Warns)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run(
            "train", "--dataset", "digits", "--backend", "warns", "--iterations", 3, "--quiet"
        )
    assert code == 0
    assert err == "warning: the relu is worn\n"


@pytest.mark.parametrize("name", ["lr", "seed", "batch-size", "hidden-sizes", "dtype", "model"])
def test_no_flag_turns_a_resumed_run_into_another(fails, name):
    value = {"dtype": "float64", "model": "cnn"}.get(name, 3)
    fails(
        2, "train", "--resume", f"--{name}", value, says=f"--{name} cannot be given with --resume"
    )

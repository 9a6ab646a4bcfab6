"""The command `train` measures backends and threads without changing the result."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from backends import get_backend
from mnist_accel.autotune import measure
from mnist_accel.commands import main
from mnist_accel.runs import run as training_run


@pytest.fixture(autouse=True)
def idle_machine_and_own_folder(tmp_path, monkeypatch):
    """Run each test in its own folder, as if no other program ran and all kernels were compiled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "_involuntary_switches", lambda: 0)
    # A short run is measured only if nothing needs to be compiled for it.
    monkeypatch.setattr(type(get_backend("numba")), "compile_seconds", 0.0)


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


def test_unusable_cache_folder_gives_a_warning(autotune_folder, run):
    autotune_folder.parent.write_text("a file in place of the folder")
    small = ("--dataset", "digits", "--backend", "numpy", "--iterations", 1, "--quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        err = run("train", *small)
    lines = err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["warning:"] * 2
    assert "cannot be read (Not a directory); backends and threads are measured again" in lines[0]
    assert "cannot cache autotune results in" in lines[1]


@pytest.mark.parametrize(
    "flags", [("--backend", "numpy"), (), ("--model", "lenet", "--batch-size", 33)]
)
def test_measuring_does_not_change_the_training(run, flags):
    small = ("--dataset", "digits", "--iterations", 7, "--optimizer", "adam", *flags)
    err = run("train", *small, "--out", "measured")
    config = read_json("measured/config.json")
    used, threads = (config["backend"][name] for name in ("used", "threads"))
    line = next(line for line in err.splitlines() if line.startswith("backend "))
    assert re.match(rf"backend {used}, {threads} threads? \(measured: {used} [\d.]+ ", line)
    assert config["backend"]["figures"] in line
    assert "trial" in read_json("measured/summary.json")["seconds"]
    run("train", *small, "--backend", used, "--threads", threads, "--out", "given")
    assert "trial" not in read_json("given/summary.json")["seconds"]
    measured, given = (
        ma.load_checkpoint(f"{name}/checkpoint", backend="numpy") for name in ("measured", "given")
    )
    assert measured.step == given.step == 7
    for name, array in measured.model.state_dict().items():
        assert np.array_equal(array, given.model.state_dict()[name]), name
    for name, array in measured.optimizer_state.items():
        assert np.array_equal(array, given.optimizer_state[name]), name


@pytest.mark.slow
def test_resume_uses_the_same_threads_and_measures_nothing(run, monkeypatch):
    small = ("--dataset", "digits", "--backend", "numba", "--batch-size", 64)
    run("train", *small, "--threads", 2, "--iterations", 5, "--out", "stopped")
    run("train", *small, "--threads", 2, "--iterations", 9, "--out", "straight", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "choose_fastest", lambda *_, **__: pytest.fail("measured"))
        err = run("train", "--resume", "stopped", "--iterations", 9)
        assert "backend numba, 2 threads (Numba " in err
        weights = [
            ma.load_model(name, backend="numpy").state_dict()
            for name in ("stopped/model.safetensors", "straight/model.safetensors")
        ]
        for name, array in weights[0].items():
            assert np.array_equal(array, weights[1][name]), name
        run("train", "--resume", "stopped", "--iterations", 10, "--threads", 1, "--quiet")
        assert read_json("stopped/config.json")["backend"]["threads"] == 1
        run("train", "--resume", "stopped", "--iterations", 11, "--backend", "numpy", "--quiet")
        backend = read_json("stopped/config.json")["backend"]
        assert (backend["used"], backend["threads"]) == ("numpy", None)
    config = read_json("straight/config.json")
    del (
        config["backend"]["threads"],
        config["settings"]["threads"],
    )  # earlier versions did not write the number of threads
    Path("straight/config.json").write_text(json.dumps(config))
    run("train", "--resume", "straight", "--iterations", 10, "--quiet")
    assert read_json("straight/config.json")["backend"]["threads"] is None


def test_more_threads_than_useful_give_a_warning(run):
    most = get_backend("numba").max_threads
    flags = ("--backend", "numba", "--threads", most + 1, "--dataset", "digits")
    err = run("train", *flags, "--iterations", 2, "--quiet")
    assert f"warning: {most + 1} threads are slower than {most}, the number of CPU cores" in err


def test_other_commands_accept_threads(run, capfd):
    flags = ("--dataset", "digits", "--backend", "numpy", "--threads", 1)
    run("train", *flags, "--iterations", 3, "--out", "run", "--quiet")
    for command in (("evaluate", "run"), ("predict", "run", "--index", "0")):
        run(*command, "--threads", 1)
        assert main([*command, "--threads", "0"]) == 2
        assert main([*command, "--backend", "array-api-strict", "--threads", "2"]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert "--threads: expected an integer from 1 to 1024, got 0" in lines[0]
        assert lines[1].endswith("does not take a number of threads, got 2; leave it out")
    run("gradcheck", "--elements", 1, "--threads", 1)
    run("compare", "--dataset", "digits", "--iterations", 1, "--threads", 1)

"""`train`: rules that end a training early, signals, and a reader that closes the pipe."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.signals import stop_on_signals
from tests.support.command_line import (
    DIGITS,
    ON_NUMPY,
    ROOT,
    assert_same_weights,
    environment,
    read_json,
    start_training,
)


def test_max_seconds_ends_a_run_even_within_its_first_epoch(run):
    """The summary then has no epochs, but it has the images per second."""
    arguments = (*ON_NUMPY, "--batch-size", 1)
    code, *_ = run("train", *arguments, "--max-seconds", 1e-3, "--out", "run", "--quiet")
    assert code == 0
    summary = read_json("run/summary.json")
    assert summary["stop_reason"] == "time limit of 0.001 seconds reached"
    assert 0 < summary["steps"] < 1437
    assert summary["epochs"] == 0
    assert summary["images_per_s"] > 0


def test_patience_counts_evaluations_before_and_after_a_resume(run):
    """Three evaluations, the first of which is the best: two before the end, one after a resume."""
    small = (*DIGITS, "--lr", 1e-9, "--patience", 2, "--quiet")
    assert run("train", *small, "--epochs", 2, "--out", "run")[0] == 0
    assert read_json("run/summary.json")["stop_reason"] == ""
    assert run("train", "--resume", "run", "--epochs", 9, "--quiet")[0] == 0
    summary = read_json("run/summary.json")
    assert summary["stop_reason"] == "no improvement in 2 evaluations"
    assert summary["epochs"] == 3


def test_a_rule_that_is_already_fulfilled_stops_a_resumed_run_before_its_first_step(run):
    arguments = (*DIGITS, "--epochs", 3, "--target-accuracy", 0.3, "--quiet")
    assert run("train", *arguments, "--out", "run")[0] == 0
    before = read_json("run/summary.json")
    assert before["stop_reason"] == "target accuracy 30.00% reached"
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] == before["steps"]
    assert run("train", "--resume", "run", "--target-accuracy", 1, "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] > before["steps"]


def test_max_seconds_counts_the_time_before_a_resume(run):
    long = (*ON_NUMPY, "--batch-size", 1, "--epochs", 99)
    assert run("train", *long, "--max-seconds", 0.1, "--out", "run", "--quiet")[0] == 0
    steps = read_json("run/summary.json")["steps"]
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] == steps
    assert run("train", "--resume", "run", "--max-seconds", 0.2, "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] > steps


@pytest.mark.posix
def test_a_run_stopped_by_a_signal_resumes_to_the_same_weights(run):
    long = (*DIGITS, "--iterations", 1500)
    done = 0
    for signum, arguments, exit_code in (
        (signal.SIGINT, (*long, "--out", "run", "--log-every", 1), 130),
        (signal.SIGTERM, ("--resume", "run"), 143),
        (signal.SIGHUP, ("--resume", "run"), 129),
    ):
        process = start_training(*arguments)
        for line in process.stderr:
            if "step" in line and "/1500" in line.replace(",", ""):
                break
        process.send_signal(signum)
        process.send_signal(signum)  # services and terminals may send it twice
        _, err = process.communicate(timeout=60)
        assert process.returncode == exit_code, err
        assert "the checkpoint is saved in run" in err
        command = f"{sys.executable} -m mnist_accel train --resume run"
        assert err.splitlines()[-1] == f"continue with: {command}"
        step = ma.load_checkpoint("run/checkpoint", backend="numpy").step
        assert done < step < 1500
        done = step
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert run("train", *long, "--out", "straight", "--quiet")[0] == 0
    assert_same_weights("run", "straight")


def test_a_closed_terminal_stops_the_run_and_saves_a_checkpoint():
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    leader, follower = pty.openpty()
    # The terminal becomes that of the training, so that closing it sends SIGHUP.
    start = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    start += "os.execv(sys.executable, [sys.executable, '-m', 'mnist_accel.train', *sys.argv[1:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", start, *DIGITS, "--iterations", "90000", "--out", "run"],
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        shown = b""
        while b"epoch 2" not in shown:
            shown += os.read(leader, 1000)
        os.close(leader)
        assert process.wait(timeout=60) == 129
    finally:
        process.kill()
        process.wait()
    assert 0 < ma.load_checkpoint("run/checkpoint", backend="numpy").step < 90000


def test_a_killed_run_resumes_to_the_same_weights(run):
    long = (*DIGITS, "--iterations", 1000)
    process = start_training(*long, "--out", "run", "--log-every", 1, "--checkpoint-every", 50)
    for line in process.stderr:
        if "  100/" in line:
            break
    process.kill()
    process.communicate()
    assert ma.load_checkpoint("run/checkpoint", backend="numpy").step >= 50
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert run("train", *long, "--out", "straight", "--quiet")[0] == 0
    assert_same_weights("run", "straight")


def test_a_closed_pipe_ends_the_training_without_losing_steps(run):
    command = (
        f"{sys.executable} -m mnist_accel.train {' '.join(DIGITS)} "
        "--iterations 20000 --log-every 1 --out run 2>&1 >/dev/null | head -5"
    )
    shell = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(),
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


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_step(ctrl_c_interrupts, monkeypatch):
    """Unless it follows within a second, as if one key press was counted twice."""
    trainer = ma.Trainer(ma.create_model("cnn", backend="numpy"))
    with stop_on_signals(trainer) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGINT
        monkeypatch.setattr(stop, "time", stop.time - 1)
        assert trainer.fit(np.zeros((5, 784)), np.zeros(5, int), epochs=1).stop_reason
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.posix
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_kernels_compile_prints_how_to_continue(run, monkeypatch, signum, code):
    before = signal.getsignal(signum)
    with monkeypatch.context() as patch:
        patch.setattr(ma.Network, "prepare", lambda self: signal.raise_signal(signum))
        got, _, err = run("train", *ON_NUMPY, "--iterations", 5, "--out", "run", "--quiet")
    assert got == code
    assert "interrupted at step 0; the checkpoint is saved in run" in err
    assert err.splitlines()[-1].startswith("continue with: ")
    assert signal.getsignal(signum) is before
    assert run("train", "--resume", "run", "--quiet")[0] == 0


def test_an_ignored_ctrl_c_stays_ignored():
    """As in a process that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = ma.Trainer(ma.create_model("cnn", backend="numpy"))
        with stop_on_signals(trainer):
            signal.raise_signal(signal.SIGINT)
            assert trainer.fit(np.zeros((5, 784)), np.zeros(5, int), epochs=1).stop_reason == ""
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", [["-m", "mnist_accel.train"], ["-m", "mnist_accel", "train"]])
def test_ctrl_c_during_the_imports_prints_one_line(tmp_path, command):
    """A module in place of NumPy waits until it is interrupted."""
    slow = tmp_path / "slow" / "numpy.py"
    slow.parent.mkdir()
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment(PYTHONPATH=f"{slow.parent}{os.pathsep}{ROOT}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "mnist-accel: interrupted\n")


def test_ctrl_c_while_another_program_imports_this_one_raises(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import signal, mnist_accel; signal.raise_signal(signal.SIGINT)"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr

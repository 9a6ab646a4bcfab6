"""Populations on a Dask cluster: a real scheduler with two worker processes on this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from mnist_accel.commands import main
from mnist_accel.populations.folder import PopulationFolder
from tests.support.command_line import environment

pytest.importorskip("distributed", reason="needs Dask: pip install 'mnist-accel[cluster]'")

QUICK = (
    "population", "two-layer", "--dataset", "digits", "--backend", "numpy", "--epochs", "40",
    "--batch-size", "10", "--limit-train", "300", "--limit-test", "100", "--seeds", "6", "--quiet",
)  # fmt: skip


@contextmanager
def cluster(folder, *, workers):
    """Start a scheduler and workers; yield its address and all processes, the workers first."""
    file = folder / "scheduler.json"
    options = {"env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port",
         "0", "--no-dashboard", "--scheduler-file", str(file)],
        **options,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
               "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]  # fmt: skip
    processes = [subprocess.Popen(command, cwd=folder, **options) for _ in range(workers)]
    try:
        yield address, [*processes, scheduler]
    finally:
        for process in (*processes, scheduler):
            process.kill()
            process.wait()


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_all_members_end_with_equal_bits_although_a_worker_is_killed(tmp_path):
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert main([*QUICK, "--out", str(local)]) == 0
    with cluster(tmp_path, workers=2) as (address, processes):
        _wait_for_workers(address, 2)
        with killed_after_the_first_member(processes[0], remote):
            assert main([*QUICK, "--scheduler", address, "--out", str(remote)]) == 0
        assert processes[0].wait() == -signal.SIGKILL
    one, other = (PopulationFolder(folder).load() for folder in (local, remote))
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.parameters.flat, b.parameters.flat)


@contextmanager
def killed_after_the_first_member(process, run):
    """Kill a process when the first member of a population has ended."""

    def kill():
        while not (run / "members.jsonl").exists():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join()


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_if_the_scheduler_is_lost_one_line_tells_how_to_continue(tmp_path, capsys):
    run = tmp_path / "run"
    with cluster(tmp_path, workers=1) as (address, processes):
        _wait_for_workers(address, 1)
        with killed_after_the_first_member(processes[-1], run):
            assert main([*QUICK, "--scheduler", address, "--out", str(run)]) == 2
    assert "start the cluster again and continue with --resume" in capsys.readouterr().err
    assert not (run / "summary.json").exists()
    assert main(["population", "--resume", str(run), "--quiet"]) == 0


def _wait_for_workers(address, number):
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(number, timeout=60)


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mnist_accel.populations.cluster._TIMEOUT", "0.5s")
    arguments = ["--scheduler", "tcp://127.0.0.1:9", "--out", str(tmp_path / "run")]
    assert main([*QUICK, *arguments]) == 2
    error = capsys.readouterr().err
    assert "the Dask scheduler at tcp://127.0.0.1:9 cannot be reached" in error
    assert error.count("\n") == 1

"""Fixtures of the tests of commands."""

import numpy as np
import pytest

from backends import registry
from backends.numpy.backend import NumpyBackend
from mnist_accel.commands import main


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    """Run each test in its own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd):
    """Return a function that runs a command and returns its exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def fails(run):
    """Return a function that asserts that a command fails, and returns what it wrote to stderr."""

    def fails(code, *arguments, says):
        """Assert the exit code and the single line on stderr."""
        got, _, err = run(*arguments)
        assert got == code, err
        assert len(err.splitlines()) == 1, err
        assert err.startswith("mnist-accel ")
        assert says in err
        return err

    return fails


@pytest.fixture
def skewed_backend(monkeypatch):
    """Register the backend "skewed", which adds a small error to every activation."""

    class Skewed(NumpyBackend):
        name = "skewed"

        def activation(self, kind, x):
            return super().activation(kind, x) * np.float32(1.001)

    monkeypatch.setitem(registry._registered, Skewed.name, Skewed)

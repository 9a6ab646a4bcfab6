"""Helpers of the tests that run commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import mnist_accel as ma

ROOT = Path(__file__).parents[2]
# The bundled digits: training on them takes seconds on any machine.
ON_NUMPY = ("--dataset", "digits", "--backend", "numpy", "--threads", "1")
DIGITS = (*ON_NUMPY, "--batch-size", "64")
QUICK = (*DIGITS, "--iterations", "40")


def environment(**variables):
    """Return the environment of a child process that imports this project."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def start_training(*arguments):
    """Start `train` in a child process whose output is piped."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_accel.train", *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(folder):
    """Return the weights of a finished run by name."""
    return ma.load_model(Path(folder) / "model.safetensors", backend="numpy").state_dict()


def assert_same_weights(one, other):
    for name, array in weights(one).items():
        assert np.array_equal(array, weights(other)[name]), name


def read_json(path):
    return json.loads(Path(path).read_text())

"""Runs the command: `python -m mnist_accel.predict`."""

from mnist_accel.commands import run_module

if __name__ == "__main__":
    run_module("predict")

"""Runs the command: `python -m mnist_accel.evaluate`."""

import sys

from mnist_accel.commands import run_module

if __name__ == "__main__":
    run_module("evaluate")
else:
    # `mnist_accel.evaluate` is a function of the Python interface. Importing this module by its
    # name would bind the module over it, so the import is given the function.
    from mnist_accel.evaluation import evaluate

    sys.modules[__name__] = evaluate  # type: ignore[assignment]

"""The command line: `mnist-accel NAME …` or `python -m mnist_accel NAME …`."""

from mnist_accel.commands.dispatcher import main

__all__ = ["main"]

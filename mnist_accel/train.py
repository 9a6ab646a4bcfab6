"""The command `train` as `python -m mnist_accel.train`."""

import sys

from mnist_accel.commands.dispatcher import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], prog="python -m mnist_accel.train"))

"""The command line as `python -m mnist_accel NAME …`."""

import sys

from mnist_accel.commands import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m mnist_accel"))

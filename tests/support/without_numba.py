"""Runs commands as if Numba was not installed.

    python -m tests.support.without_numba "train --dataset digits" "evaluate"

Each argument is a command with its arguments. The process prints "exit code N" after each.
"""

import importlib.metadata
import sys

HIDDEN = ("numba", "llvmlite")


class Hiding:
    """An import finder that finds everything that another one finds, except Numba."""

    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return self._finder.find_spec(name, path, target)

    def find_distributions(self, context=None):
        find = getattr(self._finder, "find_distributions", lambda context: ())
        context = context or importlib.metadata.DistributionFinder.Context()
        return (found for found in find(context) if found.name not in HIDDEN)


if __name__ == "__main__":
    sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
    from mnist_accel.commands import main

    for command in sys.argv[1:]:
        code = main(command.split())
        print("exit code", code, flush=True)

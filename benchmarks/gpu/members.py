"""Measures populations on a GPU: trainings per second by the number of members.

    python -m benchmarks.gpu.members --out members.json

Each time includes the creation of the networks and their evaluation. Prints a row and writes the
file after each population, so a run that is stopped leaves its results. The run fails if the
weights of member 0 depend on the number of members.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu.overheads import write_as_measured
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser
from mnist_accel.populations import train_population
from mnist_accel.populations.member import Weights

MEMBERS = (1, 8, 64, 132, 512)
NETWORKS = ("backprop", "cnn", "two-layer", "lenet")  # persistent kernels, then graph steps
ITERATIONS = 1000


HEADER = """| network | members | trainings per second | ratio to the first |
|---|---|---|---|"""


@dataclass(frozen=True)
class Measurement:
    """A population and its duration.

    Attributes:
        network: name of the recipe.
        members: number of members.
        seconds: duration of the population.
        ratio: trainings per second, relative to the smallest population of this network.
    """

    network: str
    members: int
    seconds: float
    ratio: float

    def __str__(self) -> str:
        rate = self.members / self.seconds
        return f"| {self.network} | {self.members} | {rate:.3g} | {self.ratio:.3g} |"


def measure(
    backend: str,
    *,
    networks: Sequence[str] = NETWORKS,
    members: Sequence[int] = MEMBERS,
    iterations: int = ITERATIONS,
) -> Iterator[Measurement]:
    """Train populations of each network, after one that compiles the kernels; yield each.

    Raises:
        AssertionError: the weights of member 0 depend on the number of members.
    """
    for network in networks:
        expected: Weights = {}
        first_rate = 0.0
        for count in (members[0], *members):
            started = time.perf_counter()
            population = train_population(
                network, seeds=count, data="digits", backend=backend, epochs=None,
                iterations=iterations, limit_test=100,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            weights = population[0].state_dict()
            if expected:
                first_rate = first_rate or count / seconds
                yield Measurement(network, count, seconds, count / seconds / first_rate)
            expected = expected or weights
            for name, weight in expected.items():
                assert np.array_equal(weights[name], weight), f"{network}: {count} members differ"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the first GPU, print a table and write a JSON file; return the exit code."""
    parser = Parser(prog="python -m benchmarks.gpu.members", description=__doc__, epilog="")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file")
    return guarded(lambda: _run(parser.parse_args(argv)), prog=parser.prog)


def _run(args: argparse.Namespace) -> int:
    write_as_measured(measure("cupy"), args.out, header=HEADER)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measures populations on a GPU: trainings per second by the number of members.

    python -m benchmarks.gpu.members --out members.json

Each time includes the creation of the networks and their evaluation. The run fails if the weights
of member 0 depend on the number of members.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser
from mnist_accel.populations import train_population
from mnist_accel.populations.member import Weights
from mnist_accel.util.files import write_atomically

MEMBERS = (1, 8, 64, 132, 512)
NETWORKS = ("backprop", "cnn", "two-layer", "lenet")  # persistent kernels, then graph steps
ITERATIONS = 1000


@dataclass(frozen=True)
class Measurement:
    """A population and its duration.

    Attributes:
        network: name of the recipe.
        members: number of members.
        seconds: duration of the population.
    """

    network: str
    members: int
    seconds: float

    @property
    def rate(self) -> float:
        """Trainings per second."""
        return self.members / self.seconds


def measure(
    backend: str,
    *,
    networks: Sequence[str] = NETWORKS,
    members: Sequence[int] = MEMBERS,
    iterations: int = ITERATIONS,
) -> list[Measurement]:
    """Train populations of each network, after one that compiles the kernels.

    Raises:
        AssertionError: the weights of member 0 depend on the number of members.
    """
    measurements = []
    for network in networks:
        expected: Weights = {}
        for count in (members[0], *members):
            started = time.perf_counter()
            population = train_population(
                network, seeds=count, data="digits", backend=backend, epochs=None,
                iterations=iterations, limit_test=100,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            weights = population[0].state_dict()
            if expected:
                measurements.append(Measurement(network, count, seconds))
            expected = expected or weights
            for name, weight in expected.items():
                assert np.array_equal(weights[name], weight), f"{network}: {count} members differ"
    return measurements


def table(measurements: Sequence[Measurement]) -> str:
    """Return the measurements as a Markdown table."""
    alone = {one.network: one.rate for one in reversed(measurements)}  # the smallest population
    lines = [
        "| network | members | trainings per second | ratio to the first |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one.network} | {one.members} | {one.rate:.3g} | {one.rate / alone[one.network]:.3g} |"
        for one in measurements
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the first GPU, print a table and write a JSON file; return the exit code."""
    parser = Parser(prog="python -m benchmarks.gpu.members", description=__doc__, epilog="")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file")
    return guarded(lambda: _run(parser.parse_args(argv)), prog=parser.prog)


def _run(args: argparse.Namespace) -> int:
    measurements = measure("cupy")
    text = json.dumps([asdict(one) for one in measurements], indent=2)
    write_atomically(args.out, f"{text}\n".encode())
    print(table(measurements))
    return 0


if __name__ == "__main__":
    sys.exit(main())

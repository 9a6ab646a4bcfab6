"""Measures the steps in alternation."""

from collections.abc import Mapping
from statistics import median
from time import perf_counter

import numpy as np
from problem import BATCH, Train, initial_parameters, load
from threadpoolctl import threadpool_limits

# A step is measured with about this many seconds of work per round.
SECONDS = 0.06


def measure(trains: Mapping[str, Train], *, rounds: int = 7) -> dict[str, list[float]]:
    """Return the seconds per image of each step in each round, on one thread.

    A round measures every step once, one after another. So a change of the machine's speed between
    two rounds changes all times of a round, but not their ratios.
    """
    with threadpool_limits(1):
        data = {name: load(BATCH * _steps(train)) for name, train in trains.items()}
        seconds: dict[str, list[float]] = {name: [] for name in trains}
        for _ in range(rounds):
            for name, train in trains.items():
                seconds[name].append(_time(train, *data[name]) / len(data[name][0]))
    return seconds


def _steps(train: Train) -> int:
    """Return the number of training steps that take about `SECONDS`."""
    train(*load(BATCH), initial_parameters())  # compiles what needs to be compiled
    steps = 1
    while (seconds := _time(train, *load(BATCH * steps))) < SECONDS / 4:
        steps *= 2
    return max(1, round(steps * SECONDS / seconds))


def _time(train: Train, images, labels) -> float:
    parameters = initial_parameters()
    start = perf_counter()
    train(images, labels, parameters)
    return perf_counter() - start


def speedup(seconds: Mapping[str, list[float]], name: str, *, over: str) -> float:
    """Return how many times as fast a step is as another one: the median over the rounds."""
    return median(np.divide(seconds[over], seconds[name]))

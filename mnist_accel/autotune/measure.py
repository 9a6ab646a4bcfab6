"""A measured trial: which backend, with how many threads, trains a network fastest here.

Copies of the network train on a part of the real data, in short turns. What else happens on a
machine only ever slows them down, so of each the fastest stretch is what counts.
"""

import math
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

if sys.platform != "win32":
    import resource

from mnist_accel.training.data import TrainingData
from mnist_accel.training.reports import Callback, StepsReport
from mnist_accel.training.trainer import Progress, Trainer

# Of all turns together; making ready before them, which may compile, is not counted.
SECONDS = 0.4
# What part of the best pace one must have reached after a turn to get another. The first turn may
# have met with a disturbance, so it rules out only who is far behind.
STAYS = (1 / 4, 1 / 2, 3 / 4, 1.0)
# Of each turn the fastest stretch of about so many seconds counts: one that nothing disturbed.
STRETCH = 0.004
# Enough not to fit the nearest caches, as the whole set does not.
EXAMPLES = 8192
SMALLEST_BATCH = 16
# A machine is busy if a thread has to leave its core to another more often than this, in a second
# that it has the core. Three busy programs on two cores made it 90 to 230 times.
SWITCHES_PER_S = 60

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Candidate:
    """A way to compute.

    Attributes:
        backend: its name.
        threads: how many it may use; None where that is not for us to choose.
    """

    backend: str
    threads: int | None


def race(
    turn: Callable[[T, float], float],
    candidates: Sequence[T],
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[T, float]:
    """Return the pace of each candidate in its best turn.

    Args:
        turn: lets a candidate work for about so many seconds, and returns its pace.
        candidates: those to compare.
        seconds: that all turns of all candidates may take together. Each gets its first turn.
        clock: returns seconds.
    """
    share = seconds / (len(STAYS) * len(candidates))
    end = clock() + seconds
    paces: dict[T, float] = {}
    running = list(candidates)
    for stays in STAYS:
        for candidate in running:
            if candidate in paces and clock() + share > end:
                return paces
            paces[candidate] = max(turn(candidate, share), paces.get(candidate, 0.0))
        best = max(paces.values())
        running = [candidate for candidate in running if paces[candidate] >= stays * best]
        if len(running) == 1:
            break
    return paces


@contextmanager
def watch_disturbance() -> Iterator[Callable[[], bool]]:
    """Yield a function that says, after the block, whether others wanted the same cores."""
    switches, started = _involuntary_switches(), time.process_time()
    disturbed = False
    yield lambda: disturbed
    seconds = time.process_time() - started
    disturbed = _involuntary_switches() - switches > SWITCHES_PER_S * seconds


def _involuntary_switches() -> int:
    """Return how often a thread of this process has had to leave its core to another.

    Windows does not count that, so there no machine is held to be busy.
    """
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Copy:
    """A copy of a network that trains for the trial alone.

    Args:
        trainer: of the copy. Nothing that it holds is anybody else's.
        data: as the trainer has prepared them.
    """

    def __init__(self, trainer: Trainer, data: TrainingData) -> None:
        self._trainer = trainer
        self._data = data
        self._wanted = min(trainer.batch_size, data.examples)
        # By number of threads: the size of a batch, and the least that a step of it took.
        self._steps: dict[int | None, tuple[int, float]] = {}
        self._train(1, batch_size=min(self._wanted, SMALLEST_BATCH))  # what is compiled, is now

    def turn(self, threads: int | None, seconds: float) -> float:
        """Train for about so many seconds, and return the images per second of the best stretch.

        A batch with which a step would take a good part of this time is cut: where one step takes
        so long, its pace hardly depends on the number of images.

        Args:
            threads: how many may be used; None for the backend's own rule.
            seconds: to train.
        """
        self._trainer.model.backend.threads = threads
        size, step = self._steps.get(threads, (min(self._wanted, SMALLEST_BATCH), math.inf))
        best = 0.0
        while seconds > 0:
            count = max(1, int(min(STRETCH, seconds) / step))
            images, took = self._train(count, batch_size=size)
            seconds -= took
            best = max(best, images / took)
            step = min(step, took / count)
            self._steps[threads] = size, step
            if size < self._wanted and step < STRETCH:
                size, step = min(2 * size, self._wanted), math.inf
        return best

    def _train(self, steps: int, *, batch_size: int) -> tuple[int, float]:
        """Do some steps; return how many images they took, and how many seconds."""
        trainer = self._trainer
        trainer.batch_size = batch_size
        trainer.progress = Progress()  # an epoch under way would have had batches of another size
        pace = _Pace()
        trainer.fit(self._data, iterations=steps, callbacks=[pace])
        return pace.images, max(pace.seconds, 1e-9)


class _Pace(Callback):
    """Adds up images, and the time of their steps."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Count a chunk."""
        self.images += int(report.images.sum())
        self.seconds += report.seconds

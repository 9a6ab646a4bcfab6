"""Measure how fast a network trains with each backend and number of threads.

For each backend, a separate network trains on a part of the real data, in short turns. Other
programs on the machine can only slow a measurement down, so the fastest time window of each
candidate counts.
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
from mnist_accel.training.progress import Progress, StepsReport
from mnist_accel.training.trainer import Callback, Trainer

# Seconds for all measurements together. Preparation, which may compile kernels, is not included.
BUDGET_S = 0.4
# After round i, candidates below this fraction of the best throughput are dropped. Other programs
# may have disturbed the first measurement, so the first round drops only very slow candidates.
MIN_FRACTIONS = (1 / 4, 1 / 2, 3 / 4, 1.0)
# Length of the time windows of a measurement, of which the fastest counts.
WINDOW_S = 0.004
# Training images of a measurement: like the whole data set, they exceed the fastest caches.
NUM_EXAMPLES = 8192
MIN_BATCH_SIZE = 16
# The machine counts as busy above this number of involuntary context switches per second of CPU
# time. With three busy programs on two cores, 90 to 230 were measured.
MAX_SWITCHES_PER_S = 60

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Candidate:
    """A combination to measure.

    Attributes:
        backend: name of the backend.
        threads: number of CPU threads; None if the backend does not take a number of threads.
    """

    backend: str
    threads: int | None


def measure_candidates(
    measure: Callable[[T, float], float],
    candidates: Sequence[T],
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[T, float]:
    """Return the best measured throughput of each candidate.

    Candidates are measured in rounds, and slow ones are dropped after each round.

    Args:
        measure: runs a candidate for about the given number of seconds and returns its throughput.
        candidates: at least one candidate.
        budget_s: seconds for all measurements together. The first round always finishes.
        clock: returns the time in seconds.
    """
    seconds = budget_s / (len(MIN_FRACTIONS) * len(candidates))
    end = clock() + budget_s
    throughput: dict[T, float] = {}
    remaining = list(candidates)
    for min_fraction in MIN_FRACTIONS:
        for candidate in remaining:
            if candidate in throughput and clock() + seconds > end:
                return throughput
            measured = measure(candidate, seconds)
            throughput[candidate] = max(measured, throughput.get(candidate, 0.0))
        best = max(throughput.values())
        remaining = [c for c in remaining if throughput[c] >= min_fraction * best]
        if len(remaining) == 1:
            break
    return throughput


@contextmanager
def detect_busy_machine() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns, after the block, whether other programs used the cores."""
    switches, started = _involuntary_switches(), time.process_time()
    busy = False
    yield lambda: busy
    seconds = time.process_time() - started
    busy = _involuntary_switches() - switches > MAX_SWITCHES_PER_S * seconds


def _involuntary_switches() -> int:
    """Return how often the system took the CPU from a thread of this process; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class ThroughputProbe:
    """Measures the training throughput of a network that is used for nothing else."""

    def __init__(self, trainer: Trainer, data: TrainingData) -> None:
        self._trainer = trainer
        self._data = data
        self._max_batch_size = min(trainer.batch_size, data.examples)
        # Batch size and shortest time per step in seconds, by number of threads.
        self._steps: dict[int | None, tuple[int, float]] = {}
        # The first step triggers compilation.
        self._train(1, batch_size=min(self._max_batch_size, MIN_BATCH_SIZE))

    def measure(self, threads: int | None, seconds: float) -> float:
        """Train for about `seconds` and return the images per second of the fastest window.

        The batch size grows from `MIN_BATCH_SIZE` up to that of the trainer, as long as a step is
        shorter than a window. The throughput of longer steps hardly depends on the batch size.
        """
        self._trainer.model.backend.threads = threads
        first_batch_size = min(self._max_batch_size, MIN_BATCH_SIZE)
        batch_size, step_s = self._steps.get(threads, (first_batch_size, math.inf))
        best = 0.0
        while seconds > 0:
            steps = max(1, int(min(WINDOW_S, seconds) / step_s))
            images, elapsed_s = self._train(steps, batch_size=batch_size)
            seconds -= elapsed_s
            best = max(best, images / elapsed_s)
            step_s = min(step_s, elapsed_s / steps)
            self._steps[threads] = batch_size, step_s
            if batch_size < self._max_batch_size and step_s < WINDOW_S:
                batch_size, step_s = min(2 * batch_size, self._max_batch_size), math.inf
        return best

    def _train(self, steps: int, *, batch_size: int) -> tuple[int, float]:
        """Run some steps; return the number of images and the elapsed seconds."""
        trainer = self._trainer
        trainer.batch_size = batch_size
        trainer.progress = Progress()  # the position in an epoch is invalid for other batch sizes
        totals = _Totals()
        trainer.fit(self._data, iterations=steps, callbacks=[totals])
        return totals.images, max(totals.seconds, 1e-9)


class _Totals(Callback):
    """Adds up the images and the seconds of all steps."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Add a chunk."""
        self.images += int(report.images.sum())
        self.seconds += report.seconds

"""Measure how fast a network trains with each backend and number of threads.

For each backend, a separate network trains on a part of the real data. The candidates take short
turns, one after another. Other programs on the machine can only slow a turn down, so the fastest
time window of each candidate counts, and a candidate is dropped only after several slow turns.
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

from mnist_accel.training.callback import Callback
from mnist_accel.training.data import TrainingData
from mnist_accel.training.progress import Progress, StepsReport
from mnist_accel.training.trainer import Trainer

# Seconds for all measurements together, without preparation, which may compile, and pauses.
BUDGET_S = 0.4
# Number of rounds, in each of which every remaining candidate takes a turn.
ROUNDS = 5
# Number of turns before a candidate may be dropped: other programs may disturb one or two of them.
MIN_TURNS = 3
# Then candidates below this fraction of the best throughput are dropped.
MIN_FRACTION = 0.7
# On a busy machine a turn takes longer than planned. The first `MIN_TURNS` rounds may take this
# multiple of the budget.
MAX_OVERRUN = 5
# Length of the time windows of a turn, of which the fastest counts. A busy machine interrupts a
# process every few milliseconds, so only short windows pass undisturbed.
WINDOW_S = 0.002
# A turn has at least this number of windows, even if an interruption takes the whole time.
MIN_WINDOWS = 3
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
    before_turn: Callable[[T], None] = lambda candidate: None,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[T, list[float]]:
    """Return the throughput of each candidate in each of its turns.

    Candidates take turns in rounds. Slow ones are dropped after `MIN_TURNS` rounds.

    Args:
        measure: runs a candidate for about the given number of seconds and returns its throughput.
        candidates: at least one candidate.
        before_turn: is called with the candidate before each turn; its time does not count.
        budget_s: seconds for all measurements together, if no other program disturbs them. The
            first round always finishes.
        clock: returns the time in seconds.
    """
    seconds = budget_s / (ROUNDS * len(candidates))
    started = clock()
    turns: dict[T, list[float]] = {candidate: [] for candidate in candidates}
    remaining = list(candidates)
    for number in range(1, ROUNDS + 1):
        limit_s = budget_s * (MAX_OVERRUN if number <= MIN_TURNS else 1)
        for candidate in remaining:
            if turns[candidate] and clock() + seconds > started + limit_s:
                return turns
            turn_due = clock()
            before_turn(candidate)
            started += clock() - turn_due
            turns[candidate].append(measure(candidate, seconds))
        if number >= MIN_TURNS:
            limit = MIN_FRACTION * max(map(max, turns.values()))
            remaining = [candidate for candidate in remaining if max(turns[candidate]) >= limit]
            if len(remaining) == 1:
                break
    return turns


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
        """Train for about `seconds` and return the images per second of the fastest window."""
        self._trainer.model.backend.threads = threads
        if threads not in self._steps:
            self._steps[threads] = self._find_batch_size()
        batch_size, step_s = self._steps[threads]
        best, windows = 0.0, 0
        while seconds > 0 or (windows < MIN_WINDOWS and step_s < WINDOW_S):
            images, elapsed_s = self._train(max(1, int(WINDOW_S / step_s)), batch_size=batch_size)
            windows += 1
            seconds -= elapsed_s
            best = max(best, images / elapsed_s)
            step_s = min(step_s, elapsed_s * batch_size / images)
        self._steps[threads] = batch_size, step_s
        return best

    def _find_batch_size(self) -> tuple[int, float]:
        """Return the batch size to measure with and the shortest time of such a step in seconds.

        The batch size grows from `MIN_BATCH_SIZE` up to that of the trainer, as long as a step is
        shorter than a window. The throughput of longer steps hardly depends on the batch size. A
        step counts as long only if it is long several times.
        """
        batch_size = min(self._max_batch_size, MIN_BATCH_SIZE)
        while True:
            step_s = math.inf
            for _ in range(MIN_TURNS):
                step_s = min(step_s, self._train(1, batch_size=batch_size)[1])
                if step_s < WINDOW_S:
                    break
            if batch_size == self._max_batch_size or step_s >= WINDOW_S:
                return batch_size, step_s
            batch_size = min(2 * batch_size, self._max_batch_size)

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

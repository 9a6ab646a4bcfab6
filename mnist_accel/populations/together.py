"""Members that train at the same time, in the same launches of a GPU."""

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias

from backends import CompiledEpoch, Steps
from mnist_accel.errors import DivergedError
from mnist_accel.populations.member import MemberResult, MemberTraining
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.training.chunks import MemberChunk, run_together
from mnist_accel.training.trainer import Outcome

# Outcome of a chunk, or the error of a training that diverged; None at the beginning.
_Outcome: TypeAlias = Outcome | DivergedError | None

# Settings that may differ between members that train at the same time: they change neither the
# program nor the data set. If images are held out, the seed chooses them.
_FREE = {
    "seed", "lr", "schedule", "epochs", "iterations", "limit_test", "log_every",
    "validation_every", "target_accuracy", "patience",
}  # fmt: skip


def program_of(settings: TrainSettings) -> tuple[object, ...]:
    """Return what members that train at the same time have in common."""
    common = tuple(value for name, value in vars(settings).items() if name not in _FREE)
    return (*common, settings.seed if settings.validation_split else None)


def train_together(
    trainings: Iterator[MemberTraining], epoch: CompiledEpoch, loaded: Any, *, at_once: int
) -> Iterator[tuple[MemberTraining, MemberResult | None]]:
    """Train members at the same time, and yield each with its result when it ends.

    The result of a member that was interrupted is None.

    Args:
        trainings: the members; the next one begins when another one has ended.
        epoch: their compiled steps.
        loaded: their data set, as `TrainingData.for_epoch` returns it for `epoch`.
        at_once: number of members that train at the same time.
    """
    running: list[_Running] = []
    while True:
        begun = [_Running(training) for training in islice(trainings, at_once - len(running))]
        outcomes = _run(running, epoch, loaded) if running else []
        waiting = deque(zip([*running, *begun], [*outcomes, *[None] * len(begun)], strict=True))
        if not waiting:
            return
        # A member that has ended is kept nowhere: its predictions occupy memory of the device.
        running = []
        del begun
        while waiting:
            member, outcome = waiting.popleft()
            if member.advance(outcome):
                yield member.training, member.result
            else:
                running.append(member)


class _Running:
    """A member that trains.

    Attributes:
        training: the training.
        steps: its next chunk; None before its beginning and after its end.
        result: its result after its end; None if it was interrupted.
    """

    def __init__(self, training: MemberTraining) -> None:
        self.training = training
        self.steps: Steps | None = None
        self.result: MemberResult | None = None
        self._chunks: Any = training.chunks()

    def advance(self, outcome: _Outcome) -> bool:
        """Continue after a chunk, up to the next one; return whether the training has ended."""
        try:
            if isinstance(outcome, DivergedError):
                self.steps = self._chunks.throw(outcome)
            else:
                self.steps = self._chunks.send(outcome)
        except StopIteration as end:
            self.steps, self.result = None, end.value
        return self.steps is None


def _run(running: list[_Running], epoch: CompiledEpoch, loaded: Any) -> list[_Outcome]:
    """Run the next chunk of each member.

    The duration is shared out by the numbers of steps, so that all members measure the same time
    per step, and their next chunks have the same length.
    """
    chunks = [
        MemberChunk(member.training.trainer.chunks, member.training.data, member.steps)
        for member in running
        if member.steps is not None
    ]
    started = time.perf_counter()
    outcomes = run_together(epoch, loaded, chunks)
    longest = max(len(chunk.steps.bounds) for chunk in chunks)
    per_step = (time.perf_counter() - started) / longest
    return [
        outcome
        if isinstance(outcome, DivergedError)
        else (outcome, per_step * len(chunk.steps.bounds))
        for chunk, outcome in zip(chunks, outcomes, strict=True)
    ]

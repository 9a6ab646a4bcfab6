"""The training of one member of a population, as `train` with the member's settings does it."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from backends import Backend, ChunkResults, Steps, get_backend
from mnist_accel.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.errors import DataError, DivergedError, file_errors
from mnist_accel.recipes.settings import MAX_JSON_BYTES, TrainSettings
from mnist_accel.runs.setup import (
    data_options,
    make_sampler,
    make_trainer,
    split_run_data,
    total_steps,
)
from mnist_accel.runs.stop_rules import StopRules
from mnist_accel.training.callback import Callback
from mnist_accel.training.data import TrainingData
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.progress import EpochReport, StepsReport
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.files import write_atomically
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.json_text import to_json
from mnist_accel.util.schema import Amount, Count, Finite, Fraction, decode_json

# A member's curve is the mean loss in at most this number of equal parts of its training.
CURVE_POINTS = 100
_INTERRUPTED = "interrupted"  # the reason why a training ends that another one can continue

Weights: TypeAlias = dict[str, NDArray[Any]]


@dataclass
class MemberResult:
    """The result of a member.

    Attributes:
        member: number of the member in its population.
        steps: number of completed updates.
        seconds: duration of the training steps.
        train_loss: mean loss over the last epoch; None if the first one was not completed.
        train_accuracy: accuracy over the last epoch, 0…1, or None.
        validation_loss: mean loss on the held-out training images; None if there are none.
        validation_accuracy: accuracy on these images, 0…1, or None.
        test_loss: mean loss on the test set; None if the training failed.
        test_accuracy: accuracy on the test set, 0…1, or None.
        stop_reason: why the training ended early; empty if it did not.
        error: why the training failed; empty if it did not.
        curve: steps, and the mean loss of the part of the training that ends with each of them.
        weights: the parameters by name; None if the training failed.
    """

    member: int
    steps: int = 0
    seconds: float = 0.0
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    stop_reason: str = ""
    error: str = ""
    curve: list[tuple[int, float]] = field(default_factory=list)
    weights: Weights | None = field(default=None, repr=False)


class _State(msgspec.Struct):
    """What a record contains. An interrupted training leaves it in a file.

    Attributes:
        loss_sums: sum of the losses of each part of the curve.
        counts: number of steps of each part of the curve so far.
        evaluations: validation accuracies so far, for the rules that end a training early.
        seconds: see `MemberResult`, also for the attributes below.
    """

    loss_sums: list[Finite]
    counts: list[Count]
    evaluations: list[Fraction]
    seconds: Amount = 0.0
    train_loss: Finite | None = None
    train_accuracy: Fraction | None = None


class _Record(Callback):
    """Collects what the result, and a later continuation, need of the steps and epochs.

    Args:
        last_step: number of the last step of the training.
        on_steps: called with the number of steps of each chunk.
    """

    epochs_at_once = None

    def __init__(self, last_step: int, on_steps: Callable[[int], None]) -> None:
        self._last_step = last_step
        self._on_steps = on_steps
        parts = min(last_step, CURVE_POINTS)
        self.state = _State([0.0] * parts, [0] * parts, [])

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Add the losses of a chunk to the parts of the curve that they belong to."""
        state, parts = self.state, len(self.state.counts)
        steps = np.arange(report.first_step, report.last_step + 1)
        part = np.minimum((steps - 1) * parts // self._last_step, parts - 1)
        for index in np.unique(part):
            losses = report.losses[part == index]
            state.loss_sums[index] += float(losses.sum())
            state.counts[index] += len(losses)
        state.seconds += report.seconds
        self._on_steps(len(steps))

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Keep the results of the last epoch."""
        self.state.train_loss = report.train_loss
        self.state.train_accuracy = report.train_accuracy
        if report.validation_accuracy is not None:
            self.state.evaluations.append(report.validation_accuracy)

    def curve(self) -> list[tuple[int, float]]:
        """Return the last step and the mean loss of each part that has begun."""
        parts = len(self.state.counts)
        ends = [-(-number * self._last_step // parts) for number in range(1, parts + 1)]
        return [
            (end, total / count)
            for end, total, count in zip(ends, self.state.loss_sums, self.state.counts, strict=True)
            if count
        ]


class MemberTraining:
    """The training of a member, which can be stopped, saved and continued.

    Args:
        member: number of the member.
        settings: settings of the member.
        backend: the backend that computes.
        dataset: the data set.
        prepared: its training images, as the trainer of another member prepared them; None to
            prepare them.
        on_steps: called with the number of steps of each chunk.

    Attributes:
        member: number of the member.
        trainer: trains its network.
        images_per_step: images of each step; the last one of an epoch may have fewer.
    """

    def __init__(
        self,
        member: int,
        settings: TrainSettings,
        backend: Backend,
        dataset: Dataset,
        *,
        prepared: TrainingData | None = None,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> None:
        self.member = member
        self._settings = settings
        self._data = split_run_data(dataset, settings)
        self._prepared = prepared
        self.trainer = make_trainer(
            settings, backend, examples=self._data.train_count, form=dataset.form
        )
        self.images_per_step = make_sampler(settings, self._data.train_count).images_per_step
        self._last_step = total_steps(settings, self._data.train_count)
        self._record = _Record(self._last_step, on_steps)
        self._rules = StopRules(
            target_accuracy=settings.target_accuracy, patience=settings.patience, max_seconds=None
        )

    @property
    def steps_left(self) -> int:
        """Number of steps until the last one."""
        return self._last_step - self.trainer.step

    def interrupt(self) -> None:
        """Make `run` end after the current chunk of steps; may be called from any thread."""
        self.trainer.request_stop(_INTERRUPTED)

    def run(self) -> MemberResult | None:
        """Train to the end and evaluate; return the result, or None if interrupted.

        The result of a training that diverged has an error in place of test results and weights.
        """
        try:
            reason = self.trainer.train_to(self._last_step, self.data, **self._options())
        except DivergedError as error:
            return self._result(error=str(error))
        return self._ended(reason)

    def chunks(self) -> Generator[Steps, tuple[ChunkResults, float], MemberResult | None]:
        """Yield the chunks of steps that `run` runs, and return what `run` returns.

        The caller runs each chunk and sends its results and its duration in seconds, or throws the
        error of a training that diverged.
        """
        try:
            reason = yield from self.trainer.chunks_to(
                self._last_step, self.data, **self._options()
            )
        except DivergedError as error:
            return self._result(error=str(error))
        return self._ended(reason)

    @cached_property
    def data(self) -> TrainingData:
        """The training images, for the trainer of this member."""
        if self._prepared is None:
            return self.trainer.prepare(*self._data.train)
        return self.trainer.share(self._prepared)

    def _options(self) -> dict[str, Any]:
        """Return the arguments of `Trainer.train_to`."""
        settings = self._settings
        needs_validation = settings.target_accuracy is not None or settings.patience is not None
        return {
            "validation_data": self._data.validation if needs_validation else None,
            "validation_every": settings.validation_every,
            "callbacks": (self._record, self._rules),
        }

    def _ended(self, stop_reason: str) -> MemberResult | None:
        """Return the result of a training that ended; None if it was interrupted."""
        if stop_reason == _INTERRUPTED:
            if self.trainer.step < self._last_step:
                return None
            stop_reason = ""  # the interrupt came after the last step
        return self._evaluated(self._result(stop_reason=stop_reason))

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which `restore` continues.

        Raises:
            DataError: it cannot be written.
        """
        checkpoint, state = _files(folder, self.member)
        save_checkpoint(checkpoint, self.trainer)
        with file_errors(f"write {state}"):
            write_atomically(state, to_json(msgspec.to_builtins(self._record.state)).encode())

    def restore(self, folder: Path) -> None:
        """Continue from the checkpoint in a folder, if it contains one.

        A process that is killed in `save` leaves files that do not fit; they are ignored.

        Raises:
            DataError: it cannot be read, or does not belong to this member.
        """
        checkpoint, file = _files(folder, self.member)
        if not (checkpoint.exists() and file.exists()):
            return
        with file_errors(f"read {file}"):
            text = read_regular(file, max_bytes=MAX_JSON_BYTES)
        state = decode_json(text, _State, name=str(file), kind="the state of a member")
        trainer = load_checkpoint(checkpoint, backend=self.trainer.model.backend)
        is_same = trainer.model.describe() == self.trainer.model.describe()
        if not is_same or trainer.seed != self._settings.seed:
            raise DataError(
                f"{checkpoint} does not belong to member {self.member}; remove this file to train "
                "the member from its beginning"
            )
        if sum(state.counts) != trainer.step:
            return
        self.trainer, self._record.state = trainer, state
        lines = [{"event": "epoch", "validation_accuracy": one} for one in state.evaluations]
        self._rules.replay(trainer, lines)

    def _result(self, **fields: Any) -> MemberResult:
        state = self._record.state
        return MemberResult(
            member=self.member,
            steps=self.trainer.step,
            seconds=state.seconds,
            train_loss=state.train_loss,
            train_accuracy=state.train_accuracy,
            curve=self._record.curve(),
            **fields,
        )

    def _evaluated(self, result: MemberResult) -> MemberResult:
        """Add the evaluations and the weights to a result."""
        model, data = self.trainer.model, self._data
        test = evaluate(model, *data.test)
        if not math.isfinite(test.loss):  # the weights are finite, but too large
            return self._result(
                error=f"training diverged: the test loss after step {self.trainer.step} is "
                f"{test.loss}; use a lower learning rate"
            )
        result.test_loss, result.test_accuracy = test.loss, test.accuracy
        if self._settings.validation_split:
            validation = evaluate(model, *data.validation)
            result.validation_loss = validation.loss
            result.validation_accuracy = validation.accuracy
        result.weights = model.state_dict()
        return result


def train_member(
    member: int, settings: TrainSettings, backend: str, dataset: Dataset | None
) -> MemberResult:
    """Train a member on one thread, in a process of an executor, and return its result.

    Args:
        member: number of the member.
        settings: settings of the member.
        backend: name of the backend.
        dataset: the data set; None to load the one that the settings name.
    """
    if dataset is None:
        options = tuple(data_options(vars(settings)).items())
        dataset = _load(settings.dataset, settings.data_dir, options)
    result = MemberTraining(member, settings, single_threaded(backend), dataset).run()
    assert result is not None  # nothing interrupts it
    return result


def single_threaded(backend: str, device: int | str | None = None) -> Backend:
    """Return a backend that computes on one CPU thread, if its threads can be set."""
    made = get_backend(backend, device=device)
    if made.max_threads is not None:
        made.take_threads(1)
    return made


@lru_cache(maxsize=1)
def _load(name: str, data_dir: str | None, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return load_dataset(name, data_dir, **dict(options))


def _files(folder: Path, member: int) -> tuple[Path, Path]:
    """Return the checkpoint of a member and the file with the state of its record."""
    return folder / f"{member}.safetensors", folder / f"{member}.json"

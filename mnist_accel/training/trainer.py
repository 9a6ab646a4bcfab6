"""The trainer: runs epochs in chunks of steps, and calls callbacks between chunks."""

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends import (
    Array,
    ChunkResults,
    CompiledEpoch,
    Steps,
    UpdateRule,
    as_boolean,
    as_integer,
    create_optimizer,
    require_type,
    shown,
)
from mnist_accel.data.batches import BatchSampler, Sampling
from mnist_accel.nn.network import Network, Observer
from mnist_accel.nn.schedules import Schedule, create_schedule
from mnist_accel.training.callback import Callback, checked_callbacks, epochs_at_once
from mnist_accel.training.chunks import NOT_WANTED, ChunkRunner
from mnist_accel.training.data import TrainingData
from mnist_accel.training.evaluation import evaluate, mean_loss
from mnist_accel.training.progress import EpochReport, History, Progress, StepsReport

HostArray: TypeAlias = NDArray[Any]
ValidationData: TypeAlias = tuple[HostArray, HostArray]
# Results of a chunk and its duration in seconds.
Outcome: TypeAlias = tuple[ChunkResults, float]
# Yields chunks of steps, takes their outcomes, and returns why the training ended.
Chunks: TypeAlias = Generator[Steps, Outcome, str]
_Counted = TypeVar("_Counted")

# Target duration of a chunk. Losses are copied from the device and callbacks are called between two
# chunks. Longer chunks would delay the progress bar, shorter ones would cost more time for copies.
CHUNK_SECONDS = 0.2

_sampler = lru_cache(typed=True)(BatchSampler)


class _Record(Callback):
    """Adds the results of all steps and epochs to a history."""

    epochs_at_once = None

    def __init__(self, history: History) -> None:
        self._history = history

    def on_steps(self, trainer: "Trainer", report: StepsReport) -> None:
        """Add the losses."""
        self._history.losses.extend(report.losses.tolist())

    def on_epoch(self, trainer: "Trainer", report: EpochReport) -> None:
        """Add the report."""
        self._history.epochs.append(report)


class Trainer:
    """Trains a network. Owns the state of the optimizer and the position in the training.

    Args:
        model: the network; its weights change.
        optimizer: an optimizer, or its name.
        lr: learning rate if `optimizer` is a name; None for the optimizer's default.
        batch_size: images per step.
        seed: seed of the image order and of the dropout masks.
        sampling: "shuffle", "replacement", "full" or "sequential"; see `BatchSampler`.
        schedule: a learning-rate schedule, or its name.
        total_steps: number of steps of the whole training, for schedules that need it. `fit`
            increases it to its own last step if that is larger.
        compiled: if True, many steps run in one call, provided that the backend can compile the
            network. Otherwise steps run eagerly.
        clock: returns the time in seconds.

    Raises:
        ValueError: an argument is unknown or out of range, or `lr` is given with an optimizer that
            is not a name.
    """

    def __init__(
        self,
        model: Network,
        optimizer: UpdateRule | str = "sgd",
        *,
        lr: float | None = None,
        batch_size: int = 64,
        seed: int = 0,
        sampling: Sampling = "shuffle",
        schedule: Schedule | str = "constant",
        total_steps: int | None = None,
        compiled: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        require_type("model", model, Network, "a network, such as one from create_model")
        require_type("optimizer", optimizer, str | UpdateRule, "a name, or one such as Adam()")
        require_type("schedule", schedule, str | Schedule, "a name, or one such as Schedule()")
        if isinstance(optimizer, str):
            optimizer = create_optimizer(optimizer, lr=lr)
        elif lr is not None:
            raise ValueError(f"{optimizer} has its own lr, got lr={lr} as well; remove one of them")
        # Checks the arguments. The number of images is known only when training begins.
        sampler = BatchSampler(examples=1, batch_size=batch_size, sampling=sampling, seed=seed)
        self._model = model
        self._optimizer = optimizer
        self.batch_size = sampler.batch_size
        self.seed = sampler.seed
        self.sampling = sampler.sampling
        self.schedule = create_schedule(schedule) if isinstance(schedule, str) else schedule
        if not callable(clock):
            raise TypeError(f"clock must be a function, got {shown(clock)}")
        self.total_steps = (
            None if total_steps is None else as_integer("total_steps", total_steps, at_least=1)
        )
        self.progress = Progress()
        self._clock = clock
        self._step_seconds = CHUNK_SECONDS  # makes the first chunk one step long
        self._chunks = ChunkRunner(
            model, optimizer, seed=self.seed, compiled=as_boolean("compiled", compiled)
        )
        self._stop_reason = ""

    def __repr__(self) -> str:
        mode = f"eager: {self.not_compiled}" if self.not_compiled else "compiled"
        return (
            f"<Trainer of {self.model.name} on {self.model.backend.name}: {self.optimizer}, "
            f"batch_size={self.batch_size}, step {self.step}; {mode}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle restores the trainer, so that it continues with the same results.

        The clock is not stored. Prepared data sets stay with the original.
        """
        settings = {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "sampling": self.sampling,
            "schedule": self.schedule,
            "total_steps": self.total_steps,
            "compiled": self.not_compiled != NOT_WANTED,
        }
        to_numpy = self.model.backend.to_numpy
        state = {name: to_numpy(array) for name, array in self.optimizer_state.items()}
        return _restore, (type(self), self.model, self.optimizer, settings, self.progress, state)

    @property
    def model(self) -> Network:
        """The network."""
        return self._model

    @property
    def optimizer(self) -> UpdateRule:
        """The optimizer."""
        return self._optimizer

    @property
    def step(self) -> int:
        """Number of completed updates."""
        return self.progress.step

    @property
    def stop_reason(self) -> str:
        """The reason of a pending request to stop; empty if there is none."""
        return self._stop_reason

    @property
    def optimizer_state(self) -> dict[str, Array]:
        """The arrays of the optimizer, by name."""
        return self._chunks.state

    @property
    def compiled(self) -> CompiledEpoch | None:
        """The compiled steps; None if they run eagerly."""
        return self._chunks.compiled

    @property
    def chunks(self) -> ChunkRunner:
        """Runs the chunks that `chunks_to` yields."""
        return self._chunks

    @property
    def not_compiled(self) -> str:
        """The reason why steps run eagerly; empty if they are compiled."""
        return self._chunks.not_compiled

    def sampler(self, examples: int) -> BatchSampler:
        """Return the batches of a data set with this number of examples."""
        return _sampler(examples, self.batch_size, self.sampling, self.seed)

    def train_batch(
        self,
        images: HostArray,
        labels: HostArray,
        *,
        sample_weight: HostArray | None = None,
        observe: Observer | None = None,
    ) -> float:
        """Make one update on exactly this batch and return its mean loss before the update.

        Args:
            images: host array in any form `load_mnist` returns.
            labels: integers (N,) or one-hot rows.
            sample_weight: factor of the loss of each example (N,); None for 1.
            observe: called with the name and the value of each tensor of the update.

        Raises:
            ValueError, TypeError: as `Network.as_examples`.
            DivergedError: the loss, or a weight after the update, is NaN or infinite. The weights
                from before the update are restored.
        """
        data = TrainingData(self.model, images, labels, sample_weight)
        whole = _sampler(data.examples, data.examples, "full", self.seed)
        steps = whole.steps(0, 0, rates=self._next_rates(1), before=self.step)

        def count(outcome: Outcome) -> float:
            self.progress.step += 1
            return float(outcome[0].losses[0])

        # Eager, because loading a batch into compiled code takes longer than a step.
        return self._run_chunk(data, steps, count, eagerly=True, observe=observe)

    def prepare(
        self,
        images: HostArray,
        labels: HostArray,
        sample_weight: HostArray | None = None,
        *,
        check: bool = True,
    ) -> TrainingData:
        """Return a data set that several calls of `fit` can use, converted and checked once.

        If the network has a compiled form, this also compiles the steps, which takes 3 to 10
        seconds the first time in an installation.

        Args:
            images: host array in any form `load_mnist` returns.
            labels: integers (N,) or one-hot rows.
            sample_weight: factor of the loss of each example (N,), at least 0; None for 1.
            check: whether to check the values of the images; False if they are known to be allowed.

        Raises:
            ValueError, TypeError: as `Network.as_examples`, or the weights are invalid.
        """
        data = TrainingData(self.model, images, labels, sample_weight, check=check)
        if self.compiled is not None:
            with self.model.backend.computation(frozenset()):
                data.for_epoch(self.compiled)
        return data

    def share(self, data: TrainingData) -> TrainingData:
        """Return a data set that another trainer prepared, for this trainer, without preparing it.

        Both trainers may train at the same time.

        Args:
            data: a data set of a trainer whose network has the same dtype and the same kind of
                first layer, on a backend of the same name.
        """
        with self.model.backend.computation(frozenset()):
            return data.share(self.model, self.compiled)

    def fit(
        self,
        images: HostArray | TrainingData,
        labels: HostArray | None = None,
        *,
        sample_weight: HostArray | None = None,
        epochs: int | None = None,
        iterations: int | None = None,
        validation_data: ValidationData | None = None,
        validation_every: int = 1,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
    ) -> History:
        """Train for a number of epochs or steps, and return the losses and epochs of this call.

        If an earlier call left an epoch incomplete, this call completes it, as one epoch.

        Args:
            images: host array in any form `load_mnist` returns, features, or a data set from
                `prepare`.
            labels: integers (N,) or one-hot rows, with the loss "squared_error" numbers
                (N, outputs); None with a data set from `prepare`.
            sample_weight: factor of the loss of each example (N,), at least 0; None for 1. The loss
                of a batch is the sum of these products divided by the number of its examples.
            epochs: number of epochs; give either `epochs` or `iterations`.
            iterations: number of steps.
            validation_data: images and labels to evaluate at the end of epochs.
            validation_every: epochs between two evaluations; the last epoch is always evaluated.
            callbacks: called after every chunk of steps and after every epoch.
            verbose: whether to show what the command `train` shows: that kernels are compiled, a
                progress bar (log lines if stderr is not a terminal), and lines about epochs.

        Raises:
            ValueError: an argument is out of range, or shapes, pixels or labels are wrong.
            TypeError: images or labels have a wrong dtype, labels are missing, or labels are given
                with a prepared data set.
            DivergedError: a loss or a weight became NaN or infinite. Weights, optimizer state and
                position are those at the start of the chunk in which this happened.
        """
        if as_boolean("verbose", verbose):
            # The import of rich takes a twentieth of a second.
            from mnist_accel.console.activity import preparation
            from mnist_accel.training.show_progress import train_shown

            train: Callable[..., str] = partial(train_shown, self)
            with preparation(sys.stderr):
                data = self._as_data(images, labels, sample_weight)
                if validation_data is not None:
                    self.model.prepare()
        else:
            train = self.train_to
            data = self._as_data(images, labels, sample_weight)
        target = self._target_step(self._sampler(data), epochs=epochs, iterations=iterations)
        history = History()
        history.stop_reason = train(
            target,
            data,
            validation_data=validation_data,
            validation_every=validation_every,
            callbacks=(_Record(history), *checked_callbacks(callbacks)),
        )
        return history

    def train_to(
        self,
        last_step: int,
        data: TrainingData,
        *,
        validation_data: ValidationData | None = None,
        validation_every: int = 1,
        callbacks: Sequence[Callback] = (),
    ) -> str:
        """Train up to a step, and return why the training ended early, or an empty string.

        Unlike `fit`, this keeps no losses, so its memory does not grow with the number of steps. An
        epoch is reported even if none of its steps is left to train: a training that continues from
        a checkpoint makes the report that its checkpoint lacks.

        Args:
            last_step: number of the last step, counted from 1 over the whole training; at least
                the number of completed steps.
            data: the data set.
            validation_data: see `fit`.
            validation_every: see `fit`.
            callbacks: see `fit`. If one raises an error at the end of an epoch, the epoch counts
                as not yet reported.

        Raises:
            ValueError, TypeError, DivergedError: as `fit`.
        """
        chunks = self.chunks_to(
            last_step,
            data,
            validation_data=validation_data,
            validation_every=validation_every,
            callbacks=callbacks,
        )
        with closing(chunks):
            try:
                steps = next(chunks)
                while True:
                    steps = self._run_chunk(
                        data, steps, chunks.send, should_stop=lambda: bool(self._stop_reason)
                    )
            except StopIteration as end:
                return str(end.value)

    def _run_chunk(
        self,
        data: TrainingData,
        steps: Steps,
        count: Callable[[Outcome], _Counted],
        **options: Any,
    ) -> _Counted:
        """Run a chunk and count its steps, or after an error, such as Ctrl-C, do neither.

        Args:
            data: the data set.
            steps: the chunk.
            count: adds the steps to `progress`; its result is returned.
            options: arguments of `ChunkRunner.run`.
        """
        try:
            started = self._clock()
            results = self._chunks.run(data, steps, **options)
            return count((results, self._clock() - started))
        except BaseException:
            self._chunks.undo(self.step)
            raise

    def chunks_to(
        self,
        last_step: int,
        data: TrainingData,
        *,
        validation_data: ValidationData | None = None,
        validation_every: int = 1,
        callbacks: Sequence[Callback] = (),
    ) -> Chunks:
        """Yield the chunks of steps that `train_to` runs, and return why the training ended early.

        The caller runs each chunk, and sends its results and its duration in seconds. The arguments
        are those of `train_to`.
        """
        sampler = self._sampler(data)
        if last_step < self.step:
            raise ValueError(f"last_step is {last_step}, but {self.step} steps are completed")
        validation_every = as_integer("validation_every", validation_every, at_least=1)
        if validation_data is not None:  # checked now rather than at the end of the first epoch
            validation_data = self.model.as_examples(*_pair(validation_data))
        self.total_steps = max(self.total_steps or 0, last_step)
        interval = None if validation_data is None else validation_every
        try:
            while True:
                yield from self._chunks_of_epochs(sampler, last_step, callbacks, interval)
                progress = self.progress
                is_complete = progress.epoch_step == sampler.steps_per_epoch
                if is_complete or (self.step == last_step and progress.epoch_step):
                    is_due = self.step == last_step or (progress.epoch + 1) % validation_every == 0
                    report = self._epoch_report(validation_data if is_due else None)
                    self._end_epoch(report, callbacks, is_complete=is_complete)
                if self.step == last_step or self._stop_reason:
                    return self._stop_reason
        finally:
            # It is not cleared at the start, because a request before the call, such as Ctrl-C,
            # must have an effect.
            self._stop_reason = ""

    def request_stop(self, reason: str) -> None:
        """Make `fit` end after the current eager step or compiled chunk.

        If no training is running, the next call of `fit` or `train_to` ends before its first step.
        May be called from a signal handler.

        Args:
            reason: becomes `History.stop_reason`. Of several requests, the first one counts.
        """
        self._stop_reason = self._stop_reason or reason

    def learning_rate(self) -> float:
        """Return the learning rate of the next step.

        Raises:
            ValueError: the schedule needs `total_steps`, which is not known.
        """
        return float(self._next_rates(1)[0])

    def _chunks_of_epochs(
        self,
        sampler: BatchSampler,
        target: int,
        callbacks: Sequence[Callback],
        validation_every: int | None,
    ) -> Generator[Steps, Outcome, None]:
        """Yield chunks until one ends with an epoch, at step `target`, or after a request to stop.

        The epochs before the last one of a chunk are reported here.

        Args:
            sampler: its batches.
            target: number of the last step.
            callbacks: the callbacks.
            validation_every: epochs between two evaluations; None if there are none.
        """
        length = sampler.steps_per_epoch
        while True:
            step, epoch, first = self.progress.step, self.progress.epoch, self.progress.epoch_step
            if first == length or step == target or self._stop_reason:
                return
            epochs = epochs_at_once(callbacks)
            if validation_every is not None:
                epochs = min(epochs, validation_every - epoch % validation_every)
            fitting = max(1, int(CHUNK_SECONDS / self._step_seconds))
            until_callbacks = [c.every - step % c.every for c in callbacks if c.every]
            count = min(fitting, epochs * length - first, target - step, *until_callbacks)
            rates = self._next_rates(int(count))
            steps = sampler.steps(epoch, first, rates=rates, before=step)
            report = self._report(steps, *(yield steps))
            ended = self._add_steps(report, sampler)
            for callback in callbacks:
                callback.on_steps(self, report)
            for epoch_report in ended:
                for callback in callbacks:
                    callback.on_epoch(self, epoch_report)

    def _add_steps(self, report: StepsReport, sampler: BatchSampler) -> list[EpochReport]:
        """Add a chunk to the epochs; return the results of those that ended before its end."""
        # The assignment is one operation, so that Ctrl-C cannot leave a part of the chunk out.
        self.progress, ended = self.progress.after(report, sampler.steps_per_epoch)
        return [self._without_classes(epoch_report) for epoch_report in ended]

    def _end_epoch(
        self, report: EpochReport, callbacks: Sequence[Callback], *, is_complete: bool
    ) -> None:
        """Call the callbacks at the end of an epoch. A complete epoch is left before that."""
        before = self.progress
        if is_complete:
            self.progress = before.next_epoch()
        try:
            for callback in callbacks:
                callback.on_epoch(self, report)
        except BaseException:  # the report may be lost; a later call makes it again
            self.progress = before
            raise

    def _report(self, steps: Steps, results: ChunkResults, seconds: float) -> StepsReport:
        """Return the report of the steps of a chunk that were run."""
        losses, correct, _ = results
        self._step_seconds = max(1e-9, seconds / len(losses))
        images = steps.images[: len(losses)]
        return StepsReport(steps.before + 1, losses, correct, images, seconds)

    def _next_rates(self, count: int) -> NDArray[np.float64]:
        """Return the learning rates of the next steps (count,)."""
        if self.schedule.needs_total and self.total_steps is None:
            raise ValueError(
                f"{self.schedule} needs the number of steps of the training; pass total_steps"
            )
        if type(self.schedule) is Schedule:
            rates = np.empty(count)
            rates.fill(self.optimizer.lr)
            return rates
        factor, total = self.schedule.factor, self.total_steps
        factors = [factor(step, total) for step in range(self.step, self.step + count)]
        return self.optimizer.lr * np.array(factors)

    def _sampler(self, data: TrainingData) -> BatchSampler:
        """Return the batches of a data set, which must be able to continue the epoch."""
        sampler = self.sampler(data.examples)
        if self.progress.epoch_step > sampler.steps_per_epoch:
            raise ValueError(
                f"the epoch in progress has completed {self.progress.epoch_step} steps, but an "
                f"epoch of {data.examples} images has only {sampler.steps_per_epoch}; continue "
                "with the images that the epoch began with, or start over with a new Trainer"
            )
        return sampler

    def _target_step(
        self, sampler: BatchSampler, *, epochs: int | None, iterations: int | None
    ) -> int:
        """Return the step at which a call of `fit` ends."""
        if epochs is not None and iterations is None:
            epochs = as_integer("epochs", epochs, at_least=1)
            return self.step - self.progress.epoch_step + epochs * sampler.steps_per_epoch
        if iterations is not None and epochs is None:
            return self.step + as_integer("iterations", iterations, at_least=1)
        raise ValueError(f"give either epochs or iterations, got {epochs=} and {iterations=}")

    def _as_data(
        self,
        images: HostArray | TrainingData,
        labels: HostArray | None,
        sample_weight: HostArray | None,
    ) -> TrainingData:
        """Return the first arguments of `fit` as a data set."""
        if isinstance(images, TrainingData):
            if labels is not None:
                raise TypeError("a prepared data set contains its labels; do not pass labels")
            if sample_weight is not None:
                raise TypeError("pass sample_weight to prepare, together with the labels")
            if images.model is not self.model:
                raise ValueError(
                    "the data set was prepared for another network; call prepare of this trainer"
                )
            return images
        if labels is None:
            raise TypeError("labels are missing; call fit(images, labels, …)")
        return self.prepare(images, labels, sample_weight)

    def _without_classes(self, report: EpochReport) -> EpochReport:
        """Return a report, without accuracy if the targets are numbers."""
        return report if self.model.loss.has_classes else replace(report, train_accuracy=None)

    def _epoch_report(self, validation_data: ValidationData | None) -> EpochReport:
        """Return the results of the epoch so far; with validation data, evaluate on them."""
        report = self._without_classes(self.progress.epoch_report())
        if validation_data is None:
            return report
        if not self.model.loss.has_classes:
            return replace(report, validation_loss=mean_loss(self.model, *validation_data))
        evaluation = evaluate(self.model, *validation_data)
        return replace(
            report,
            validation_loss=evaluation.loss,
            validation_accuracy=evaluation.accuracy,
            validation_correct=evaluation.correct,
            validation_total=evaluation.total,
        )


def _restore(
    cls: type[Trainer],
    model: Network,
    optimizer: UpdateRule,
    settings: dict[str, Any],
    progress: Progress,
    state: dict[str, HostArray],
) -> Trainer:
    """Return the trainer of a pickle."""
    trainer = cls.__new__(cls)
    Trainer.__init__(trainer, model, optimizer, **settings)
    trainer.progress = replace(progress)  # a deep copy shares it with the original
    for name, array in trainer.optimizer_state.items():
        array[...] = model.backend.asarray(state[name])
    return trainer


def _pair(validation_data: ValidationData) -> ValidationData:
    """Return images and labels.

    Raises:
        TypeError: `validation_data` is not a pair.
    """
    given: object = validation_data
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"validation_data must be a pair (images, labels), got {shown(given)}")
    return validation_data

"""Training a network: epochs, chunks of steps, and the callbacks between them.

`Callback` is here because its methods receive the trainer.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Array, CompiledEpoch, Order, Steps, UpdateRule, as_integer, create_optimizer
from mnist_accel.data.batches import BatchSampler, Sampling
from mnist_accel.nn.network import Network, Observer
from mnist_accel.nn.schedules import Schedule, create_schedule
from mnist_accel.training.chunks import ChunkRunner
from mnist_accel.training.data import TrainingData
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.progress import EpochReport, History, Progress, StepsReport

HostArray: TypeAlias = NDArray[Any]
ValidationData: TypeAlias = tuple[HostArray, HostArray]

# Steps run in chunks of about this duration. Between two chunks losses are fetched and callbacks
# are called: often enough for a live display, rarely enough that fetching costs nothing.
CHUNK_SECONDS = 0.2


class Callback:
    """Base of the objects that `Trainer.fit` calls between chunks of steps.

    Attributes:
        every: a chunk ends at every multiple of this number of steps; None for no such limit.
    """

    every: int | None = None

    def on_steps(self, trainer: "Trainer", report: StepsReport) -> None:
        """Called after every chunk of steps."""

    def on_epoch(self, trainer: "Trainer", report: EpochReport) -> None:
        """Called after every epoch, and once more at the end if the last one is incomplete."""


class Trainer:
    """Trains a network: an optimizer with its arrays, and the position in the training.

    Args:
        model: the network; its weights change.
        optimizer: an optimizer, or the name of one.
        lr: learning rate if `optimizer` is a name; None for the optimizer's default.
        batch_size: images per step.
        seed: seed of the order of the images and of dropout.
        sampling: "shuffle", "replacement" or "full"; see `BatchSampler`.
        schedule: a learning-rate schedule, or the name of one.
        total_steps: length of the whole training, for schedules that need it; `fit` extends it if
            it ends later.
        compiled: whether to run many steps in one call if the backend can compile the network;
            otherwise steps run eagerly.
        clock: returns seconds.

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
        if isinstance(optimizer, str):
            optimizer = create_optimizer(optimizer, lr=lr)
        elif lr is not None:
            raise ValueError(f"{optimizer} has its own lr, so lr={lr} cannot be given as well")
        # Checks the arguments now rather than when training begins.
        sampler = BatchSampler(examples=1, batch_size=batch_size, sampling=sampling, seed=seed)
        self.model = model
        self.optimizer = optimizer
        self.batch_size = sampler.batch_size
        self.seed = sampler.seed
        self.sampling = sampler.sampling
        self.schedule = create_schedule(schedule) if isinstance(schedule, str) else schedule
        self.total_steps = (
            None if total_steps is None else as_integer("total_steps", total_steps, at_least=1)
        )
        self.progress = Progress()
        self._clock = clock
        self._step_seconds = CHUNK_SECONDS  # so that the first chunk is one step
        self._chunks = ChunkRunner(model, optimizer, seed=self.seed, compiled=compiled)
        self._stop_reason = ""

    @property
    def step(self) -> int:
        """Number of updates done."""
        return self.progress.step

    @property
    def optimizer_state(self) -> dict[str, Array]:
        """The arrays of the optimizer, by name."""
        return self._chunks.state

    @property
    def compiled(self) -> CompiledEpoch | None:
        """The compiled steps; None if they run eagerly."""
        return self._chunks.compiled

    @property
    def not_compiled(self) -> str:
        """Why steps run eagerly; empty if they do not."""
        return self._chunks.not_compiled

    def train_batch(
        self, images: HostArray, labels: HostArray, *, observe: Observer | None = None
    ) -> float:
        """Make one update on exactly this batch and return its mean loss before the update.

        Args:
            images: host array in any form `load_mnist` returns.
            labels: integers (N,) or one-hot rows.
            observe: called with every tensor of the update and its name as it is computed.

        Raises:
            ValueError, TypeError: as `Network.as_examples`.
            DivergedError: the loss, or a weight after the update, is NaN or infinite; the weights
                are those before the update.
        """
        data = TrainingData(self.model, images, labels)
        order, bounds = Order(data.examples, "full"), np.array([[0, data.examples]])
        steps = self._next_steps(order, bounds, batch_size=data.examples)
        # Eagerly, because loading a batch into compiled code takes longer than one step.
        losses, _ = self._chunks.run(data, steps, eagerly=True, observe=observe)
        self.progress.step += 1
        return float(losses[0])

    def prepare(self, images: HostArray, labels: HostArray) -> TrainingData:
        """Return a data set in the form that `fit` uses, to share it between several calls.

        If the steps are compiled, this compiles them: half a minute the first time on a machine.

        Args:
            images: host array in any form `load_mnist` returns.
            labels: integers (N,) or one-hot rows.

        Raises:
            ValueError, TypeError: as `Network.as_examples`.
        """
        data = TrainingData(self.model, images, labels)
        if self.compiled is not None:
            with self.model.backend.computation(self.model.kinds):
                data.for_epoch(self.compiled)
        return data

    def fit(
        self,
        images: HostArray | TrainingData,
        labels: HostArray | None = None,
        *,
        epochs: int | None = None,
        iterations: int | None = None,
        validation_data: ValidationData | None = None,
        validation_every: int = 1,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train for a number of epochs or steps, and return the losses and epochs of this call.

        If an earlier call left an epoch incomplete, it is completed first and counts as one.

        Args:
            images: host array in any form `load_mnist` returns, or a data set from `prepare`.
            labels: integers (N,) or one-hot rows; None with a data set from `prepare`.
            epochs: number of epochs; either this or `iterations`.
            iterations: number of steps.
            validation_data: images and labels to evaluate at the end of epochs.
            validation_every: epochs between two evaluations; the last epoch is always evaluated.
            callbacks: called after every chunk of steps and after every epoch.

        Raises:
            ValueError: an argument is out of range; shapes, scales or labels are wrong.
            TypeError: images or labels have a wrong dtype.
            DivergedError: a loss or a weight became NaN or infinite. Weights and position are those
                at the start of the chunk of steps in which it happened.
        """
        data = self._as_data(images, labels)
        sampler = BatchSampler(data.examples, self.batch_size, self.sampling, self.seed)
        if self.progress.epoch_step > sampler.steps_per_epoch:
            raise ValueError(
                f"the epoch in progress has done {self.progress.epoch_step} steps, but "
                f"{data.examples} images make an epoch of {sampler.steps_per_epoch}; "
                "continue with the images it started with"
            )
        target = self._target_step(sampler, epochs=epochs, iterations=iterations)
        if validation_every < 1:
            raise ValueError(f"validation_every must be at least 1, got {validation_every}")
        if validation_data is not None:  # checked now rather than at the end of the first epoch
            validation_data = self.model.as_examples(*validation_data)
        self.total_steps = max(self.total_steps or 0, target)
        history = History()
        try:
            while self.step < target and not self._stop_reason:
                self._run_epoch(data, sampler, target, history, callbacks)
                is_complete = self.progress.epoch_step == sampler.steps_per_epoch
                if not is_complete and self.step < target:
                    break  # a stop was requested
                is_due = self.step == target or (self.progress.epoch + 1) % validation_every == 0
                report = self._epoch_report(validation_data if is_due else None)
                if is_complete:
                    self.progress = self.progress.next_epoch()
                history.epochs.append(report)
                for callback in callbacks:
                    callback.on_epoch(self, report)
        finally:
            # Cleared here and not at the start, so that a Ctrl-C during preparation has an effect.
            history.stop_reason, self._stop_reason = self._stop_reason, ""
        return history

    def request_stop(self, reason: str) -> None:
        """Make `fit` end after the current step, or the next `fit` end at once.

        May be called from a signal handler.

        Args:
            reason: for `History.stop_reason`, which holds that of the first request.
        """
        self._stop_reason = self._stop_reason or reason

    def learning_rate(self) -> float:
        """Return the learning rate of the next step.

        Raises:
            ValueError: the schedule needs the length of the training, and it is not known.
        """
        return float(self._next_rates(1)[0])

    def _run_epoch(
        self,
        data: TrainingData,
        sampler: BatchSampler,
        target: int,
        history: History,
        callbacks: Sequence[Callback],
    ) -> None:
        """Train to the end of the epoch, to step `target`, or until a stop is requested."""
        order = sampler.order(self.progress.epoch)
        while self.progress.epoch_step < sampler.steps_per_epoch and self.step < target:
            if self._stop_reason:
                return
            count = min(
                max(1, int(CHUNK_SECONDS / self._step_seconds)),
                sampler.steps_per_epoch - self.progress.epoch_step,
                target - self.step,
                *(c.every - self.step % c.every for c in callbacks if c.every),
            )
            bounds = sampler.batch_bounds(self.progress.epoch_step, count)
            batch_size = int(np.diff(sampler.batch_bounds(0, 1))[0, 0])
            report = self._run_chunk(data, self._next_steps(order, bounds, batch_size=batch_size))
            history.losses.extend(report.losses.tolist())
            for callback in callbacks:
                callback.on_steps(self, report)

    def _run_chunk(self, data: TrainingData, steps: Steps) -> StepsReport:
        """Run a chunk of steps and add it to the progress."""
        started = self._clock()
        losses, correct = self._chunks.run(data, steps, should_stop=lambda: bool(self._stop_reason))
        self.progress.step += len(losses)
        images = np.diff(steps.bounds)[: len(losses), 0]
        seconds = self._clock() - started
        report = StepsReport(steps.before + 1, losses, correct, images, seconds)
        self.progress.add_steps(report)
        self._step_seconds = max(1e-9, seconds / len(losses))
        return report

    def _next_steps(self, order: Order, bounds: NDArray[np.int64], *, batch_size: int) -> Steps:
        """Return the next steps, on the batches between `bounds` (steps, 2) in the order."""
        return Steps(
            order=order,
            bounds=bounds,
            rates=self._next_rates(len(bounds)),
            before=self.step,
            batch_size=batch_size,
        )

    def _next_rates(self, count: int) -> NDArray[np.float64]:
        """Return the learning rates of the next steps (count,)."""
        if self.schedule.needs_total and self.total_steps is None:
            raise ValueError(
                f"{self.schedule} needs to know the length of the training; pass total_steps"
            )
        factor, total = self.schedule.factor, self.total_steps
        factors = [factor(step, total) for step in range(self.step, self.step + count)]
        return self.optimizer.lr * np.array(factors)

    def _target_step(
        self, sampler: BatchSampler, *, epochs: int | None, iterations: int | None
    ) -> int:
        """Return the step at which a call of `fit` ends."""
        if epochs is not None and iterations is None:
            epochs = as_integer("epochs", epochs, at_least=1)
            return self.step - self.progress.epoch_step + epochs * sampler.steps_per_epoch
        if iterations is not None and epochs is None:
            return self.step + as_integer("iterations", iterations, at_least=1)
        raise ValueError(f"give either epochs or iterations, got {epochs} and {iterations}")

    def _as_data(self, images: HostArray | TrainingData, labels: HostArray | None) -> TrainingData:
        """Return the first two arguments of `fit` as a data set."""
        if isinstance(images, TrainingData):
            if labels is not None:
                raise TypeError("a prepared data set has its labels; leave out labels")
            if images.model is not self.model:
                raise ValueError("the data set was prepared for another network; prepare it anew")
            return images
        if labels is None:
            raise TypeError("labels are missing: fit(images, labels, …)")
        return self.prepare(images, labels)

    def _epoch_report(self, validation_data: ValidationData | None) -> EpochReport:
        """Return the results of the epoch, with those of an evaluation if there is data."""
        report = self.progress.epoch_report()
        if validation_data is None:
            return report
        evaluation = evaluate(self.model, *validation_data)
        return replace(
            report,
            validation_loss=evaluation.loss,
            validation_accuracy=evaluation.accuracy,
            validation_correct=evaluation.correct,
            validation_total=evaluation.total,
        )

"""Training: steps, epochs, and noticing when the numbers run away."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Array, CompiledEpoch, NotCompiledError, Order, Steps, as_integer
from mnist_accel.data.arrays import as_examples
from mnist_accel.data.batches import BatchSampler, Sampling
from mnist_accel.errors import DivergedError
from mnist_accel.nn.lowering import NotLoweredError, lower_training
from mnist_accel.nn.network import Network, Observer
from mnist_accel.nn.optimizers import UpdateRule, create_optimizer
from mnist_accel.nn.schedules import Schedule, create_schedule
from mnist_accel.training.data import TrainingData
from mnist_accel.training.eager import StepByStep
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.reports import Callback, EpochReport, History, StepsReport

HostArray: TypeAlias = NDArray[Any]
ValidationData: TypeAlias = tuple[HostArray, HostArray]

# Steps run in chunks; between two of them losses are fetched and callbacks are called. A chunk
# takes about this long: short enough for a lively display, long enough that fetching costs nothing.
CHUNK_SECONDS = 0.2


@dataclass
class Progress:
    """The place in a training; together with the arrays, all that it takes to go on from there.

    Attributes:
        step: updates done.
        epoch: epochs completed.
        epoch_step: updates done in the epoch under way.
        epoch_images: images of these updates.
        epoch_loss: sum of the losses of these images.
        epoch_correct: how many of these images were recognised.
        epoch_seconds: time that these updates took.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    epoch_images: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_seconds: float = 0.0


class Trainer:
    """Trains a network: an optimizer, its state, and the place in the training.

    Args:
        model: the network; its weights change.
        optimizer: an optimizer, or the name of one.
        lr: learning rate where `optimizer` is a name; the optimizer's default if None.
        batch_size: images a step.
        seed: of the order of the images and of dropout.
        sampling: "shuffle", "replacement" or "full"; see `BatchSampler`.
        schedule: a schedule of the learning rate, or the name of one.
        total_steps: length of the whole training, for schedules that need it; `fit` extends it to
            its own end.
        compiled: whether many steps run in one call where the backend and the network allow it;
            else each runs operation by operation.
        clock: returns seconds.

    Raises:
        ValueError: an argument is unknown or out of range, or `lr` is given with an optimizer that
            has its own.
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
        # Made only to refuse wrong values now, and not when training begins.
        BatchSampler(examples=1, batch_size=batch_size, sampling=sampling, seed=seed)
        self.model = model
        self.optimizer = optimizer
        self.batch_size = as_integer("batch_size", batch_size, at_least=1)
        self.seed = as_integer("seed", seed, at_least=0)
        self.sampling: Sampling = sampling
        self.schedule = create_schedule(schedule) if isinstance(schedule, str) else schedule
        self.total_steps = (
            None if total_steps is None else as_integer("total_steps", total_steps, at_least=1)
        )
        self.progress = Progress()
        self.optimizer_state: dict[str, Array] = {
            name: model.backend.zeros(model.parameters.flat.shape, dtype=model.dtype)
            for name in optimizer.state_names
        }
        self._clock = clock
        self._step_seconds = CHUNK_SECONDS  # one step a chunk, until there is a measurement
        self._step_by_step = StepByStep(model, optimizer, seed=self.seed)
        self.compiled, self.not_compiled = self._compile() if compiled else (None, "not wanted")
        self._stop_reason = ""

    def _compile(self) -> tuple[CompiledEpoch | None, str]:
        """Return the training as a compiled epoch, or why there is none."""
        try:
            return self.model.backend.compile_epoch(lower_training(self.model, self.optimizer)), ""
        except (NotLoweredError, NotCompiledError) as reason:
            return None, str(reason)

    @property
    def step(self) -> int:
        """Number of updates done."""
        return self.progress.step

    def train_batch(
        self, images: HostArray, labels: HostArray, *, observe: Observer | None = None
    ) -> float:
        """Make one update on exactly this batch.

        Args:
            images: host array in any form `load_mnist` returns.
            labels: integers (N,) or one-hot rows.
            observe: is shown every tensor of the update, by name, as it is computed.

        Returns:
            The mean loss of the batch before the update.

        Raises:
            ValueError: shapes, scales or labels are wrong, or the batch is empty.
            TypeError: images or labels have a dtype that is not theirs.
            DivergedError: the loss, or a weight after the update, is NaN or infinite; the weights
                are those before the update.
        """
        data = TrainingData(self.model, images, labels)
        order, bounds = Order(data.examples, "full"), np.array([[0, data.examples]])
        steps = self._steps(order, bounds, batch_size=data.examples)
        # Preparing a batch for compiled code takes longer than one step.
        losses, _ = self._run_chunk(data, steps, compiled=None, observe=observe)
        return float(losses[0])

    def prepare(self, images: HostArray, labels: HostArray) -> TrainingData:
        """Bring a data set to where the network trains, once for several calls of `fit`.

        Where many steps run in one call, this compiles them: half a minute, the first time on a
        machine.

        Args:
            images: host array in any form `load_mnist` returns.
            labels: integers (N,) or one-hot rows.

        Raises:
            ValueError: shapes, scales or labels are wrong, or there are no images.
            TypeError: images or labels have a dtype that is not theirs.
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
        """Train for some epochs, or some steps, more.

        An epoch that an earlier call left unfinished is finished first, and counts as one.

        Args:
            images: host array in any form `load_mnist` returns; or a data set as `prepare` returns
                it, which has its labels.
            labels: integers (N,) or one-hot rows.
            epochs: length of the training in epochs; either this or `iterations`.
            iterations: length of the training in steps.
            validation_data: images and labels to evaluate on at the end of epochs.
            validation_every: epochs between two evaluations; there is one at the end in any case.
            callbacks: hear of every chunk of steps and of every epoch.

        Returns:
            Losses and epochs of this call.

        Raises:
            ValueError: an argument is out of range; shapes, scales or labels are wrong.
            TypeError: images or labels have a dtype that is not theirs.
            DivergedError: a loss or a weight became NaN or infinite. The trainer stands where the
                chunk of steps began in which it happened, some tenths of a second earlier.
        """
        data = self._as_data(images, labels)
        sampler = BatchSampler(data.examples, self.batch_size, self.sampling, self.seed)
        if self.progress.epoch_step > sampler.steps_per_epoch:
            raise ValueError(
                f"the epoch under way has done {self.progress.epoch_step} steps, but "
                f"{data.examples} images make an epoch of {sampler.steps_per_epoch}; "
                "go on with the images it began with"
            )
        target = self._target_step(sampler, epochs=epochs, iterations=iterations)
        if validation_every < 1:
            raise ValueError(f"validation_every must be at least 1, got {validation_every}")
        if validation_data is not None:  # a mistake in it should not wait for the end of the epoch
            validation_data = _examples(self.model, *validation_data)
        self.total_steps = max(self.total_steps or 0, target)
        history = History()
        try:
            while self.step < target and not self._stop_reason:
                self._run_epoch(data, sampler, target, history, callbacks)
                is_complete = self.progress.epoch_step == sampler.steps_per_epoch
                if not is_complete and self.step < target:
                    break  # somebody asked to stop
                is_due = self.step == target or (self.progress.epoch + 1) % validation_every == 0
                report = self._epoch_report(validation_data if is_due else None)
                if is_complete:
                    self.progress = Progress(step=self.step, epoch=self.progress.epoch + 1)
                history.epochs.append(report)
                for callback in callbacks:
                    callback.on_epoch(self, report)
        finally:
            # Forgotten here and not at the start, so that Ctrl-C is heard while data are prepared.
            history.stop_reason, self._stop_reason = self._stop_reason, ""
        return history

    def request_stop(self, reason: str) -> None:
        """Ask `fit` to end after the present step, or the next `fit` to end at once.

        May be called from a signal handler.

        Args:
            reason: in words; `History.stop_reason` holds the first that was given.
        """
        self._stop_reason = self._stop_reason or reason

    def learning_rate(self) -> float:
        """Return the learning rate of the next step.

        Raises:
            ValueError: the schedule needs the length of the training, and it is not known.
        """
        return float(self._rates(1)[0])

    def _rates(self, count: int) -> NDArray[np.float64]:
        """Return the learning rates of the next steps."""
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
        """Return what `fit` was given as a data set."""
        if isinstance(images, TrainingData):
            if labels is not None:
                raise TypeError("a prepared data set has its labels; leave out labels")
            if images.model is not self.model:
                raise ValueError("the data set was prepared for another network; prepare it anew")
            return images
        if labels is None:
            raise TypeError("labels are missing: fit(images, labels, …)")
        return self.prepare(images, labels)

    def _run_epoch(
        self,
        data: TrainingData,
        sampler: BatchSampler,
        target: int,
        history: History,
        callbacks: Sequence[Callback],
    ) -> None:
        """Train to the end of the epoch, to `target`, or until somebody asks to stop."""
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
            size = int(np.diff(sampler.batch_bounds(0, 1))[0, 0])
            steps = self._steps(order, bounds, batch_size=size)
            started = self._clock()
            losses, correct = self._run_chunk(data, steps, compiled=self.compiled)
            images = np.diff(steps.bounds)[: len(losses), 0]
            seconds = self._clock() - started
            report = StepsReport(self.step - len(losses) + 1, losses, correct, images, seconds)
            self._add_to_epoch(report)
            self._step_seconds = max(1e-9, seconds / len(losses))
            history.losses.extend(losses.tolist())
            for callback in callbacks:
                callback.on_steps(self, report)

    def _steps(self, order: Order, bounds: NDArray[np.int64], *, batch_size: int) -> Steps:
        """Return the next steps, which take the images between their bounds in the order."""
        return Steps(
            order=order,
            bounds=bounds,
            rates=self._rates(len(bounds)),
            before=self.step,
            batch_size=batch_size,
        )

    def _run_chunk(
        self,
        data: TrainingData,
        steps: Steps,
        *,
        compiled: CompiledEpoch | None,
        observe: Observer | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Train on batches, one after the other, until the last or until somebody asks to stop.

        Losses stay on the device until the last step is done. Whatever is raised, even by a key or
        for lack of memory, the trainer stands where it stood before.

        Returns:
            Losses and numbers of recognised images, of the steps that were done.
        """
        with self.model.backend.computation(self.model.kinds):
            before = self._snapshot()
            try:
                losses, correct = self._train(data, steps, compiled, observe)
                if not (np.isfinite(losses).all() and self._is_finite(self.model.parameters.flat)):
                    self._restore(before)
                    self._find_divergence(data, steps)
            except BaseException:
                self._restore(before)
                raise
        self.progress.step += len(losses)
        return losses, correct

    def _train(
        self,
        data: TrainingData,
        steps: Steps,
        compiled: CompiledEpoch | None,
        observe: Observer | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Do the work of `_run_chunk`, without a look at the numbers."""
        state = self.optimizer_state
        if compiled is None:
            return self._step_by_step.run(
                data, steps, state, observe=observe, should_stop=lambda: bool(self._stop_reason)
            )
        return compiled.run(data.for_epoch(compiled), steps, self.model.parameters.flat, state)

    def _add_to_epoch(self, report: StepsReport) -> None:
        """Count a chunk in the sums of the epoch under way."""
        progress = self.progress
        progress.epoch_step += len(report.losses)
        progress.epoch_images += int(report.images.sum())
        progress.epoch_loss += float(report.losses @ report.images)
        progress.epoch_correct += int(report.correct.sum())
        progress.epoch_seconds += report.seconds

    def _epoch_report(self, validation_data: ValidationData | None) -> EpochReport:
        """Sum up the epoch under way, and evaluate if there is something to evaluate on."""
        progress = self.progress
        report = EpochReport(
            epoch=progress.epoch + 1,
            step=progress.step,
            train_loss=progress.epoch_loss / progress.epoch_images,
            train_accuracy=progress.epoch_correct / progress.epoch_images,
            images_per_s=progress.epoch_images / max(1e-9, progress.epoch_seconds),
        )
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

    # Noticing when the numbers run away. Nothing is checked inside a step, so a healthy training
    # pays nothing: a chunk is looked at as a whole, and if it went wrong it is done again from its
    # beginning, this time looking at every tensor.

    def _find_divergence(self, data: TrainingData, steps: Steps) -> None:
        """Repeat a chunk that went wrong, and raise at the step where it does.

        Raises:
            DivergedError: always.
        """
        for number in range(len(steps.bounds)):
            culprits: list[str] = []

            def note(name: str, tensor: Array, culprits: list[str] = culprits) -> None:
                if not self._is_finite(tensor):
                    culprits.append(name)

            one = replace(
                steps,
                bounds=steps.bounds[number : number + 1],
                rates=steps.rates[number : number + 1],
                before=steps.before + number,
            )
            self._step_by_step.run(data, one, self.optimizer_state, observe=note)
            if culprits:
                raise _diverged(one.before + 1, culprits[0], self.optimizer.lr)
        # It did not happen again: rounding differs where operations run one by one.
        raise _diverged(steps.before + len(steps.bounds), "loss", self.optimizer.lr)

    def _is_finite(self, tensor: Array) -> bool:
        xp = self.model.backend.xp
        return bool(xp.all(xp.isfinite(tensor)))

    def _snapshot(self) -> tuple[Array, dict[str, Array], Progress]:
        """Copy all that an update changes."""
        copy = self._copy
        state = {name: copy(array) for name, array in self.optimizer_state.items()}
        return copy(self.model.parameters.flat), state, replace(self.progress)

    def _restore(self, snapshot: tuple[Array, dict[str, Array], Progress]) -> None:
        """Go back to a snapshot."""
        weights, state, progress = snapshot
        self.model.parameters.flat[...] = weights
        for name, array in state.items():
            self.optimizer_state[name][...] = array
        self.progress = replace(progress)

    def _copy(self, array: Array) -> Array:
        return self.model.backend.xp.asarray(array, copy=True)


def _examples(
    model: Network, images: HostArray, labels: HostArray
) -> tuple[HostArray, NDArray[np.int64]]:
    """Return images and labels in the form that the network takes."""
    return as_examples(
        images,
        labels,
        input_shape=model.input_shape,
        classes=model.classes,
        dtype=model.dtype,
    )


def _diverged(step: int, tensor: str, lr: float) -> DivergedError:
    return DivergedError(
        f"training diverged at step {step}: the first value that is not finite is in the {tensor}; "
        f"try a learning rate below {lr:g}",
        step=step,
        tensor=tensor,
    )

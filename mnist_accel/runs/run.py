"""A training from settings to run folder: what `python -m mnist_accel.train` does."""

import math
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from types import FrameType
from typing import Any

from numpy.typing import NDArray

from backends import Backend
from mnist_accel._version import __version__
from mnist_accel.autotune.choose import Choice, choose_by_settings, choose_fastest
from mnist_accel.checkpoints.checkpoint import load_checkpoint, save_model
from mnist_accel.console.display import TrainingDisplay
from mnist_accel.console.phases import Phases, getting_ready
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.data.batches import BatchSampler, split_indices
from mnist_accel.errors import DataError, DivergedError, usage_errors
from mnist_accel.nn.optimizers import create_optimizer
from mnist_accel.recipes.models import create_model
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.runs.callbacks import Checkpoints, LogLine, MetricsLog, StopRules
from mnist_accel.runs.folder import RunFolder
from mnist_accel.training.data import TrainingData
from mnist_accel.training.evaluation import Evaluation, evaluate
from mnist_accel.training.reports import Callback, EpochReport, StepsReport
from mnist_accel.training.trainer import Trainer

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: where everything is.
        interrupted: whether somebody stopped it; it can be resumed then.
    """

    folder: RunFolder
    interrupted: bool


def start_run(
    settings: TrainSettings, *, out: str | None, quiet: bool, progress: bool
) -> RunResult:
    """Train from the beginning, and leave a run folder.

    Args:
        settings: decide how the run goes.
        out: the run folder; a new one under `runs/` if None.
        quiet: print only the result.
        progress: show a progress bar, or plain lines where there is no terminal.

    Raises:
        UsageError: settings do not suit the model or each other.
        BackendUnavailableError: the backend asked for cannot run, and may not be replaced.
        DataError: the data cannot be had, or the folder cannot be written.
        DivergedError: the loss or a weight became NaN or infinite.
    """
    phases = Phases()
    with phases.time("data"):
        data = _RunData(settings)
    display = _display(settings, data, quiet=quiet, progress=progress)
    choice = choose_fastest(
        settings,
        data.train_images,
        data.train_labels,
        make_trainer=partial(_make_trainer, examples=len(data.train_labels)),
        phases=phases,
        note=display.note,
    )
    backend = choice.selection.backend
    with phases.time("setup"):
        trainer = _make_trainer(settings, backend, examples=len(data.train_labels))
        folder = RunFolder.create(
            out, model=settings.model, backend=backend.name, now=datetime.now()
        )
    run = _Run(settings, folder, data, choice, trainer, phases, display)
    folder.write_json(folder.config, run.config())
    run.checkpoints.save(trainer)  # so that there is one from the first step on
    return run.train()


def resume_run(
    folder: RunFolder, settings: TrainSettings, *, quiet: bool, progress: bool
) -> RunResult:
    """Go on with a run from its checkpoint.

    Args:
        folder: of the run.
        settings: those of the run, with what the user changed.
        quiet: print only the result.
        progress: show a progress bar, or plain lines where there is no terminal.

    Raises:
        BackendUnavailableError: the backend asked for cannot run, and may not be replaced.
        DataError: the data or the checkpoint cannot be had.
        DivergedError: the loss or a weight became NaN or infinite.
    """
    phases = Phases()
    with phases.time("data"):
        data = _RunData(settings)
        before = folder.read_json(folder.config)
        _check_same_data(folder, before, data)
    with phases.time("setup"):
        choice = choose_by_settings(settings)
        trainer = load_checkpoint(folder.checkpoint, backend=choice.selection.backend)
        folder.remove_unfinished()
        folder.truncate_metrics(step=trainer.step, epochs=trainer.progress.epoch)
    display = _display(settings, data, quiet=quiet, progress=progress)
    run = _Run(settings, folder, data, choice, trainer, phases, display)
    earlier = [*before.pop("earlier", []), before]
    folder.write_json(folder.config, {**run.config(), "earlier": earlier})
    for line in folder.read_metrics("steps"):
        run.stop_rules.count_seconds(trainer, line["seconds"])
    for line in folder.read_metrics("epoch"):
        if line["validation_accuracy"] is not None:
            run.stop_rules.count_evaluation(trainer, line["validation_accuracy"])
    return run.train()


class _RunData:
    """The images of a run: to train on, to watch meanwhile, to test on at last."""

    def __init__(self, settings: TrainSettings) -> None:
        with usage_errors():
            self.dataset: Dataset = load_dataset(settings.dataset, data_dir=settings.data_dir)
        train, test = settings.limit_train or None, settings.limit_test or None
        self.train_images = self.dataset.x_train[:train]
        self.train_labels = self.dataset.t_train[:train]
        self.test = self.dataset.x_test[:test], self.dataset.t_test[:test]
        self.validation = self.test
        self.validation_name = "test"
        if settings.validation_split:
            with usage_errors():
                kept, held_out = split_indices(
                    len(self.train_labels),
                    fraction=settings.validation_split,
                    seed=settings.seed,
                )
            self.validation = self.train_images[held_out], self.train_labels[held_out]
            self.validation_name = "validation"
            self.train_images = self.train_images[kept]
            self.train_labels = self.train_labels[kept]


class _Run:
    """One run, from its first step, or the step it is resumed at, to its last file."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: RunFolder,
        data: _RunData,
        choice: Choice,
        trainer: Trainer,
        phases: Phases,
        display: TrainingDisplay,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._data = data
        self._choice = choice
        self._trainer = trainer
        self._phases = phases
        self._total_steps = _total_steps(settings, len(data.train_labels))
        self._display = display
        self._metrics = MetricsLog(folder, every=settings.log_every, show=self._log)
        self.checkpoints = Checkpoints(
            folder.checkpoint, self._metrics, every=settings.checkpoint_every
        )
        self.stop_rules = StopRules(
            target_accuracy=settings.target_accuracy,
            patience=settings.patience,
            max_seconds=settings.max_seconds,
        )

    def train(self) -> RunResult:
        """Train to the end, or until something stops it, and write what is to be written."""
        with self._display:
            self._introduce()
            with _stop_on_signals(self._trainer):
                with self._phases.time("prepare"):
                    data = self._prepare()
                with self._phases.time("train"):
                    stop_reason = self._fit_and_save(data)
            if stop_reason == INTERRUPTED:
                self._display.warn(
                    f"interrupted at step {self._trainer.step}, saved; go on with "
                    f"--resume {self._folder.path}"
                )
                return RunResult(self._folder, interrupted=True)
            if stop_reason:
                self._display.note(f"stopped at step {self._trainer.step}: {stop_reason}")
            evaluation = self._finish(stop_reason)
        print(
            f"test accuracy {evaluation.accuracy:.2%} ({evaluation.correct} / {evaluation.total}), "
            f"loss {evaluation.loss:.4f}; everything is in {self._folder.path}"
        )
        return RunResult(self._folder, interrupted=False)

    def _fit_and_save(self, data: TrainingData) -> str:
        """Train, and save the place that was reached, whatever ended the training."""
        try:
            stop_reason = self._fit(data)
        except DivergedError as error:  # what is saved already is better than what led to this
            raise DivergedError(
                f"{error}; the last good checkpoint is {self._folder.checkpoint}",
                step=error.step,
                tensor=error.tensor,
            ) from error
        except BaseException:  # no memory, or nobody left to read what is printed
            self.checkpoints.save(self._trainer)
            raise
        self.checkpoints.save(self._trainer)
        return stop_reason

    def _fit(self, data: TrainingData) -> str:
        """Train the steps that are left; return why it ended before its time, if it did."""
        trainer, settings = self._trainer, self._settings
        steps_left = self._total_steps - trainer.step
        if steps_left <= 0:
            self._display.note(f"all {self._total_steps} steps are done already")
            return ""
        callbacks: Sequence[Callback] = (
            self._metrics,
            self.checkpoints,
            self.stop_rules,
            _Show(self._display, self._data.validation_name),
        )
        history = trainer.fit(
            data,
            iterations=steps_left,
            validation_data=self._data.validation,
            validation_every=settings.validation_every,
            callbacks=callbacks,
        )
        return history.stop_reason

    def _prepare(self) -> TrainingData:
        """Bring the data to where they are needed; say so where that takes a while."""
        compiles = self._trainer.compiled is not None
        with getting_ready(self._display.note) if compiles else nullcontext():
            self._trainer.model.prepare()  # it will be evaluated
            return self._trainer.prepare(self._data.train_images, self._data.train_labels)

    def _finish(self, stop_reason: str) -> Evaluation:
        """Evaluate on the test set, and write weights, pictures and summary."""
        model, folder = self._trainer.model, self._folder
        images, labels = self._data.test
        with self._phases.time("evaluate"):
            evaluation = evaluate(model, images, labels)
            probabilities = model.predict_proba(images)
        save_model(folder.model, model)
        with self._phases.time("pictures"):
            self._draw(probabilities)
        epochs = folder.read_metrics("epoch")
        folder.write_json(
            folder.summary,
            {
                "model": model.name,
                "backend": model.backend.name,
                "test_loss": evaluation.loss,
                "test_accuracy": evaluation.accuracy,
                "test_images": evaluation.total,
                "train_images": len(self._data.train_labels),
                "steps": self._trainer.step,
                "epochs": epochs[-1]["epoch"] if epochs else 0,
                "images_per_s": _overall_images_per_s(folder.read_metrics("steps")),
                "seconds": self._phases.seconds,
                "stop_reason": stop_reason,
            },
        )
        return evaluation

    def _draw(self, probabilities: NDArray[Any]) -> None:
        """Write the pictures, among them what the network made of the test set."""
        # matplotlib takes a third of a second to import; the first step need not wait for it.
        from mnist_accel.plots import plot_curves, plot_filters, plot_mistakes

        images, labels = self._data.test
        plot_mistakes(
            self._folder.path / "mistakes.png",
            images=images,
            labels=labels,
            predictions=probabilities.argmax(axis=1),
            probabilities=probabilities,
            class_names=self._data.dataset.class_names,
        )
        weights = self._trainer.model.state_dict()["W1"]
        if weights.ndim == 4:
            plot_filters(self._folder.path / "filters.png", weights)
        steps = self._folder.read_metrics("steps")
        epochs = self._folder.read_metrics("epoch")
        plot_curves(
            self._folder.path / "curves.png",
            steps=[
                line["step"] - len(line["losses"]) + 1 + i
                for line in steps
                for i in range(len(line["losses"]))
            ],
            losses=[loss for line in steps for loss in line["losses"]],
            epochs=[line["epoch"] for line in epochs],
            train_accuracy=[line["train_accuracy"] for line in epochs],
            test_accuracy=[line["validation_accuracy"] for line in epochs],
            test_name=self._data.validation_name,
            title=f"{self._settings.model} on {self._trainer.model.backend.name}",
        )

    def _introduce(self) -> None:
        """Say what is trained, on what, and with what."""
        choice, trainer = self._choice, self._trainer
        if choice.selection.fell_back:
            name = choice.selection.backend.name
            self._display.warn(f"{choice.selection.reason}; training on {name} instead")
        if choice.measurements or not choice.selection.fell_back:
            self._display.note(f"backend {choice.describe()}")
        threads, most = trainer.model.backend.threads, trainer.model.backend.max_threads
        if threads is not None and most is not None and threads > most:
            self._display.warn(f"{threads} threads wait for each other where {most} would do")
        self._display.note(f"data {self._data.dataset.name} from {self._data.dataset.source}")
        self._display.note(f"model {trainer.model.name}: {trainer.model.describe()}")

    def _log(self, line: LogLine) -> None:
        figures = asdict(line)
        del figures["losses"], figures["seconds"]
        self._display.log_line(**figures)

    def config(self) -> dict[str, Any]:
        """Return everything needed to repeat the run, and what it runs on."""
        selection = self._choice.selection
        device = selection.backend.device_info()
        return {
            "settings": asdict(self._settings),
            "backend": {
                "requested": selection.requested,
                "used": selection.backend.name,
                "threads": selection.backend.threads,
                "device": selection.backend.device,
                "reason": selection.reason,
                "figures": self._choice.measurements,
                "fell_back": selection.fell_back,
                "compiled": self._trainer.compiled is not None,
                "not_compiled": self._trainer.not_compiled,
            },
            "device": {"name": device.name, "memory_total_bytes": device.memory_total_bytes},
            "versions": {
                "mnist_accel": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                **device.libraries,
            },
            "data": {
                "name": self._data.dataset.name,
                "source": self._data.dataset.source,
                "train_images": len(self._data.train_labels),
                f"{self._data.validation_name}_images": len(self._data.validation[1]),
                "test_images": len(self._data.test[1]),
            },
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": sys.argv,
        }


class _Show(Callback):
    """Moves the display on, and prints a line for each epoch."""

    def __init__(self, display: TrainingDisplay, validation_name: str) -> None:
        self._display = display
        self._validation_name = validation_name

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Move the bar."""
        images = int(report.images.sum())
        self._display.advance(
            step=trainer.step,
            epoch=trainer.progress.epoch + 1,
            loss=float(report.losses.mean()),
            accuracy=float(report.correct.sum() / images),
            images_per_s=images / max(1e-9, report.seconds),
        )

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Print what the sources print: loss, accuracies, and how many of how many."""
        if report.validation_accuracy is None:
            return
        self._display.epoch_line(
            f"epoch {report.epoch}: loss {report.train_loss:.4f}, "
            f"train accuracy {report.train_accuracy:.2%}, "
            f"{self._validation_name} accuracy {report.validation_accuracy:.2%} "
            f"({report.validation_correct} / {report.validation_total}), "
            f"{report.images_per_s:,.0f} images/s"
        )


def _make_trainer(settings: TrainSettings, backend: Backend, *, examples: int) -> Trainer:
    """Return a network with its initial weights, and the trainer of it.

    Args:
        settings: decide.
        backend: computes.
        examples: number of training images.

    Raises:
        UsageError: settings do not suit the model or each other.
    """
    with usage_errors():
        model = create_model(
            settings.model,
            backend=backend,
            seed=settings.seed,
            hidden_sizes=settings.hidden_sizes or None,
            activation=settings.activation or None,
            dtype=settings.dtype,
        )
        return Trainer(
            model,
            create_optimizer(
                settings.optimizer,
                lr=settings.lr,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
            ),
            batch_size=settings.batch_size or examples,
            seed=settings.seed,
            sampling=settings.sampling,  # type: ignore[arg-type]
            schedule=settings.schedule,
        )


def _display(
    settings: TrainSettings, data: _RunData, *, quiet: bool, progress: bool
) -> TrainingDisplay:
    """Return what shows how the run gets on."""
    total_steps = _total_steps(settings, len(data.train_labels))
    return TrainingDisplay(total_steps, quiet=quiet, progress=progress)


def _total_steps(settings: TrainSettings, examples: int) -> int:
    """Return the number of the last step."""
    if settings.iterations:
        return settings.iterations
    with usage_errors():
        sampler = BatchSampler(
            examples,
            settings.batch_size or examples,
            settings.sampling,  # type: ignore[arg-type]
            settings.seed,
        )
    return (settings.epochs or 0) * sampler.steps_per_epoch


def _check_same_data(folder: RunFolder, config: dict[str, Any], data: _RunData) -> None:
    """Refuse to go on with a run whose training images are no longer as many as they were."""
    images = config.get("data", {}).get("train_images")
    if images != len(data.train_labels):
        raise DataError(
            f"{folder.path} was trained on {images} images, but there are {len(data.train_labels)} "
            f"now in {data.dataset.source}; a run goes on with the data it began with"
        )


def _overall_images_per_s(lines: list[dict[str, Any]]) -> float:
    """Return the mean throughput of all steps; NaN where there is none."""
    seconds = sum(line["seconds"] for line in lines)
    images = sum(line["images_per_s"] * line["seconds"] for line in lines)
    return images / seconds if lines else math.nan


@contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C, or a polite kill, end the training after the present step."""

    def handle(signum: int, frame: FrameType | None) -> None:
        trainer.request_stop(INTERRUPTED)
        signal.signal(signum, previous[signum])

    signals = (signal.SIGINT, signal.SIGTERM)
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in signals}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # who started this in the background may want it so
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

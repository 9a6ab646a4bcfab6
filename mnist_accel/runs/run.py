"""Train with given settings and write a run folder, as the command `train` does."""

import signal
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from mnist_accel.autotune.choose import Choice, choose_by_settings, choose_fastest
from mnist_accel.checkpoints.checkpoint import load_checkpoint
from mnist_accel.console.activity import hide_activities
from mnist_accel.console.phases import Phases
from mnist_accel.console.progress import TrainingDisplay
from mnist_accel.errors import DivergedError, escaped
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.runs.announcements import announce
from mnist_accel.runs.artifacts import has_artifacts, write_artifacts
from mnist_accel.runs.callbacks import Checkpoints, MetricsLog
from mnist_accel.runs.config import (
    check_same_data,
    check_same_training,
    run_config,
    stored_config,
    with_earlier,
)
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.guessing import MIN_STEPS, GuessingWarning, advice, is_guessing
from mnist_accel.runs.setup import (
    RunData,
    check_network,
    load_run_data,
    make_sampler,
    make_trainer,
    require_identity,
    total_steps,
    with_absolute_folder,
)
from mnist_accel.runs.signals import interrupt_on_signals, stop_on_signals
from mnist_accel.runs.stop_rules import StopRules
from mnist_accel.runs.tensorboard import EventFile, check_log
from mnist_accel.training.data import TrainingData
from mnist_accel.training.evaluation import Evaluation, evaluate
from mnist_accel.training.show_progress import ShowEpochs, ShowSteps
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.text import count


@dataclass(frozen=True)
class RunResult:
    """The result of `start_run` or `resume_run`.

    Attributes:
        folder: the run folder.
        signal: number of the signal that stopped the run; None if the run is finished.
            `resume_run` continues a stopped run.
    """

    folder: RunFolder
    signal: int | None = None


def start_run(
    settings: TrainSettings, *, out: str | None, quiet: bool, progress: bool
) -> RunResult:
    """Train a new network and write a run folder.

    Args:
        settings: settings of the run.
        out: the run folder; None for a new one in `runs/`.
        quiet: print only the result and warnings.
        progress: show a progress bar, or log lines if stderr is not a terminal.

    Raises:
        UsageError: the model does not accept a setting, or two settings contradict each other.
        BackendUnavailableError: the requested backend cannot run, and a fallback is not allowed.
        DataError: the data cannot be obtained, or the folder cannot be written.
        DivergedError: the loss or a weight became NaN or infinite.
    """
    check_network(settings)
    check_log(settings.log)
    settings = with_absolute_folder(settings)
    phases = Phases()
    with phases.time("data"), hide_activities(quiet):
        data = load_run_data(settings)
    last_step = total_steps(settings, data.train_count)
    display = TrainingDisplay(last_step, quiet=quiet, progress=progress)
    with display.preparation("choosing a backend"):
        choice = choose_fastest(
            settings,
            *data.train,
            make_trainer=partial(make_trainer, examples=data.train_count, form=data.dataset.form),
            phases=phases,
        )
    backend = choice.selection.backend
    with phases.time("setup"):
        trainer = make_trainer(settings, backend, examples=data.train_count, form=data.dataset.form)
        folder = RunFolder.create(
            out, model=settings.model, backend=backend.name, now=datetime.now()
        )
    with folder.lock():
        folder.require_no_run()  # another process may have written one in the meantime
        folder.remove_unfinished()
        run = _Run(settings, folder, data, trainer, phases, display)
        run.write_metrics([])
        run.checkpoints.save(trainer)
        # This file is written last, because a folder that contains it is a run that can be resumed.
        folder.write_json(folder.config, run_config(settings, choice, trainer, data))
        return run.train(choice, last_step)


def resume_run(
    folder: RunFolder, settings: TrainSettings, *, quiet: bool, progress: bool
) -> RunResult:
    """Continue a run from its checkpoint.

    Args:
        folder: the run folder.
        settings: the stored settings of the run, with the changes of the user.
        quiet: see `start_run`.
        progress: see `start_run`.

    Raises:
        UsageError: another process is training in the folder, or the backend or the data set does
            not accept a setting.
        BackendUnavailableError: the requested backend cannot run, and a fallback is not allowed.
        DataError: the data or the checkpoint cannot be read, or the folder cannot be written.
        DivergedError: the loss or a weight became NaN or infinite.
    """
    with folder.lock():
        return _resume(folder, settings, quiet=quiet, progress=progress)


def _resume(
    folder: RunFolder, settings: TrainSettings, *, quiet: bool, progress: bool
) -> RunResult:
    check_log(settings.log)
    settings = with_absolute_folder(settings)
    phases = Phases()
    with phases.time("data"), hide_activities(quiet):
        content, config = stored_config(folder)
        require_identity(
            config.data.identity, settings.dataset, config.settings.arguments()["name"]
        )
        data = load_run_data(settings, config.data.identity)
        check_same_data(folder, config, data)
    last_step = total_steps(settings, data.train_count)
    display = TrainingDisplay(last_step, quiet=quiet, progress=progress)
    with phases.time("setup"), display.preparation("preparing"):
        choice = choose_by_settings(settings)
        trainer = load_checkpoint(folder.checkpoint, backend=choice.selection.backend)
        check_same_training(folder, trainer, settings, data)
        folder.remove_unfinished()
    run = _Run(settings, folder, data, trainer, phases, display)
    if run.rewind_metrics(last_step, earlier_log=content["settings"].get("log")):
        return run.repeat_result(last_step)
    now = run_config(settings, choice, trainer, data)
    folder.write_json(folder.config, with_earlier(now, content))
    return run.train(choice, last_step)


def _is_before(line: dict[str, Any], trainer: Trainer) -> bool:
    """Return whether a line of `metrics.jsonl` belongs to the training before a checkpoint.

    The checkpoint was loaded into `trainer`, which writes all other lines again. The report of an
    incomplete epoch is one of them, because the epoch may continue.
    """
    if line["event"] == "epoch" and line["epoch"] > trainer.progress.epoch:
        return False
    return bool(line["step"] <= trainer.step)


@dataclass
class _Run:
    """A run whose trainer is ready, with the callbacks of the training."""

    settings: TrainSettings
    folder: RunFolder
    data: RunData
    trainer: Trainer
    phases: Phases
    display: TrainingDisplay

    def __post_init__(self) -> None:
        settings, folder = self.settings, self.folder
        self.event_file = EventFile(folder.path) if settings.log == "tensorboard" else None
        self.metrics = MetricsLog(
            folder,
            every=settings.log_every,
            show=self.display.log,
            event_file=self.event_file,
        )
        self.checkpoints = Checkpoints(
            folder.checkpoint, self.metrics, every=settings.checkpoint_every
        )
        self.stop_rules = StopRules(
            target_accuracy=settings.target_accuracy,
            patience=settings.patience,
            max_seconds=settings.max_seconds,
        )
        examples = self.data.train_count
        self.epochs = ShowEpochs(
            self.display,
            self.data.validation_name,
            epochs=ceil_div(
                total_steps(settings, examples), make_sampler(settings, examples).steps_per_epoch
            ),
            validation_every=settings.validation_every,
        )

    def rewind_metrics(self, last_step: int, *, earlier_log: str | None) -> bool:
        """Remove the lines of `metrics.jsonl` after the checkpoint, unless the run is finished.

        Args:
            last_step: number of the last step of the run.
            earlier_log: the setting `log` when the run last trained. If that was "none", an older
                event file lacks steps.

        Returns:
            Whether the run is finished: no step is left to train, and all files are from the last
            step.
        """
        trainer, folder = self.trainer, self.folder
        lines = folder.read_metrics()
        kept = [line for line in lines if _is_before(line, trainer)]
        self._warn_of_lost_metrics(kept)
        self.stop_rules.replay(trainer, kept)
        is_logged = self.event_file is None or (
            earlier_log == self.settings.log and self.event_file.exists()
        )
        is_finished = (
            (trainer.step >= last_step or bool(trainer.stop_reason))
            and all(line["step"] <= trainer.step for line in lines)
            and has_artifacts(folder, self.data.dataset.form, step=trainer.step)
            and is_logged
        )
        if not is_finished:
            self.write_metrics(kept)
        return is_finished

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Replace the lines of `metrics.jsonl`, and of the event file if there is one."""
        self.folder.write_metrics(lines)
        if self.event_file is not None:
            self.event_file.begin(lines)

    def _warn_of_lost_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Print a warning if the lines end before the checkpoint; a run writes them before it."""
        last = max((line["step"] for line in lines), default=0)
        if last < self.trainer.step:
            self.display.warn(
                f"{self.folder.metrics} is damaged: it ends at step {last:,}, the checkpoint is at "
                f"step {self.trainer.step:,}; the metrics between them are lost"
            )

    def repeat_result(self, last_step: int) -> RunResult:
        """Print the result of a finished run. No file changes."""
        self._note_length(last_step)
        if self.trainer.stop_reason:
            self._note_stop(self.trainer.stop_reason)
        return self._print_result(evaluate(self.trainer.model, *self.data.test))

    def train(self, choice: Choice, last_step: int) -> RunResult:
        """Train to the last step or a request to stop, evaluate, and write the final files.

        If a signal interrupts the training, only the checkpoint is written.
        """
        with interrupt_on_signals() as interrupt:
            try:
                with self.display:
                    result = self._train_and_evaluate(choice, last_step)
            except KeyboardInterrupt:  # before or after the training, or twice during it
                result = interrupt.signal or signal.SIGINT
        if isinstance(result, Evaluation):
            return self._print_result(result)
        self.display.warn(
            f"interrupted at step {self.trainer.step}; the checkpoint is saved in "
            f"{self.folder.path}"
        )
        return RunResult(self.folder, signal=result)

    def _train_and_evaluate(self, choice: Choice, last_step: int) -> Evaluation | int:
        """Train, and return the final evaluation, or the signal that interrupted the training."""
        announce(self.display, self.settings, choice, self.trainer, self.data)
        with self.phases.time("prepare"):
            data = self._prepare()
        with stop_on_signals(self.trainer) as stop, self.phases.time("train"):
            stop_reason = self._fit_and_save(data, last_step)
        self.epochs.finish()
        if stop.signal is not None:
            return stop.signal
        if stop_reason:
            self._note_stop(stop_reason)
        with self.display.activity("evaluating and drawing the pictures"):
            return write_artifacts(
                self.folder,
                self.trainer,
                self.data,
                self.phases,
                stop_reason=stop_reason,
                event_file=self.event_file,
            )

    def _print_result(self, evaluation: Evaluation) -> RunResult:
        print(
            f"test accuracy {evaluation.accuracy:.2%} ({evaluation.correct} / {evaluation.total}), "
            f"loss {evaluation.loss:.4f}; all files are in {escaped(str(self.folder.path))}"
        )
        form = self.data.dataset.form
        if form.image_size is None:
            names = ("filters.png", "mistakes.png")
            missing = [name for name in names if not (self.folder.path / name).exists()]
            self.display.note(f"not drawn for {form}: {', '.join(missing)}")
        if is_guessing(evaluation.accuracy, self.data.test[1]):
            steps = self.trainer.step
            say = self.display.warn if steps >= MIN_STEPS else self.display.note
            say(f"the network is no better than guessing; {advice(self.settings, steps=steps)}")
        return RunResult(self.folder)

    def _note_stop(self, reason: str) -> None:
        self.display.note(f"stopped at step {self.trainer.step}: {reason}")

    def _note_length(self, last_step: int) -> None:
        """Print a note if no step is left to train."""
        step = self.trainer.step
        if step >= last_step:
            more = f", more than the requested {last_step:,}" if step > last_step else ""
            self.display.note(
                f"the run already has {count(step, 'step')}{more}; no step is left to train; to "
                "extend the run, give --epochs or --iterations, counted from its beginning"
            )

    def _prepare(self) -> TrainingData:
        """Compile the network if it has a compiled form, and return the prepared training data."""
        with self.display.preparation("preparing"):
            data = self.trainer.prepare(*self.data.train)
            self.trainer.model.prepare()  # compiles what only the evaluations need
            return data

    def _fit_and_save(self, data: TrainingData, last_step: int) -> str:
        """Train, save a checkpoint unless the training diverged, and return the stop reason."""
        try:
            stop_reason = self._fit(data, last_step)
        except DivergedError as error:  # keep the last checkpoint, whose weights are finite
            raise DivergedError(
                f"{error}; the last good checkpoint is {self.folder.checkpoint}",
                step=error.step,
                tensor=error.tensor,
            ) from error
        except BaseException:  # for example out of memory, or a closed pipe
            self.checkpoints.save(self.trainer)
            raise
        self.checkpoints.save(self.trainer)
        return stop_reason

    def _fit(self, data: TrainingData, last_step: int) -> str:
        """Train the remaining steps; return the stop reason, empty if all steps are done."""
        self._note_length(last_step)
        return self.trainer.train_to(
            max(last_step, self.trainer.step),
            data,
            validation_data=self.data.validation,
            validation_every=self.settings.validation_every,
            callbacks=(
                self.metrics,
                self.checkpoints,
                self.stop_rules,
                ShowSteps(self.display),
                self.epochs,
                GuessingWarning(self.settings, self.data.validation[1], self.display.warn),
            ),
        )

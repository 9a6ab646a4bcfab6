"""Messages before a run trains: backend, data, network, and warnings about slow training."""

from backends import backend_availability
from mnist_accel.autotune.choose import Choice
from mnist_accel.console.progress import TrainingDisplay
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.runs.setup import RunData, total_steps
from mnist_accel.training.trainer import Trainer

# The cost of eager steps follows from the table of measurements in the README.
_COST = "steps run eagerly, usually 2 to 50 times slower"


def announce(
    display: TrainingDisplay,
    settings: TrainSettings,
    choice: Choice,
    trainer: Trainer,
    data: RunData,
) -> None:
    """Print backend, data and network, and a warning for each setting that is not as requested."""
    selection, model = choice.selection, trainer.model
    if selection.fell_back:
        display.warn(f"{selection.reason}; training on {model.backend.name} instead")
    if choice.measurements or not selection.fell_back:
        display.note(f"backend {choice.describe()}")
    _warn_about_eager_steps(display, settings, trainer)
    _warn_about_threads(display, settings, trainer)
    if settings.sampling == "shuffle" and settings.batch_size > data.train_count:
        display.warn(
            f"--batch-size {settings.batch_size:,} is reduced to {data.train_count:,}, the number "
            f"of training {data.dataset.form.noun}s"
        )
    before, now = trainer.total_steps, total_steps(settings, data.train_count)
    if trainer.schedule.needs_total and before is not None and before < now:
        display.warn(
            f"the run is extended from {before:,} to {now:,} steps, which stretches its schedule "
            f"{settings.schedule}, so the learning rate changes at step {trainer.step:,}"
        )
    display.note(f"data {data.dataset.name} from {data.dataset.source}")
    display.note(f"model {model.name}: {model.describe()}")


def _warn_about_eager_steps(
    display: TrainingDisplay, settings: TrainSettings, trainer: Trainer
) -> None:
    """Warn if steps run eagerly, unless the user selected a backend that compiles nothing."""
    backend = trainer.model.backend
    if trainer.not_compiled and backend.compiles_epochs:
        display.warn(f"this training is not compiled: {trainer.not_compiled}; {_COST}")
    elif not backend.compiles_epochs and settings.backend != backend.name:
        numba = backend_availability("numba")
        if not numba.ok:
            display.warn(
                f"this training is not compiled: {numba.reason}; {_COST}; to compile it: "
                f"{numba.remedy}"
            )


def _warn_about_threads(
    display: TrainingDisplay, settings: TrainSettings, trainer: Trainer
) -> None:
    backend = trainer.model.backend
    threads, max_threads = backend.threads, backend.max_threads
    # A backend that was selected by name has already rejected the number or printed a warning.
    if settings.threads is not None and max_threads is None and settings.backend == "auto":
        display.warn(f"--threads does not limit the backend {backend.name} on this machine")
    elif threads is not None and max_threads is not None and threads > max_threads:
        display.warn(
            f"{threads} threads are slower than {max_threads}, the number of CPU cores; "
            f"use --threads {max_threads}"
        )

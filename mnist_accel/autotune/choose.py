"""Choose the backend and the threads of a training, by its settings and by measuring."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Backend, Selection, select_backend, select_backends
from mnist_accel._version import __version__
from mnist_accel.autotune.cache import load_measurements, measurements_folder, save_measurements
from mnist_accel.autotune.describe import describe_measurements
from mnist_accel.autotune.measure import (
    NUM_EXAMPLES,
    Candidate,
    ThroughputProbe,
    detect_busy_machine,
    measure_candidates,
)
from mnist_accel.console.phases import Phases, preparation_notes
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.text import abbreviate_home, count

MakeTrainer: TypeAlias = Callable[[TrainSettings, Backend], Trainer]

# Fewer threads are preferred if they reach this fraction of the highest throughput.
CLOSE_TO_BEST = 0.97
# Small enough that a measurement never diverges. The time per step does not depend on it.
PROBE_LR = 1e-6


@dataclass(frozen=True)
class Choice:
    """The backend that a training uses, and the reason.

    Attributes:
        selection: the backend, with its number of threads set.
        measurements: the measurements as text; empty if nothing was measured.
    """

    selection: Selection
    measurements: str = ""

    def describe(self) -> str:
        """Return backend, device, threads and reason in one line."""
        backend, selection = self.selection.backend, self.selection
        device = "" if backend.device is None else f", device {backend.device}"
        threads = "" if backend.threads is None else f", {count(backend.threads, 'thread')}"
        reason = selection.reason
        if self.measurements:
            reason = "; ".join([self.measurements, *selection.passed_over])
        return f"{backend.name}{device}{threads} ({reason})"


def choose_by_settings(settings: TrainSettings) -> Choice:
    """Return the backend that the settings name, without measuring.

    "auto" selects the first backend in order of preference that can run.

    Raises:
        UsageError: the backend is unknown, or does not accept the threads or the device.
        BackendUnavailableError: the backend cannot run here, and no fallback is allowed.
    """
    with usage_errors():
        selection = select_backend(
            settings.backend,
            fallback=_may_fall_back(settings),
            threads=settings.threads,
            device=settings.device,
        )
    return Choice(selection)


def choose_fastest(
    settings: TrainSettings,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    make_trainer: MakeTrainer,
    phases: Phases,
    note: Callable[[str], None],
) -> Choice:
    """Return the fastest of the backends and thread counts that the settings allow.

    The measurements come from the cache if possible.

    Args:
        settings: settings of the training.
        images: training images.
        labels: training labels.
        make_trainer: returns the trainer of a new network on a backend.
        phases: records the time of each phase.
        note: prints a line for the user.

    Raises:
        UsageError: the backend is unknown, does not accept the threads or the device, or the
            settings do not fit the model.
        BackendUnavailableError: the backend cannot run here, and no fallback is allowed.
    """
    batch_size = settings.batch_size or len(labels)
    images, labels = images[:NUM_EXAMPLES], labels[:NUM_EXAMPLES]
    with phases.time("setup"):
        selections = _allowed_selections(settings)
        backends = {name: selection.backend for name, selection in selections.items()}
        candidates = [
            Candidate(name, threads)
            for name, backend in backends.items()
            for threads in _thread_counts(backend, settings.threads, batch_size)
        ]
        if len(candidates) == 1:
            (only,) = candidates
            backends[only.backend].threads = only.threads
            return Choice(selections[only.backend])
        key = _cache_key(settings, backends, candidates, images, batch_size)
        images_per_s = load_measurements(key, candidates)
        source = f"cached in {abbreviate_home(str(measurements_folder()))}"
    if images_per_s is None:
        with phases.time("prepare"), preparation_notes(note):
            probes = {
                name: _make_probe(settings, backend, images, labels, make_trainer)
                for name, backend in backends.items()
            }
        with phases.time("trial"):  # a key in the summary.json of a run
            images_per_s, was_busy = _measure(probes, candidates)
        if was_busy:  # not cached, because the next run may measure without disturbance
            source = "measured on a busy machine"
        else:
            source = "measured"
            save_measurements(key, images_per_s)
    winner = fastest(images_per_s)
    backends[winner.backend].threads = winner.threads
    measurements = f"{source}: {describe_measurements(images_per_s, winner)}"
    return Choice(selections[winner.backend], measurements)


def fastest(images_per_s: Mapping[Candidate, float]) -> Candidate:
    """Return the candidate of the fastest backend with the fewest threads that is close to best."""
    best = max(images_per_s, key=lambda candidate: images_per_s[candidate])
    close = [
        candidate
        for candidate, value in images_per_s.items()
        if candidate.backend == best.backend and value >= CLOSE_TO_BEST * images_per_s[best]
    ]
    return min(close, key=lambda candidate: candidate.threads or 0)


def _may_fall_back(settings: TrainSettings) -> bool:
    """Return whether a CPU backend may replace an unavailable GPU."""
    return settings.backend == "cupy" and not settings.no_fallback


def _allowed_selections(settings: TrainSettings) -> dict[str, Selection]:
    """Return the backends that the settings allow and that can run here, by name."""
    with usage_errors():
        selections = select_backends(
            settings.backend,
            fallback=_may_fall_back(settings),
            threads=settings.threads,
            device=settings.device,
        )
    return {selection.backend.name: selection for selection in selections}


def _thread_counts(backend: Backend, chosen: int | None, batch_size: int) -> Sequence[int | None]:
    """Return the thread counts to try: powers of two, and the maximum.

    A step can use at most one thread per image.
    """
    if backend.max_threads is None:
        return [None]
    if chosen is not None:
        return [chosen]
    maximum = min(backend.max_threads, batch_size)
    return [*(1 << i for i in range((maximum - 1).bit_length())), maximum]


def _make_probe(
    settings: TrainSettings,
    backend: Backend,
    images: NDArray[Any],
    labels: NDArray[Any],
    make_trainer: MakeTrainer,
) -> ThroughputProbe:
    """Return a probe that trains the network of the settings on a backend.

    Its batches are shuffled, also if the training uses the whole set at each step.
    """
    probe_settings = dataclasses.replace(
        settings,
        lr=PROBE_LR,
        schedule="constant",
        sampling="shuffle",
        batch_size=min(settings.batch_size or len(labels), len(labels)),
    )
    trainer = make_trainer(probe_settings, backend)
    return ThroughputProbe(trainer, trainer.prepare(images, labels))


def _measure(
    probes: Mapping[str, ThroughputProbe], candidates: Sequence[Candidate]
) -> tuple[dict[Candidate, float], bool]:
    """Return the images per second by candidate, and whether the machine was busy."""

    def measure(candidate: Candidate, seconds: float) -> float:
        return probes[candidate.backend].measure(candidate.threads, seconds)

    with detect_busy_machine() as was_busy:
        images_per_s = measure_candidates(measure, candidates)
    return images_per_s, was_busy()


def _cache_key(
    settings: TrainSettings,
    backends: Mapping[str, Backend],
    candidates: Iterable[Candidate],
    images: NDArray[Any],
    batch_size: int,
) -> dict[str, Any]:
    """Return everything that the measurements depend on."""
    devices = {name: backend.device_info() for name, backend in backends.items()}
    return {
        "mnist_accel": __version__,
        "devices": {name: info.name for name, info in devices.items()},
        "libraries": {name: info.libraries for name, info in devices.items()},
        "candidates": [[candidate.backend, candidate.threads] for candidate in candidates],
        "model": settings.model,
        "hidden_sizes": list(settings.hidden_sizes),
        "activation": settings.activation,
        "dtype": settings.dtype,
        "optimizer": settings.optimizer,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "batch_size": batch_size,
        # The time of a first layer with sparse (CSR) input depends on the share of nonzero pixels.
        "pixels_not_0": f"{round(10 * np.count_nonzero(images) / images.size)}/10",
    }

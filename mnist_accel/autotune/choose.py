"""Choosing what a training computes on: as the user says, and by a measured trial for the rest."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Backend, Selection, select_backend, select_backends
from mnist_accel._version import __version__
from mnist_accel.autotune.cache import recall, remember, trials_folder
from mnist_accel.autotune.measure import EXAMPLES, Candidate, Copy, race, watch_disturbance
from mnist_accel.console.display import format_pace
from mnist_accel.console.phases import Phases, getting_ready
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.text import abbreviate_home

MakeTrainer: TypeAlias = Callable[[TrainSettings, Backend], Trainer]

# Of the fastest number of threads: one that takes fewer and comes as near is preferred.
CLOSE = 0.97
# Numbers of threads whose figures are told.
MOST_FIGURES = 3
# So small that a trial never diverges; how long a step takes does not depend on it.
TRIAL_LR = 1e-6


@dataclass(frozen=True)
class Choice:
    """What a training computes on, and why.

    Attributes:
        selection: the backend, whose `threads` are chosen.
        measurements: what was measured, in words; empty where nothing was.
    """

    selection: Selection
    measurements: str = ""

    def describe(self) -> str:
        """Return the backend, the device, the threads and the reason in one line."""
        backend, selection = self.selection.backend, self.selection
        count = backend.threads
        threads = "" if count is None else f", {count} thread{'' if count == 1 else 's'}"
        device = "" if backend.device is None else f", device {backend.device}"
        told = "; ".join([self.measurements, *selection.passed_over]) if self.measurements else ""
        return f"{backend.name}{device}{threads} ({told or selection.reason})"


def choose_by_settings(settings: TrainSettings) -> Choice:
    """Return the choice of the user, and nothing else; "auto" is the best that can run.

    Raises:
        UsageError: no backend has this name, or it does not take the threads or the device.
        BackendUnavailableError: it cannot run here, and may not be replaced.
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
    """Return what trains fastest here of all that the user leaves open, remembered or measured.

    Args:
        settings: of the training.
        images: of the training.
        labels: of the images.
        make_trainer: makes a network with its initial weights, and its trainer.
        phases: counts the time.
        note: prints a line for who waits.

    Raises:
        UsageError: no backend has this name, it does not take the threads or the device, or
            settings do not suit the model.
        BackendUnavailableError: it cannot run here, and may not be replaced.
    """
    batch_size = settings.batch_size or len(labels)
    images, labels = images[:EXAMPLES], labels[:EXAMPLES]
    with phases.time("setup"):
        with usage_errors():
            selections = {
                selection.backend.name: selection
                for selection in select_backends(
                    settings.backend,
                    fallback=_may_fall_back(settings),
                    threads=settings.threads,
                    device=settings.device,
                )
            }
        backends = {name: selection.backend for name, selection in selections.items()}
        candidates = [
            Candidate(name, threads)
            for name, backend in backends.items()
            for threads in _thread_counts(backend, settings.threads, batch_size)
        ]
        key = _key(settings, backends, candidates, images, batch_size)
        paces = recall(key, candidates) if len(candidates) > 1 else dict.fromkeys(candidates, 1.0)
    source = f"remembered in {abbreviate_home(str(trials_folder()))}"
    if paces is None:
        with phases.time("prepare"), getting_ready(note):
            copies = {
                name: _copy(settings, backend, images, labels, make_trainer)
                for name, backend in backends.items()
            }
        with phases.time("trial"):
            paces, was_disturbed = _measure(copies, candidates)
        if was_disturbed:  # the next time may be better
            source = "measured on a busy machine"
        else:
            remember(key, paces)
            source = "measured"
    winner = fastest(paces)
    backends[winner.backend].threads = winner.threads
    figures = f"{source}: {_in_words(paces, winner)}" if len(candidates) > 1 else ""
    return Choice(selections[winner.backend], figures)


def fastest(paces: dict[Candidate, float]) -> Candidate:
    """Return the candidate to train with: of the fastest backend, no more threads than it needs."""
    best = max(paces, key=lambda candidate: paces[candidate])
    near = [c for c in paces if c.backend == best.backend and paces[c] >= CLOSE * paces[best]]
    return min(near, key=lambda candidate: candidate.threads or 0)


def _may_fall_back(settings: TrainSettings) -> bool:
    """Say whether the CPU may take the place of a GPU that cannot be used."""
    return settings.backend == "cupy" and not settings.no_fallback


def _copy(
    settings: TrainSettings,
    backend: Backend,
    images: NDArray[Any],
    labels: NDArray[Any],
    make_trainer: MakeTrainer,
) -> Copy:
    """Return a copy of the network on a backend; whole sets become batches of many images."""
    copied = dataclasses.replace(
        settings,
        lr=TRIAL_LR,
        schedule="constant",
        sampling="shuffle",
        batch_size=min(settings.batch_size or len(labels), len(labels)),
    )
    trainer = make_trainer(copied, backend)
    return Copy(trainer, trainer.prepare(images, labels))


def _measure(
    copies: Mapping[str, Copy], candidates: Sequence[Candidate]
) -> tuple[dict[Candidate, float], bool]:
    """Return the images per second of candidates, and whether the machine had other work."""

    def turn(candidate: Candidate, seconds: float) -> float:
        return copies[candidate.backend].turn(candidate.threads, seconds)

    with watch_disturbance() as was_disturbed:
        paces = race(turn, candidates)
    return paces, was_disturbed()


def _thread_counts(backend: Backend, chosen: int | None, batch_size: int) -> Sequence[int | None]:
    """Return the numbers of threads to try: powers of two, and as many as there are.

    A step has no work for more threads than images.
    """
    if backend.max_threads is None:
        return [None]
    if chosen is not None:
        return [chosen]
    most = min(backend.max_threads, batch_size)
    return [*(1 << i for i in range((most - 1).bit_length())), most]


def _key(
    settings: TrainSettings,
    backends: Mapping[str, Backend],
    candidates: Iterable[Candidate],
    images: NDArray[Any],
    batch_size: int,
) -> dict[str, Any]:
    """Return all that the result of a trial depends on."""
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
        # A first layer that leaves out zeros takes as long as there are others.
        "pixels_not_0": f"{round(10 * np.count_nonzero(images) / images.size)}/10",
    }


def _in_words(paces: dict[Candidate, float], winner: Candidate) -> str:
    """Return the figures: of each backend its best, or of a single one those of its threads."""
    order = sorted(paces, key=lambda candidate: paces[candidate], reverse=True)
    order = [winner, *(candidate for candidate in order if candidate != winner)]
    if len({candidate.backend for candidate in order}) > 1:
        best = {candidate.backend: candidate for candidate in reversed(order)}
        order = [candidate for candidate in order if best[candidate.backend] == candidate]
    (first, *others), one = order[:MOST_FIGURES], len({c.backend for c in order}) == 1
    words = [f"{first.backend} {format_pace(paces[first])} images/s{_with(first, ' threads')}"]
    for other in others:
        name = "" if one else f"{other.backend} "
        words.append(f"{name}{format_pace(paces[other])}{_with(other)}")
    return ", ".join(words)


def _with(candidate: Candidate, unit: str = "") -> str:
    """Return the number of threads in words, if there is one."""
    threads = candidate.threads
    return "" if threads is None else f" with {threads}{unit.rstrip('s') if threads == 1 else unit}"

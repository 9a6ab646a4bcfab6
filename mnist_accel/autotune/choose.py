"""Choose the backend and the threads of a training, by its settings and by measuring."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends import Backend, Selection, select_backend, select_backends
from mnist_accel._version import __version__
from mnist_accel.autotune.cache import load_measurements, measurements_folder, save_measurements
from mnist_accel.autotune.measure import (
    NUM_EXAMPLES,
    Candidate,
    ThroughputProbe,
    detect_busy_machine,
    measure_candidates,
)
from mnist_accel.console.phases import Phases
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.text import abbreviate_home, count

MakeTrainer: TypeAlias = Callable[[TrainSettings, Backend], Trainer]
T = TypeVar("T")

# A backend that compiles no epochs is chosen if it is faster than the others by this factor. A
# smaller advantage is often a disturbance by other programs.
CLEARLY_FASTER = 1.25
# The same on a busy machine, where the measurements of a candidate differ by a factor of ten.
CLEARLY_FASTER_IF_BUSY = 4.0
# Fewer threads are preferred if they reach this fraction of the highest throughput.
CLOSE_TO_BEST = 0.97
# Small enough that a measurement never diverges. The time per step does not depend on it.
PROBE_LR = 1e-6
# The throughput depends on these, and on the hidden sizes and the batch size.
RELEVANT_SETTINGS = ("model", "activation", "dtype", "optimizer", "momentum", "weight_decay")
# Seconds until the threads of a BLAS library stop waiting actively. After 0.04 s, those of OpenBLAS
# still took the cores from Numba; after 0.1 s, none of twelve measurements was disturbed.
PAUSE_S = 0.1
MAX_SHOWN = 3  # measurements in the description of a choice


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
    return Choice(_select(select_backend, settings))


def choose_fastest(
    settings: TrainSettings,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    make_trainer: MakeTrainer,
    phases: Phases,
) -> Choice:
    """Return the fastest of the backends and thread counts that the settings allow.

    They are measured on the training images and labels, unless the cache has measurements. `phases`
    records the time of the phases "setup", "prepare" and "trial".

    Raises:
        UsageError: the backend is unknown, does not accept the threads or the device, or the
            settings do not fit the model.
        BackendUnavailableError: the backend cannot run here, and no fallback is allowed.
    """
    batch_size = settings.batch_size or len(labels)
    if settings.iterations:
        total_images = settings.iterations * batch_size
    else:
        total_images = (settings.epochs or 0) * len(labels)
    images, labels = images[:NUM_EXAMPLES], labels[:NUM_EXAMPLES]
    with phases.time("setup"):
        selections = {s.backend.name: s for s in _select(select_backends, settings)}
        backends = {name: selection.backend for name, selection in selections.items()}
        candidates = [
            Candidate(name, threads)
            for name, backend in backends.items()
            for threads in _thread_counts(backend, settings.threads, batch_size)
        ]
        if len(candidates) == 1:
            return Choice(_with_threads(selections, candidates[0]))
        key = _cache_key(settings, backends, candidates, images, batch_size)
        cached = load_measurements(key, candidates)
        source = f"cached in {abbreviate_home(str(measurements_folder()))}"
    eager = [name for name, backend in backends.items() if not backend.compiles_epochs]

    @cache
    def probe(name: str) -> ThroughputProbe:
        return _make_probe(settings, backends[name], images, labels, make_trainer)

    if cached is None and settings.backend == "auto":
        short = _shorter_than_compiling(backends, candidates, total_images, probe=probe)
        if short is not None:
            winner, reason = short
            return Choice(_with_threads(selections, winner), reason)
    margin = CLEARLY_FASTER
    if cached is not None:
        turns = {candidate: [value] for candidate, value in cached.items()}
    else:
        with phases.time("prepare"):
            probes = {name: probe(name) for name in backends}
        with phases.time("trial"), detect_busy_machine() as was_busy:
            turns = measure_candidates(partial(_measure, probes), candidates, before_turn=_pauses())
        if was_busy():  # not cached, because the next run may measure without disturbance
            source = "measured on a busy machine"
            margin = CLEARLY_FASTER_IF_BUSY
        else:
            source = "measured"
            save_measurements(key, _best_turns(turns))
    winner = fastest(turns, eager=eager, margin=margin)
    measurements = f"{source}: {describe_measurements(_best_turns(turns), winner)}"
    return Choice(_with_threads(selections, winner), measurements)


def _shorter_than_compiling(
    backends: Mapping[str, Backend],
    candidates: Sequence[Candidate],
    total_images: int,
    *,
    probe: Callable[[str], ThroughputProbe],
) -> tuple[Candidate, str] | None:
    """Return an eager candidate that ends the run before another backend has compiled, if any.

    Args:
        backends: the backends by name.
        candidates: the candidates.
        total_images: images of the run, each counted as often as it is used.
        probe: returns the probe of the backend with a name.

    Returns:
        The candidate, and the reason as text.
    """
    compile_s = [b.compile_seconds for b in backends.values() if b.compiles_epochs]
    eager = [c for c in candidates if not backends[c.backend].compiles_epochs]
    if not eager or not compile_s or not min(compile_s):
        return None
    probes = {c.backend: probe(c.backend) for c in eager}
    turns = measure_candidates(partial(_measure, probes), eager, before_turn=_pauses())
    winner = fastest(turns)
    images_per_s = max(turns[winner])
    seconds = total_images / images_per_s
    if seconds >= min(compile_s):
        return None
    return winner, (
        f"a short run: {seconds:.1f} s at {format_throughput(images_per_s)} images/s; compiling "
        f"for another backend takes about {min(compile_s):.0f} s"
    )


def _with_threads(selections: Mapping[str, Selection], winner: Candidate) -> Selection:
    """Return the selection of a candidate, with its number of threads set."""
    selection = selections[winner.backend]
    selection.backend.threads = winner.threads
    return selection


def fastest(
    turns: Mapping[Candidate, Sequence[float]],
    *,
    eager: Collection[str] = (),
    margin: float = CLEARLY_FASTER,
) -> Candidate:
    """Return the fastest backend with its smallest number of threads that is close to the fastest.

    Args:
        turns: images per second in each turn of each candidate.
        eager: names of the backends that compile no epochs.
        margin: an eager candidate is chosen only if it is faster than the best compiled one by this
            factor, both in its best turn and in its median turn.
    """
    images_per_s = _best_turns(turns)
    best = max(turns, key=images_per_s.__getitem__)
    compiled = [candidate for candidate in turns if candidate.backend not in eager]
    if best not in compiled and compiled:
        best_compiled = max(compiled, key=images_per_s.__getitem__)
        if any(f(turns[best]) < margin * f(turns[best_compiled]) for f in (max, median)):
            best = best_compiled
    close = [
        candidate
        for candidate, value in images_per_s.items()
        if candidate.backend == best.backend and value >= CLOSE_TO_BEST * images_per_s[best]
    ]
    return min(close, key=lambda candidate: candidate.threads or 0)


def _best_turns(turns: Mapping[Candidate, Sequence[float]]) -> dict[Candidate, float]:
    """Return the images per second of each candidate in its best turn."""
    return {candidate: max(values) for candidate, values in turns.items()}


def describe_measurements(images_per_s: Mapping[Candidate, float], winner: Candidate) -> str:
    """Return the winner and up to two others with their images per second.

    If several backends were measured, the text shows the fastest candidate of each backend,
    otherwise the fastest candidates: "numba 410 k images/s with 2 threads, numpy 160 k with 1".
    """
    ranked = sorted(images_per_s, key=lambda candidate: -images_per_s[candidate])
    shown = list(dict.fromkeys([winner, *ranked]))
    several_backends = len({candidate.backend for candidate in shown}) > 1
    if several_backends:
        best = {candidate.backend: candidate for candidate in reversed(shown)}
        shown = [candidate for candidate in shown if best[candidate.backend] == candidate]
    parts = []
    for candidate in shown[:MAX_SHOWN]:
        part = format_throughput(images_per_s[candidate])
        if candidate == winner or several_backends:
            part = f"{candidate.backend} {part}"
        if candidate == winner:
            part += " images/s"
        if candidate.threads is not None:
            number = count(candidate.threads, "thread")
            part += f" with {number if candidate == winner else candidate.threads}"
        parts.append(part)
    return ", ".join(parts)


def format_throughput(images_per_s: float) -> str:
    """Format images per second with three digits: 410 k, 31.2 k, 4.37 k, 850."""
    for unit, letter in ((1e6, " M"), (1e3, " k")):
        if images_per_s >= 0.9995 * unit:
            digits = f"{images_per_s / unit:.3g}"
            return f"{float(digits):g}{letter}"
    return f"{images_per_s:.3g}"


def _select(select: Callable[..., T], settings: TrainSettings) -> T:
    """Return the result of `select_backend` or `select_backends` for the settings."""
    with usage_errors():
        return select(
            settings.backend,
            fallback=settings.backend == "cupy" and not settings.no_fallback,
            threads=settings.threads,
            device=settings.device,
        )


def _thread_counts(backend: Backend, chosen: int | None, batch_size: int) -> Sequence[int | None]:
    """Return the thread counts to try: powers of two, and the maximum.

    The maximum is at most `batch_size`, because a step uses at most one thread per image.
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
    """Return a probe that trains the network of the settings on a backend, in shuffled batches."""
    probe_settings = dataclasses.replace(
        settings,
        lr=PROBE_LR,
        schedule="constant",
        sampling="shuffle",
        batch_size=min(settings.batch_size or len(labels), len(labels)),
    )
    trainer = make_trainer(probe_settings, backend)
    trainer.model.prepare()  # the run also predicts, and the user should wait for the compiler once
    return ThroughputProbe(trainer, trainer.prepare(images, labels))


def _measure(probes: Mapping[str, ThroughputProbe], candidate: Candidate, seconds: float) -> float:
    return probes[candidate.backend].measure(candidate.threads, seconds)


def _pauses() -> Callable[[Candidate], None]:
    """Return a function that pauses before the first turn and between two backends.

    Threads of another backend may still wait actively, and would take the cores.
    """
    previous = ""

    def pause(candidate: Candidate) -> None:
        nonlocal previous
        if candidate.backend != previous:
            time.sleep(PAUSE_S)
        previous = candidate.backend

    return pause


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
        **{name: getattr(settings, name) for name in RELEVANT_SETTINGS},
        "hidden_sizes": list(settings.hidden_sizes),
        "batch_size": batch_size,
        # The time of a first layer with sparse (CSR) input depends on the share of nonzero pixels.
        "pixels_not_0": f"{round(10 * np.count_nonzero(images) / images.size)}/10",
    }

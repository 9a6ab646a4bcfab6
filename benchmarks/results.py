"""What result files say, as the comparison and the report work with it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.statistics import Rounds, Spread, spread

FORMAT = 2  # of result files
TIMED_LEVELS = ("training", "inference", "operations")
DEVICES = ("cpu", "gpu")
SWEEPS = ("recipe", "batch", "width", "depth")
PHASES = ("setup", "transfer", "compile", "first_call")

# What a row is about: level, name of the case, contender.
RowKey: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class Blas:
    """A BLAS library, and how many threads it uses."""

    name: str
    version: str | None
    threads: int


@dataclass(frozen=True)
class Host:
    """Where and with what was measured; None where a thing does not exist or is not known."""

    cpu: str
    cores: int
    threads: int
    vector_width_bits: int | None
    memory_bytes: int | None
    gpu: str | None
    gpu_driver: str | None
    os: str
    python: str
    blas: tuple[Blas, ...]
    numba_threading_layer: str | None
    load_average: tuple[float, ...]
    versions: Mapping[str, str]
    commit: str | None
    dirty: bool | None


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: as reports show it.
        is_peer: whether it is somebody else's.
        device: where it computes, "cpu" or "gpu".
        versions: of the libraries that do the work.
        threads: that it may use.
    """

    name: str
    is_peer: bool
    device: str
    versions: Mapping[str, str]
    threads: int


@dataclass(frozen=True)
class Ceilings:
    """The best that a device showed in this run, and how that was measured."""

    flops_per_s: float
    bytes_per_s: float
    how: Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """What is done, whoever does it.

    Attributes:
        level: "training", "inference" or "operations".
        name: as reports show it.
        network: name of the network, or of the operation.
        batch: images at a time.
        width: units of the largest hidden linear layer, if there is one.
        depth: layers with weights.
        sweeps: the sweeps that it belongs to: "recipe", "batch", "width", "depth".
    """

    level: str
    name: str
    network: str
    batch: int
    width: int | None
    depth: int | None
    sweeps: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """Largest relative difference from what was checked against, and its bound."""

    difference: float
    tolerance: float
    against: str


@dataclass(frozen=True)
class Measurement:
    """What one contender needed for one case.

    Attributes:
        case: what was done.
        contender: by whom.
        rounds: seconds of each round, by pass.
        images: in a round; 0 where the case has none.
        steps: updates in a round; 0 where there are none.
        flops: of a round, in dense arithmetic.
        bytes: moved in a round, likewise.
        phases: seconds of what comes before the steady state, by pass and name.
        check: the worst of the passes.
        peak_host_bytes: of a process that did this case alone; None where not measured.
        peak_device_bytes: likewise, on the device.
    """

    case: Case
    contender: str
    rounds: Rounds
    images: int
    steps: int
    flops: float
    bytes: float
    phases: Mapping[Hashable, Mapping[str, float]]
    check: Check
    peak_host_bytes: int | None
    peak_device_bytes: int | None

    @property
    def key(self) -> RowKey:
        """Level, case and contender."""
        return self.case.level, self.case.name, self.contender

    @property
    def calls(self) -> float:
        """How many times a round does the case: steps of a training, batches of an inference."""
        return self.steps or max(self.images / self.case.batch, 1.0)

    @cached_property
    def phases_s(self) -> Mapping[str, float]:
        """Seconds of each phase before the steady state: the median of the passes."""
        seconds = {
            name: [phases[name] for phases in self.phases.values() if name in phases]
            for name in PHASES
        }
        return {name: float(np.median(values)) for name, values in seconds.items() if values}

    @cached_property
    def call_rounds(self) -> Rounds:
        """Seconds of one call in each round, by pass; comparable between contenders."""
        return {label: seconds / self.calls for label, seconds in self.rounds.items()}

    @cached_property
    def call_seconds(self) -> Spread:
        """Seconds of one call."""
        return spread(self.call_rounds)

    @cached_property
    def round_seconds(self) -> Spread:
        """Seconds of one round; of a training: one epoch."""
        return spread(self.rounds)


@dataclass(frozen=True)
class Missing:
    """A row without a time, and why: absent (it cannot run here) or failed (a wrong result).

    Its level may also be "accuracy".
    """

    level: str
    case: str
    contender: str
    reason: str

    @property
    def key(self) -> RowKey:
        """Level, case and contender."""
        return self.level, self.case, self.contender


@dataclass(frozen=True)
class AccuracyRun:
    """Validation accuracy after each epoch of a training, and the seconds until then.

    It ended when it met its target: of a higher accuracy, it says nothing.
    """

    network: str
    contender: str
    batch: int
    seed: int
    target: float
    seconds: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Network, batch, contender and seed."""
        return self.network, self.batch, self.contender, self.seed


@dataclass(frozen=True)
class Run:
    """How the measuring went: profile, settings, and whether it came to its end."""

    profile: str
    levels: tuple[str, ...]
    passes: int
    seed: int
    threads: int
    complete: bool
    started: str
    finished: str


@dataclass(frozen=True)
class ResultSet:
    """All that the files of one host say; the ceilings are by the name of the device."""

    paths: tuple[Path, ...]
    runs: tuple[Run, ...]
    host: Host
    contenders: Mapping[str, Contender]
    ceilings: Mapping[str, Ceilings]
    measurements: Mapping[RowKey, Measurement]
    absent: tuple[Missing, ...]
    failed: tuple[Missing, ...]
    accuracy: tuple[AccuracyRun, ...]

    def cases(self, level: str) -> list[Case]:
        """Return the measured cases of a level, in their order."""
        cases = (measurement.case for measurement in self.measurements.values())
        return list(dict.fromkeys(case for case in cases if case.level == level))

    def of_case(self, case: Case) -> list[Measurement]:
        """Return the measurements of a case, in the order of the contenders."""
        keys = ((case.level, case.name, contender) for contender in self.contenders)
        return [self.measurements[key] for key in keys if key in self.measurements]

    @cached_property
    def on_gpu(self) -> frozenset[str]:
        """The contenders that compute on a GPU, and have at least one time."""
        return frozenset(
            measurement.contender
            for measurement in self.measurements.values()
            if self.contenders[measurement.contender].device == "gpu"
        )

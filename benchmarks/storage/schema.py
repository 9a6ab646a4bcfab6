"""The format of result files, as typed structs that `msgspec` checks while it reads a file.

A result file is the JSON of pytest-benchmark. In each entry of its list `benchmarks`, this suite
adds facts about the row to `extra_info`. Its key `mnist_accel` has the facts about the whole run.
Fields that are not listed here are ignored.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from mnist_accel.util.schema import Amount, AtLeastOne, Count, Finite, Positive

FORMAT = 3  # version of the format of result files
READABLE_FORMATS = (2, FORMAT)  # 2 was written by release 0.1.0
TimedLevel: TypeAlias = Literal[
    "training", "inference", "operations", "start", "population", "estimator"
]
Level: TypeAlias = TimedLevel | Literal["accuracy"]
Device: TypeAlias = Literal["cpu", "gpu"]
Sweep: TypeAlias = Literal[
    "recipe",
    "batch",
    "width",
    "depth",
    "raw",
    "step",
    "full",
    "features",
    "threads",
    "simplechains",
    "members",
]
TIMED_LEVELS: tuple[TimedLevel, ...] = (
    "training",
    "inference",
    "operations",
    "start",
    "population",
    "estimator",
)
PHASES = ("setup", "transfer", "compile", "first_call")

# Ranges within which ratios and logarithms of these numbers are finite.
Seconds: TypeAlias = Annotated[float, Meta(ge=1e-12, le=1e9)]
Duration: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Rate: TypeAlias = Annotated[float, Meta(ge=1, le=1e24)]
Work: TypeAlias = Annotated[float, Meta(ge=0, le=1e24)]

# Identifies a row: level, name of the case, contender.
RowKey: TypeAlias = tuple[str, str, str]


class ThreadPool(Struct, frozen=True):
    """A library that has its own threads, such as a BLAS."""

    name: str
    version: str | None
    threads: Count


class Host(Struct, frozen=True):
    """The machine and the software; a fact that is unknown is None."""

    cpu: str
    cores: AtLeastOne
    threads: AtLeastOne
    vector_width_bits: Count | None
    memory_bytes: Count | None
    gpu: str | None
    gpu_driver: str | None
    os: str
    python: str
    blas: tuple[ThreadPool, ...]
    numba_threading_layer: str | None
    load_average: tuple[Amount, ...]
    versions: Mapping[str, str]
    commit: str | None
    dirty: bool | None


class ContenderFacts(Struct, frozen=True):
    """What a result file states about a contender.

    Attributes:
        is_baseline: whether it is another library.
        versions: versions of the libraries that do the work.
        threads: number of threads that it may use.
        device: where it computes.
    """

    is_baseline: bool = field(name="is_peer")
    versions: Mapping[str, str]
    threads: Count
    device: Device = "cpu"


class Ceilings(Struct, frozen=True):
    """The best rates that a device showed during the run.

    Attributes:
        flops_per_s: float32 multiplications and additions.
        bytes_per_s: bytes read and written.
        how: how each rate was measured, by the name of its field.
    """

    flops_per_s: Rate
    bytes_per_s: Rate
    how: Mapping[Literal["flops_per_s", "bytes_per_s"], str]


class Check(Struct, frozen=True):
    """The largest relative difference from the computation named `against`, and its bound."""

    difference: Amount
    tolerance: Positive
    against: str


class Missing(Struct, frozen=True):
    """A row without a time, and the reason."""

    level: Level
    case: str
    contender: str
    reason: str

    @property
    def key(self) -> RowKey:
        """Level, case and contender."""
        return self.level, self.case, self.contender


class AccuracyRun(Struct, frozen=True):
    """Validation accuracy after each epoch of a training, and the seconds of training until then.

    The training ended as soon as it reached its target, so it has no result for higher targets.
    """

    network: str
    contender: str
    batch: AtLeastOne
    seed: Count
    target: Amount
    seconds: tuple[Seconds, ...]
    accuracy: tuple[Amount, ...]

    def __post_init__(self) -> None:
        if len(self.seconds) != len(self.accuracy):
            raise ValueError("`seconds` and `accuracy` must have the same length")
        if list(self.seconds) != sorted(self.seconds):
            raise ValueError("`seconds` must not decrease")

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Network, batch, contender and seed."""
        return self.network, self.batch, self.contender, self.seed


class Case(Struct, frozen=True):
    """What is measured, independent of the contender.

    Attributes:
        name: name in reports.
        network: name of the network or of the operation.
        batch: images per step or call.
        width: units of the largest hidden linear layer; None if there is none.
        depth: number of layers with weights.
        sweeps: the series that the case belongs to.
        members: number of networks that are trained at once.
    """

    level: TimedLevel
    name: str = field(name="case")
    network: str
    batch: AtLeastOne
    width: AtLeastOne | None
    depth: Count | None
    sweeps: tuple[Sweep, ...] = field(name="sweep")
    members: AtLeastOne = 1

    @property
    def order(self) -> tuple[int, str, int, int, int, int, str]:
        """Key that sorts by level, network and sizes."""
        level, sizes = TIMED_LEVELS.index(self.level), (self.width or 0, self.depth or 0)
        return (level, self.network, *sizes, self.batch, self.members, self.name)


class Fit(Struct, frozen=True):
    """The result of a fit of a scikit-learn estimator.

    Attributes:
        score: accuracy or R² on the test examples.
        epochs: epochs until it converged, or reached the maximum number.
    """

    score: Finite
    epochs: AtLeastOne


class RowInfo(Case, frozen=True, kw_only=True):
    """The `extra_info` of one measurement: one pass of one contender in one case.

    Attributes:
        images: images per round; 0 if the case has none.
        steps: optimizer updates per round, of each member; 0 if nothing is trained.
        flops: floating-point operations per round, in dense arithmetic.
        bytes: bytes that each round must move, in dense arithmetic.
        phases_s: seconds of each of `PHASES`.
        peak_host_bytes: peak memory of a process that runs only this row; None if not measured.
        peak_device_bytes: peak GPU memory of that process; None if not measured.
        process: number of the group of processes, one per contender, in which the pass was
            measured; None in files of release 0.1.0, which measured in one process.
        fit: the result of the pass in the level `estimator`; None in others.
        barrier_ns: nanoseconds in which two threads passed a barrier before the turn; None if not
            measured.
    """

    contender: str
    is_baseline: bool = field(name="is_peer")
    pass_number: Count = field(name="pass")
    images: Count
    steps: Count
    flops: Work
    bytes: Work
    phases_s: Mapping[str, Duration]
    check: Check
    peak_host_bytes: Count | None
    peak_device_bytes: Count | None
    process: Count | None = None
    fit: Fit | None = None
    barrier_ns: Positive | None = None

    def __post_init__(self) -> None:
        if self.level in ("training", "inference") and not self.images:
            raise ValueError("`images` must be at least 1 in trainings and predictions")

    @property
    def case(self) -> Case:
        """The case without the contender and its figures."""
        return Case(*(getattr(self, name) for name in Case.__struct_fields__))


class Stats(Struct, frozen=True):
    """The statistics of pytest-benchmark, of which only the seconds of each round are read."""

    data: Annotated[tuple[Seconds, ...], Meta(min_length=1)]


class Entry(Struct, frozen=True):
    """An entry of pytest-benchmark's list of measurements."""

    extra_info: RowInfo
    stats: Stats


class Run(Struct, frozen=True):
    """What a result file states about its whole run, under the key `mnist_accel`.

    Attributes:
        seed: seed of the order of the measurements.
        threads: cores that each contender may use.
        complete: whether the run ended normally.
        absent: rows that cannot be measured on this machine.
        failed: rows with a wrong result or an error.
    """

    format: int
    profile: str
    levels: tuple[str, ...]
    passes: AtLeastOne
    seed: Count
    threads: AtLeastOne
    complete: bool
    started: str
    finished: str
    host: Host
    contenders: Mapping[str, ContenderFacts]
    ceilings: Mapping[Device, Ceilings]
    absent: tuple[Missing, ...]
    failed: tuple[Missing, ...]
    accuracy: tuple[AccuracyRun, ...]

    def __post_init__(self) -> None:
        if self.format not in READABLE_FORMATS:
            known = " and ".join(map(str, READABLE_FORMATS))
            raise ValueError(f"has format {self.format}; this version reads formats {known}")
        if "cpu" not in self.ceilings:
            raise ValueError("`ceilings` must contain those of the cpu")
        named = {row.contender for row in (*self.absent, *self.failed)}
        named |= {curve.contender for curve in self.accuracy}
        if unknown := named - self.contenders.keys():
            raise ValueError(f"`contenders` does not contain {', '.join(sorted(unknown))}")


class ResultFile(Struct, frozen=True):
    """A result file of pytest-benchmark that this suite has completed."""

    benchmarks: tuple[Entry, ...]
    run: Run = field(name="mnist_accel")

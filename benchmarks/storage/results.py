"""Reads one or more result files, and joins the passes of each row.

Files can be merged if they come from the same machine and the same state of the code. Their passes
then count as passes of one run.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from benchmarks.statistics import Rounds, Spread, Turn, spread
from benchmarks.storage.journal import MAX_BYTES, SUFFIX, Journal
from benchmarks.storage.schema import (
    PHASES,
    AccuracyRun,
    Case,
    Ceilings,
    ContenderFacts,
    Device,
    Entry,
    Fit,
    Host,
    Missing,
    ResultFile,
    RowInfo,
    RowKey,
    Run,
)
from mnist_accel.errors import DataError, UsageError, file_errors
from mnist_accel.util.input_files import read_regular, unpack_gzip
from mnist_accel.util.schema import convert, decode_json


@dataclass(frozen=True)
class Measurement:
    """All times of one contender in one case.

    Attributes:
        info: the facts that all passes share. Its check is the one closest to its tolerance, and
            its memory peaks are the highest of all passes.
        rounds: seconds of each round, by turn.
        phases: seconds of each phase before the steady state, by turn.
        fits: results of the fits of an estimator, by seed. A second run has the same seeds and
            therefore the same results.
    """

    info: RowInfo
    rounds: Rounds
    phases: Mapping[Turn, Mapping[str, float]]
    fits: Mapping[int, Fit]

    @cached_property
    def case(self) -> Case:
        """The case, without the contender."""
        return self.info.case

    @property
    def contender(self) -> str:
        """Name of the contender."""
        return self.info.contender

    @property
    def key(self) -> RowKey:
        """Level, case and contender."""
        return self.info.level, self.info.name, self.info.contender

    @property
    def calls(self) -> float:
        """Steps per round of a training; batches per round of an inference or operation."""
        return self.info.steps or max(self.info.images / self.info.batch, 1.0)

    @cached_property
    def phases_s(self) -> Mapping[str, float]:
        """Median over the turns of the seconds of each phase before the steady state."""
        seconds = {
            name: [phases[name] for phases in self.phases.values() if name in phases]
            for name in PHASES
        }
        return {name: float(np.median(values)) for name, values in seconds.items() if values}

    @cached_property
    def call_rounds(self) -> Rounds:
        """Seconds per call in each round, by turn.

        Contenders are compared by these, because the number of calls per round may differ.
        """
        return {label: seconds / self.calls for label, seconds in self.rounds.items()}

    @cached_property
    def call_seconds(self) -> Spread:
        """Seconds per call."""
        return spread(self.call_rounds)

    @cached_property
    def round_seconds(self) -> Spread:
        """Seconds per round; for a training, per epoch."""
        return spread(self.rounds)


@dataclass(frozen=True)
class ResultSet:
    """The merged result files of one machine.

    Attributes:
        ceilings: the peak rates by device.
        barriers_ns: nanoseconds of a barrier before each turn for which it was measured.
    """

    paths: tuple[Path, ...]
    runs: tuple[Run, ...]
    host: Host
    contenders: Mapping[str, ContenderFacts]
    ceilings: Mapping[Device, Ceilings]
    measurements: Mapping[RowKey, Measurement]
    absent: tuple[Missing, ...]
    failed: tuple[Missing, ...]
    accuracy: tuple[AccuracyRun, ...]
    barriers_ns: tuple[float, ...]

    def cases(self, level: str) -> list[Case]:
        """Return the measured cases of a level, sorted by network and sizes."""
        cases = (measurement.case for measurement in self.measurements.values())
        return list(dict.fromkeys(case for case in cases if case.level == level))

    def of_case(self, case: Case) -> list[Measurement]:
        """Return the measurements of a case, in the order of the contenders."""
        keys = ((case.level, case.name, contender) for contender in self.contenders)
        return [self.measurements[key] for key in keys if key in self.measurements]

    @cached_property
    def on_gpu(self) -> frozenset[str]:
        """The contenders that compute on a GPU and have at least one measurement."""
        return frozenset(
            measurement.contender
            for measurement in self.measurements.values()
            if self.contenders[measurement.contender].device == "gpu"
        )


def load_results(paths: Sequence[Path]) -> ResultSet:
    """Read result files or journals of one machine and one state of the code, and merge them.

    Raises:
        UsageError: a file cannot be read, has another format, contradicts itself or cannot be
            merged with the others.
    """
    if not paths:
        raise UsageError("no result file given; make one with: python -m benchmarks run")
    repeated = [path for index, path in enumerate(paths) if path in paths[:index]]
    if repeated:
        raise UsageError(f"{repeated[0]} is given twice; give each file once")
    files = [read_run(path) for path in paths]
    runs = tuple(file.run for file in files)
    for one, other in combinations(zip(paths, runs, strict=True), 2):
        _check_mergeable(*one, *other)
    measurements = _measurements(paths, files)
    failed = _unique(row for run in runs for row in run.failed)
    failed_keys = {row.key for row in failed}
    absent = _unique(row for run in runs for row in run.absent)
    loads = tuple(load for run in runs for load in run.host.load_average)
    return ResultSet(
        paths=tuple(paths),
        runs=runs,
        host=msgspec.structs.replace(runs[0].host, load_average=loads),
        contenders={name: facts for run in runs for name, facts in run.contenders.items()},
        ceilings=_best_ceilings(runs),
        # A row that failed in one pass has no time, even if other passes succeeded.
        measurements={key: row for key, row in measurements.items() if key not in failed_keys},
        absent=tuple(row for row in absent if row.key not in {*measurements, *failed_keys}),
        failed=failed,
        accuracy=_unique(row for run in runs for row in run.accuracy),
        barriers_ns=tuple(
            ns
            for file in files
            for entry in file.benchmarks
            if (ns := entry.extra_info.barrier_ns) is not None
        ),
    )


def read_run(path: Path) -> ResultFile:
    """Return the content of a result file, or of the journal of an unfinished run.

    Raises:
        UsageError: the file cannot be read or has another format.
    """
    name, kind = str(path), "a result file of `python -m benchmarks run`"
    try:
        if path.name.endswith(SUFFIX):
            return convert(Journal.read(path).document(), ResultFile)
        with file_errors(f"read {path}"):
            content = read_regular(path, max_bytes=MAX_BYTES)
        if path.suffix == ".gz":
            content = unpack_gzip(content, max_bytes=MAX_BYTES + 1, name=name)
        if len(content) > MAX_BYTES:
            raise UsageError(f"{path} unpacks to more than the maximum of {MAX_BYTES:,} bytes")
        return decode_json(content, ResultFile, name=name, kind=kind)
    except DataError as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise UsageError(f"{path} is not {kind}: {error}") from error


def _check_mergeable(first_path: Path, first: Run, path: Path, run: Run) -> None:
    """Raise `UsageError` unless both runs have the same machine and the same library versions.

    Runs that measured the same level must also have the same code.
    """
    facts = ["cpu", "cores", "threads", "gpu", "python"]
    if {*first.levels} & {*run.levels}:
        facts += ["commit", "dirty"]
    pairs = [(name, getattr(first.host, name), getattr(run.host, name)) for name in facts]
    pairs += [
        (f"the versions or threads of {name}", first.contenders[name], run.contenders[name])
        for name in first.contenders
        if name in run.contenders
    ]
    for name, before, after in pairs:
        if before != after:
            values = "" if name.startswith("the ") else f" ({before} and {after})"
            raise UsageError(
                f"{first_path} and {path} cannot be merged: {name} differs{values}; "
                "report them separately"
            )


def _measurements(paths: Sequence[Path], files: Sequence[ResultFile]) -> dict[RowKey, Measurement]:
    """Return the measurements of all files, each with its passes joined, sorted by case."""
    cases: dict[tuple[str, str], Case] = {}
    measurements: dict[RowKey, Measurement] = {}
    for path, file in zip(paths, files, strict=True):
        for index, entry in enumerate(file.benchmarks):
            try:
                _check_contender(entry.extra_info, file.run)
                later = _measurement(path, entry)
                case = cases.setdefault((later.case.level, later.case.name), later.case)
                _check_same(
                    case, later.case, ("network", "batch", "width", "depth", "sweeps", "members")
                )
                earlier = measurements.get(later.key)
                measurements[later.key] = later if earlier is None else _join(earlier, later)
            except ValueError as error:
                raise UsageError(f"{path}: benchmarks[{index}].extra_info: {error}") from error
    ordered = sorted(measurements.values(), key=lambda measurement: measurement.case.order)
    return {measurement.key: measurement for measurement in ordered}


def _check_contender(info: RowInfo, run: Run) -> None:
    facts = run.contenders.get(info.contender)
    if facts is None:
        known = ", ".join(run.contenders)
        raise ValueError(
            f"contender is {info.contender!r}, but mnist_accel.contenders contains only {known}"
        )
    if facts.is_baseline != info.is_baseline:
        raise ValueError(
            f"is_peer is {info.is_baseline}, but that of mnist_accel.contenders.{info.contender} "
            f"is {facts.is_baseline}"
        )


def _measurement(path: Path, entry: Entry) -> Measurement:
    """Return the measurement of a row in one pass."""
    info = entry.extra_info
    # Passes with the same number in different files are different passes. Release 0.1.0 measured
    # all passes in one process; its passes are as independent as its files can show.
    process = info.pass_number if info.process is None else info.process
    label = Turn((path, process), (path, info.pass_number))
    phases = {name: info.phases_s[name] for name in PHASES if name in info.phases_s}
    fits = {} if info.fit is None else {info.pass_number: info.fit}
    return Measurement(info, {label: np.array(entry.stats.data)}, {label: phases}, fits)


def _join(earlier: Measurement, later: Measurement) -> Measurement:
    """Return a measurement with the passes of two measurements of the same row.

    Raises:
        ValueError: a pass is in both, or their facts differ.
    """
    if not {turn.number for turn in later.rounds}.isdisjoint(
        turn.number for turn in earlier.rounds
    ):
        raise ValueError(
            f"pass {later.info.pass_number} occurs twice for {later.contender} in {later.case.name}"
        )
    later = _with_images(later, earlier.info.images)
    old, new = earlier.info, later.info
    _check_same(old, new, ("images", "steps", "flops", "bytes"))
    info = msgspec.structs.replace(
        old,
        check=max(old.check, new.check, key=lambda check: check.difference / check.tolerance),
        peak_host_bytes=_max(old.peak_host_bytes, new.peak_host_bytes),
        peak_device_bytes=_max(old.peak_device_bytes, new.peak_device_bytes),
    )
    return Measurement(
        info,
        {**earlier.rounds, **later.rounds},
        {**earlier.phases, **later.phases},
        {**earlier.fits, **later.fits},
    )


def _with_images(measurement: Measurement, images: int) -> Measurement:
    """Return the measurement scaled to this number of images per round.

    The epochs of slow contenders are shortened to save time. Each run chooses their length, so the
    lengths in two files may differ.
    """
    info = measurement.info
    if info.images in (0, images):
        return measurement
    factor = images / info.images
    return replace(
        measurement,
        info=msgspec.structs.replace(
            info,
            images=images,
            steps=round(info.steps * factor),
            flops=info.flops * factor,
            bytes=info.bytes * factor,
        ),
        rounds={label: seconds * factor for label, seconds in measurement.rounds.items()},
    )


def _check_same(earlier: object, later: object, names: Iterable[str]) -> None:
    for name in names:
        before, after = getattr(earlier, name), getattr(later, name)
        close = isinstance(before, float | int) and math.isclose(before, after, rel_tol=1e-9)
        if before != after and not close:
            raise ValueError(f"{name} is {after}; earlier entries of this case have {before}")


def _max(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _best_ceilings(runs: Sequence[Run]) -> dict[Device, Ceilings]:
    """Return the highest rates of each device in all runs, which are closest to its limits."""
    best: dict[Device, Ceilings] = {}
    for run in runs:
        for device, new in run.ceilings.items():
            old = best.get(device, new)
            best[device] = msgspec.structs.replace(
                old,
                flops_per_s=max(old.flops_per_s, new.flops_per_s),
                bytes_per_s=max(old.bytes_per_s, new.bytes_per_s),
            )
    return best


_Row = TypeVar("_Row", Missing, AccuracyRun)


def _unique(rows: Iterable[_Row]) -> tuple[_Row, ...]:
    """Return the first row of each key; a training that is in two files counts once."""
    unique: dict[Hashable, _Row] = {}
    for row in rows:
        unique.setdefault(row.key, row)
    return tuple(unique.values())

"""Reading result files, and merging those of one host.

A result file is the JSON of pytest-benchmark with what `conftest.py` adds to it; the journal of a
run that has not come to its end says the same of what was measured so far. Files of one host and
one state of the code can be merged: their passes count as passes of one run.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.fields import Field, read_json
from benchmarks.journal import SUFFIX, findings, read_journal
from benchmarks.results import (
    DEVICES,
    FORMAT,
    PHASES,
    SWEEPS,
    TIMED_LEVELS,
    AccuracyRun,
    Blas,
    Case,
    Ceilings,
    Check,
    Contender,
    Host,
    Measurement,
    Missing,
    ResultSet,
    RowKey,
    Run,
)
from mnist_accel.errors import UsageError

KEY = "mnist_accel"


def load_results(paths: Sequence[Path]) -> ResultSet:
    """Read result files, and merge them.

    Args:
        paths: one or more files, or journals, of one host and one state of the code.

    Raises:
        UsageError: a file cannot be read, is none of ours, contradicts itself or does not belong
            to the others.
    """
    if not paths:
        raise UsageError("no result file given; make one with: python -m benchmarks run")
    repeated = [path for index, path in enumerate(paths) if path in paths[:index]]
    if repeated:
        raise UsageError(f"{repeated[0]} is given twice")
    first, *others = (_load(path) for path in paths)
    for other in others:
        first = _merge(first, other)
    return first


def _load(path: Path) -> ResultSet:
    document = _unfinished(path) if path.name.endswith(SUFFIX) else read_json(path)
    if "benchmarks" not in document:
        raise UsageError(f"{path} is not a result file: it has no list of benchmarks")
    if KEY not in document:
        raise UsageError(
            f"{path} is a file of pytest-benchmark, but not of this suite: "
            f"it has no {KEY}; make one with: python -m benchmarks run"
        )
    header = document[KEY]
    written = header["format"].integer()
    if written != FORMAT:
        raise UsageError(f"{path} has format {written}; this version reads format {FORMAT}")
    contenders = {name: _contender(name, facts) for name, facts in header["contenders"].items()}
    benchmarks = list(document["benchmarks"])
    failed = tuple(_missing(row, contenders) for row in header["failed"])
    wrong = {row.key for row in failed}
    measurements = {
        key: measurement
        for key, measurement in _measurements(path, benchmarks, contenders).items()
        if key not in wrong  # a failure in one pass takes the times of the others
    }
    absent = tuple(_missing(row, contenders) for row in header["absent"])
    return ResultSet(
        paths=(path,),
        runs=(_run(header),),
        host=_host(header["host"]),
        contenders=contenders,
        ceilings=_ceilings(header["ceilings"]),
        measurements=measurements,
        absent=_unique(absent),
        failed=_unique(failed),
        accuracy=tuple(_accuracy_run(run, contenders) for run in header["accuracy"]),
    )


def _unfinished(journal: Path) -> Field:
    """Return what a run has found that was interrupted, or still goes on.

    Raises:
        UsageError: it is no journal, or nothing was found.
    """
    try:
        return Field(findings(read_journal(journal)), journal)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{journal} has nothing to report: {error}") from error


def _ceilings(field: Field) -> dict[str, Ceilings]:
    best = {
        device: Ceilings(
            ceilings["flops_per_s"].number(above=0),
            ceilings["bytes_per_s"].number(above=0),
            {rate: ceilings["how"][rate].text() for rate in ("flops_per_s", "bytes_per_s")},
        )
        for device, ceilings in field.items()
    }
    if not {"cpu"} <= set(best) <= set(DEVICES):
        raise field.wrong(f"the ceilings of cpu, and at most of {', '.join(DEVICES)}")
    return best


def _run(header: Field) -> Run:
    return Run(
        profile=header["profile"].text(),
        levels=tuple(level.text() for level in header["levels"]),
        passes=header["passes"].integer(1),
        seed=header["seed"].integer(),
        threads=header["threads"].integer(1),
        complete=header["complete"].flag(),
        started=header["started"].text(),
        finished=header["finished"].text(),
    )


def _host(host: Field) -> Host:
    return Host(
        cpu=host["cpu"].text(),
        cores=host["cores"].integer(1),
        threads=host["threads"].integer(1),
        vector_width_bits=host["vector_width_bits"].optional(Field.integer),
        memory_bytes=host["memory_bytes"].optional(Field.integer),
        gpu=host["gpu"].optional(Field.text),
        gpu_driver=host["gpu_driver"].optional(Field.text),
        os=host["os"].text(),
        python=host["python"].text(),
        blas=tuple(
            Blas(
                blas["name"].text(), blas["version"].optional(Field.text), blas["threads"].integer()
            )
            for blas in host["blas"]
        ),
        numba_threading_layer=host["numba_threading_layer"].optional(Field.text),
        load_average=tuple(load.number() for load in host["load_average"]),
        versions=_texts(host["versions"]),
        commit=host["commit"].optional(Field.text),
        dirty=host["dirty"].optional(Field.flag),
    )


def _contender(name: str, facts: Field) -> Contender:
    return Contender(
        name=name,
        is_peer=facts["is_peer"].flag(),
        device=facts["device"].choice(DEVICES) if "device" in facts else "cpu",
        versions=_texts(facts["versions"]),
        threads=facts["threads"].integer(),
    )


def _measurements(
    path: Path, benchmarks: Iterable[Field], contenders: Mapping[str, Contender]
) -> dict[RowKey, Measurement]:
    """Read the entries, and join the passes of each case and contender."""
    cases: dict[tuple[str, str], Case] = {}
    measurements: dict[RowKey, Measurement] = {}
    for entry in benchmarks:
        info = entry["extra_info"]
        measurement = _measurement(path, entry, contenders)
        case = measurement.case
        _must_agree(cases.setdefault((case.level, case.name), case), case, info, _OF_A_CASE)
        earlier = measurements.get(measurement.key)
        if earlier is None:
            measurements[measurement.key] = measurement
            continue
        if not measurement.rounds.keys().isdisjoint(earlier.rounds):
            raise info["pass"].wrong(
                f"a pass that {measurement.contender} has not had in this case"
            )
        _must_agree(earlier, measurement, info, _OF_A_ROUND)
        measurements[measurement.key] = _join(earlier, measurement)
    return _in_order(measurements.values())


# Fields of `extra_info`, and the attributes they become, that all passes must agree upon.
_OF_A_CASE = {"network": "network", "batch": "batch", "width": "width", "depth": "depth"}
_OF_A_CASE |= {"sweep": "sweeps"}
_REAL = ("flops", "bytes")
_OF_A_ROUND = {"images": "images", "steps": "steps", "flops": "flops", "bytes": "bytes"}


def _must_agree(earlier: Any, later: Any, info: Field, names: Mapping[str, str]) -> None:
    for name, attribute in names.items():
        expected = getattr(earlier, attribute)
        if getattr(later, attribute) != expected:
            raise info[name].wrong(f"{expected}, as in the earlier entries of this case")


def _join(earlier: Measurement, later: Measurement) -> Measurement:
    """Add the passes of one measurement to those of another."""
    return replace(
        earlier,
        rounds={**earlier.rounds, **later.rounds},
        phases={**earlier.phases, **later.phases},
        check=max(earlier.check, later.check, key=lambda one: one.difference / one.tolerance),
        peak_host_bytes=_most(earlier.peak_host_bytes, later.peak_host_bytes),
        peak_device_bytes=_most(earlier.peak_device_bytes, later.peak_device_bytes),
    )


def _most(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _in_order(measurements: Iterable[Measurement]) -> dict[RowKey, Measurement]:
    """Sort by level, network and sizes: the order of a shuffled run says nothing."""
    ordered = sorted(measurements, key=lambda measurement: _order(measurement.case))
    return {measurement.key: measurement for measurement in ordered}


def _order(case: Case) -> tuple[int, str, int, int, int, str]:
    return (
        TIMED_LEVELS.index(case.level),
        case.network,
        case.width or 0,
        case.depth or 0,
        case.batch,
        case.name,
    )


def _measurement(path: Path, entry: Field, contenders: Mapping[str, Contender]) -> Measurement:
    info = entry["extra_info"]
    contender = _known_contender(info["contender"], contenders)
    is_peer = info["is_peer"]
    if is_peer.flag() != contenders[contender].is_peer:
        raise is_peer.wrong(f"what {KEY}.contenders says of {contender}")
    seconds = [second.number(above=0) for second in entry["stats"]["data"]]
    if not seconds:
        raise entry["stats"]["data"].wrong("the seconds of at least one round")
    check = info["check"]
    # A file's passes are its own: those of another file with the same numbers are further passes.
    label = (path, info["pass"].integer())
    phases = info["phases_s"]
    return Measurement(
        case=_case(info),
        contender=contender,
        rounds={label: np.array(seconds)},
        images=info["images"].integer(),
        steps=info["steps"].integer(),
        flops=info["flops"].number(),
        bytes=info["bytes"].number(),
        phases={label: {name: phases[name].number() for name in PHASES if name in phases}},
        check=Check(
            check["difference"].number(),
            check["tolerance"].number(above=0),
            check["against"].text(),
        ),
        peak_host_bytes=info["peak_host_bytes"].optional(Field.integer),
        peak_device_bytes=info["peak_device_bytes"].optional(Field.integer),
    )


def _case(info: Field) -> Case:
    return Case(
        level=info["level"].choice(TIMED_LEVELS),
        name=info["case"].text(),
        network=info["network"].text(),
        batch=info["batch"].integer(1),
        width=info["width"].optional(lambda width: width.integer(1)),
        depth=info["depth"].optional(Field.integer),
        sweeps=tuple(sweep.choice(SWEEPS) for sweep in info["sweep"]),
    )


def _known_contender(name: Field, contenders: Mapping[str, Contender]) -> str:
    if name.text() not in contenders:
        raise name.wrong(f"one of {KEY}.contenders: {', '.join(contenders)}")
    return name.text()


def _missing(row: Field, contenders: Mapping[str, Contender]) -> Missing:
    return Missing(
        row["level"].choice((*TIMED_LEVELS, "accuracy")),
        row["case"].text(),
        _known_contender(row["contender"], contenders),
        row["reason"].text(),
    )


def _accuracy_run(run: Field, contenders: Mapping[str, Contender]) -> AccuracyRun:
    seconds = tuple(second.number() for second in run["seconds"])
    accuracy = tuple(value.number() for value in run["accuracy"])
    if len(seconds) != len(accuracy):
        raise run["accuracy"].wrong(f"{len(seconds)} values, one for each of the seconds")
    if any(later < earlier for earlier, later in pairwise(seconds)):
        raise run["seconds"].wrong("seconds since the start, which never fall")
    return AccuracyRun(
        network=run["network"].text(),
        contender=_known_contender(run["contender"], contenders),
        batch=run["batch"].integer(1),
        seed=run["seed"].integer(),
        target=run["target"].number(),
        seconds=seconds,
        accuracy=accuracy,
    )


def _texts(field: Field) -> dict[str, str]:
    return {name: value.text() for name, value in field.items()}


# What two files must have in common to be one run, and why it would make no sense without.
_SAME_HOST = ("cpu", "cores", "threads", "gpu", "python")
_SAME_CODE = ("commit", "dirty")


def _merge(first: ResultSet, other: ResultSet) -> ResultSet:
    """Take two files for one run.

    Raises:
        UsageError: they come from different machines, states of the code or versions.
    """
    for name in (*_SAME_HOST, *_SAME_CODE):
        mine, theirs = getattr(first.host, name), getattr(other.host, name)
        if mine != theirs:
            raise UsageError(
                f"{first.paths[0]} and {other.paths[0]} cannot be merged: {name} is {mine} in the "
                f"one and {theirs} in the other; report them one by one"
            )
    for name in first.contenders.keys() & other.contenders.keys():
        if first.contenders[name] != other.contenders[name]:
            raise UsageError(
                f"{first.paths[0]} and {other.paths[0]} cannot be merged: they have different "
                f"versions or threads of {name}; report them one by one"
            )
    failed = _unique((*first.failed, *other.failed))
    wrong = {row.key for row in failed}
    measurements = dict(first.measurements)
    for key, measurement in other.measurements.items():
        earlier = measurements.get(key)
        if earlier is None:
            measurements[key] = measurement
            continue
        later = _in_rounds_of(measurement, earlier.images)
        for name in ("case", *_OF_A_ROUND):
            mine, theirs = getattr(earlier, name), getattr(later, name)
            if mine != theirs and not (name in _REAL and math.isclose(mine, theirs)):
                raise UsageError(
                    f"{first.paths[0]} and {other.paths[0]} cannot be merged: they differ in the "
                    f"{name} of {', '.join(key)}; report them one by one"
                )
        measurements[key] = _join(earlier, later)
    kept = (measurement for key, measurement in measurements.items() if key not in wrong)
    return ResultSet(
        paths=(*first.paths, *other.paths),
        runs=(*first.runs, *other.runs),
        host=replace(first.host, load_average=(*first.host.load_average, *other.host.load_average)),
        contenders={**first.contenders, **other.contenders},
        ceilings={
            device: _better(first.ceilings.get(device), other.ceilings.get(device))
            for device in DEVICES
            if device in {*first.ceilings, *other.ceilings}
        },
        measurements=_in_order(kept),
        absent=tuple(
            row
            for row in _unique((*first.absent, *other.absent))
            if row.key not in measurements and row.key not in wrong
        ),
        failed=failed,
        accuracy=_unique((*first.accuracy, *other.accuracy)),
    )


def _better(one: Ceilings | None, another: Ceilings | None) -> Ceilings:
    """Return the best that was seen, which is nearest to what the device can do."""
    seen = [ceilings for ceilings in (one, another) if ceilings is not None]
    return replace(
        seen[0],
        flops_per_s=max(ceilings.flops_per_s for ceilings in seen),
        bytes_per_s=max(ceilings.bytes_per_s for ceilings in seen),
    )


def _in_rounds_of(measurement: Measurement, images: int) -> Measurement:
    """Return the measurement as if its rounds had had so many images.

    Epochs of slow contenders are cut to what a run has time for, which every run settles anew.
    """
    if measurement.images in (0, images):
        return measurement
    longer = images / measurement.images
    return replace(
        measurement,
        rounds={label: seconds * longer for label, seconds in measurement.rounds.items()},
        images=images,
        steps=round(measurement.steps * longer),
        flops=measurement.flops * longer,
        bytes=measurement.bytes * longer,
    )


_Row = TypeVar("_Row", Missing, AccuracyRun)


def _unique(rows: Iterable[_Row]) -> tuple[_Row, ...]:
    """Keep the first row of each key: a seed that two files have trained counts once."""
    unique: dict[Hashable, _Row] = {}
    for row in rows:
        unique.setdefault(row.key, row)
    return tuple(unique.values())

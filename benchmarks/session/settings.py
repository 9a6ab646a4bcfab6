"""What a run measures: resolved before the run starts, and unchanged when it is continued."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from backends import resolve_name
from benchmarks.contenders import IN_TURN, contenders
from benchmarks.host import code_version, usable_cores
from benchmarks.storage.journal import Journal, RunSettings
from benchmarks.suite.cases import (
    LEVELS,
    PROFILES,
    Case,
    Profile,
    accuracy_cases,
    estimator_cases,
    inference_cases,
    operation_cases,
    population_cases,
    start_cases,
    training_cases,
)
from mnist_accel.errors import UsageError, usage_errors

PASSES: Mapping[Profile, int] = {"quick": 6, "full": 12}
PROCESSES: Mapping[Profile, int] = {"quick": 3, "full": 6}
# Seconds of measurement per turn.
TURN_S: Mapping[Profile, float] = {"quick": 0.07, "full": 0.1}
# Rows that are still undecided are measured longer until the run has taken this many minutes.
MINUTES: Mapping[Profile, float] = {"quick": 0, "full": 40}
# A run waits up to this many minutes in total for cores that exchange data quickly.
CORES_MINUTES: Mapping[Profile, float] = {"quick": 0, "full": 15}
# These take long, so they are measured only if they are named.
ONLY_NAMED = ("population", "estimator", "accuracy")
DEFAULT_LEVELS = tuple(level for level in LEVELS if level not in ONLY_NAMED)
# The contenders of levels that only some are measured in; those of `IN_TURN` are in no other level.
CONTENDERS_OF: Mapping[str, frozenset[str]] = {
    "population": frozenset({"numba", *IN_TURN, "torch-eager", "jax", "scikit-learn"}),
    "estimator": frozenset({"numba", "scikit-learn"}),
}
ACCURACY_SEEDS = 3
ESTIMATOR_SEEDS = 10
MAX_STARTS = 3  # each start of a contender takes up to half a minute
# Contenders that compile for many seconds per case: quick runs leave them out, and full runs
# leave them out of cases that belong only to these series.
SLOW_TO_COMPILE = {"torch-compile": ("training", "inference", "start")}
LEFT_OUT = (
    "left out of quick runs because it compiles for minutes; name it in --contenders to include it"
)
_SERIES = {"batch", "width", "depth", "threads", "features", "step"}


@dataclass(frozen=True)
class RunRequest:
    """The settings that a user has given, with names separated by commas; None if not given.

    `RunSettings` describes the attributes.
    """

    profile: Profile | None = None
    levels: str | None = None
    contenders: str | None = None
    passes: int | None = None
    processes: int | None = None
    seed: int | None = None
    threads: int | None = None


def cases_of(settings: RunSettings, level: str) -> Sequence[Case]:
    """Return the cases of a level."""
    profile = settings.profile
    match level:
        case "training":
            return training_cases(profile, settings.threads)
        case "inference":
            return inference_cases(profile)
        case "operations":
            return operation_cases(profile)
        case "start":
            return start_cases(profile)
        case "population":
            return population_cases(profile)
        case "estimator":
            return estimator_cases(profile)
        case "accuracy":
            return accuracy_cases(profile)
    raise ValueError(f"{level!r} is no level")


def is_measured(case: Case, contender: str) -> bool:
    """Whether a run measures a row if both its case and its contender are chosen."""
    if case.level in CONTENDERS_OF:
        return contender in CONTENDERS_OF[case.level]
    if contender in IN_TURN:
        return False
    sweeps = set(getattr(case, "sweeps", ()))
    return contender not in SLOW_TO_COMPILE or not sweeps or not sweeps <= _SERIES


def resolve(request: RunRequest) -> RunSettings:
    """Return the settings of a new run.

    Raises:
        UsageError: a level or contender does not exist, or there is nothing to measure.
    """
    requested = _requested(request)
    profile = requested.get("profile", PROFILES[0])
    levels = requested.get("levels", DEFAULT_LEVELS)
    chooses = request.contenders is not None
    left_out = () if profile == "full" or chooses else _slow_to_compile(levels)
    commit, dirty = code_version()
    defaults = {
        "profile": profile,
        "levels": levels,
        "contenders": tuple(name for name in contenders() if name not in left_out),
        "passes": PASSES[profile],
        "processes": min(PROCESSES[profile], request.passes or PASSES[profile]),
        "seed": 0,
    }
    now = {"left_out": left_out, "threads": usable_cores(), "commit": commit, "dirty": dirty}
    settings = RunSettings(**{**defaults, **requested, **now})
    measured = _measured(settings)
    if not chooses:
        settings = msgspec.structs.replace(settings, contenders=measured)
    if settings.passes < 1:
        raise UsageError(f"--passes must be at least 1, got {settings.passes}")
    if not 1 <= settings.processes <= settings.passes:
        raise UsageError(
            f"--processes must be 1 to the number of passes, {settings.passes}; "
            f"got {settings.processes}"
        )
    return settings


def _slow_to_compile(levels: Sequence[str]) -> tuple[str, ...]:
    """Return the contenders that quick runs of some levels leave out."""
    return tuple(name for name, slow in SLOW_TO_COMPILE.items() if {*levels} & {*slow})


def _measured(settings: RunSettings) -> tuple[str, ...]:
    """Return the contenders that are measured in at least one case.

    Raises:
        UsageError: there is no case, or no contender.
    """
    levels = ", ".join(settings.levels)
    cases = [case for level in settings.levels for case in cases_of(settings, level)]
    if not cases:
        raise UsageError(
            f"the profile {settings.profile} has no case of the level {levels}; "
            "choose the profile full, or other levels"
        )
    measured = tuple(
        name for name in settings.contenders if any(is_measured(case, name) for case in cases)
    )
    if not measured:
        known = [
            f"; the contenders of {level} are {', '.join(sorted(names))}"
            for level, names in CONTENDERS_OF.items()
            if level in settings.levels
        ]
        given = ", ".join(settings.contenders)
        raise UsageError(f"{given} are not measured in {levels}{''.join(known)}")
    return measured


def _requested(request: RunRequest) -> dict[str, Any]:
    """Return the settings that the user has given, in the types of `RunSettings`."""
    requested = {name: value for name, value in asdict(request).items() if value is not None}
    for name, kind, known in (
        ("levels", "level", LEVELS),
        ("contenders", "contender", tuple(contenders())),
    ):
        if name in requested:
            requested[name] = select(kind, requested[name], known)
    return requested


def select(kind: str, names: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names in a list separated by commas, in the order of the known names.

    Raises:
        UsageError: a name is unknown.
    """
    with usage_errors():
        chosen = {resolve_name(kind, name.strip(), known) for name in names.split(",")}
    return tuple(name for name in known if name in chosen)


def open_journal(request: RunRequest, path: Path | None) -> Journal:
    """Start a run, or continue the run of an existing journal.

    Raises:
        UsageError: there is nothing to measure, or the journal cannot be continued here.
    """
    if path is None or not path.exists() or not path.stat().st_size:
        return Journal(resolve(request), path)
    journal = Journal.read(path)
    check_request(journal.settings, request, path)
    check_code_and_cores(journal.settings, path)
    journal.truncate()
    return journal


def check_request(settings: RunSettings, request: RunRequest, journal: Path) -> None:
    """Raise `UsageError` if a request contradicts the settings of the run that it continues."""
    for name, value in _requested(request).items():
        if value != getattr(settings, name):
            raise UsageError(
                f"{journal} is a run with {name} {_text(getattr(settings, name))}, "
                f"not {_text(value)}; omit that option to continue it, or choose another --out"
            )


def check_code_and_cores(settings: RunSettings, journal: Path) -> None:
    """Raise `UsageError` if the code or the number of cores changed since the run started.

    All rows of a result file are measured with the same code on the same number of cores.
    """
    commit, dirty = code_version()
    for name, value in (("commit", commit), ("dirty", dirty), ("threads", usable_cores())):
        if value != getattr(settings, name):
            raise UsageError(
                f"{journal} is a run with {name} {_text(getattr(settings, name))}, but {name} is "
                f"now {_text(value)}; restore the old value to continue, or choose another --out"
            )


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)

"""What a run measures: settled before it begins, and the same when it is continued."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import (
    LEVELS,
    PROFILES,
    Profile,
    accuracy_cases,
    inference_cases,
    operation_cases,
    training_cases,
)
from benchmarks.contenders import choose, contenders
from benchmarks.host import host_facts, usable_cores
from mnist_accel.errors import UsageError

PASSES: Mapping[Profile, int] = {"quick": 3, "full": 5}
CASES: Mapping[str, Callable[[Profile], Sequence[Any]]] = {
    "training": training_cases,
    "inference": inference_cases,
    "operations": operation_cases,
    "accuracy": accuracy_cases,
}
# Who takes too long for a quick look, and the levels that it would take part in.
NOT_QUICK = {"torch-compile": ("training", "inference")}
LEFT_OUT = "left out of quick runs, because compiling takes it minutes; name it in --contenders"


@dataclass(frozen=True)
class Wishes:
    """What a user asks for; None where nothing was said.

    Attributes:
        profile: which cases there are.
        levels: names, with commas.
        contenders: names, with commas.
        passes: how often each pair is measured.
        seed: of the order.
        threads: cores that everything may use.
    """

    profile: Profile | None = None
    levels: str | None = None
    contenders: str | None = None
    passes: int | None = None
    seed: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Settings:
    """What one result file has in common.

    Attributes:
        profile: which cases there are.
        levels: those of them that are measured.
        contenders: who takes part.
        left_out: who would take part if this were no quick run.
        passes: how often each pair is measured.
        seed: of the order.
        threads: cores that everything may use.
        commit: of the code; None where that is not known.
        dirty: whether the code has changes that are not committed.
    """

    profile: Profile
    levels: tuple[str, ...]
    contenders: tuple[str, ...]
    left_out: tuple[str, ...]
    passes: int
    seed: int
    threads: int
    commit: str | None
    dirty: bool | None


def settle(wishes: Wishes) -> Settings:
    """Return the settings of a new run.

    Raises:
        UsageError: there is no such level or contender, or nothing to measure.
    """
    profile = wishes.profile or PROFILES[0]
    levels = LEVELS if wishes.levels is None else _levels(wishes.levels)
    if not any(CASES[level](profile) for level in levels):
        raise UsageError(
            f"there is no case: the profile {profile} has none of the level {', '.join(levels)}; "
            "choose the profile full, or other levels"
        )
    passes = PASSES[profile] if wishes.passes is None else wishes.passes
    if passes < 1:
        raise UsageError(f"--passes is {passes}; expected at least 1")
    left_out = tuple(NOT_QUICK) if profile == "quick" and wishes.contenders is None else ()
    everybody = tuple(name for name in contenders() if name not in left_out)
    return Settings(
        profile=profile,
        levels=levels,
        contenders=everybody if wishes.contenders is None else _contenders(wishes.contenders),
        left_out=left_out,
        passes=passes,
        seed=wishes.seed or 0,
        threads=usable_cores(),
        **_code(),
    )


def must_agree(begun: Settings, wishes: Wishes, journal: Path) -> None:
    """Refuse what contradicts the settings that a run began with.

    Args:
        begun: these settings.
        wishes: for its continuation.
        journal: of the run, for the message.

    Raises:
        UsageError: a wish differs.
    """
    wanted = {
        "profile": wishes.profile,
        "levels": None if wishes.levels is None else _levels(wishes.levels),
        "contenders": None if wishes.contenders is None else _contenders(wishes.contenders),
        "passes": wishes.passes,
        "seed": wishes.seed,
        "threads": wishes.threads,
    }
    for name, value in wanted.items():
        if value is not None and value != getattr(begun, name):
            raise UsageError(
                f"{journal} is of a run with {name} {_text(getattr(begun, name))}, "
                f"not {_text(value)}; leave that out to go on with it, or choose another --out"
            )


def must_be_here(begun: Settings, journal: Path) -> None:
    """Refuse to continue a run elsewhere: one result file is of one code and so many cores.

    Args:
        begun: the settings that it began with.
        journal: of the run, for the message.

    Raises:
        UsageError: the code or the number of cores has changed.
    """
    here = {**_code(), "threads": usable_cores()}
    for name, value in here.items():
        if value != getattr(begun, name):
            raise UsageError(
                f"{journal} is of a run with {name} {_text(getattr(begun, name))}, but here it is "
                f"{_text(value)}; bring that back to go on with it, or choose another --out"
            )


def _levels(names: str) -> tuple[str, ...]:
    chosen = names.split(",")
    unknown = sorted(set(chosen) - set(LEVELS))
    if unknown:
        raise UsageError(f"unknown level {', '.join(unknown)}; choose {', '.join(LEVELS)}")
    return tuple(level for level in LEVELS if level in chosen)


def _contenders(names: str) -> tuple[str, ...]:
    chosen = choose(names)
    return tuple(name for name in contenders() if name in chosen)


def _code() -> dict[str, Any]:
    facts = host_facts()
    return {"commit": facts["commit"], "dirty": facts["dirty"]}


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)

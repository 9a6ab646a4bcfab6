"""The order of a run: which contender has a turn in which case, pass after pass.

Each case is measured in groups of passes. The contenders start new processes for each group,
because a process keeps what it got at its start, such as the addresses of its arrays. In a pass,
all contenders have one turn, in random order, so that a slow phase of the machine affects all.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from benchmarks.session.settings import (
    ACCURACY_SEEDS,
    ESTIMATOR_SEEDS,
    MAX_STARTS,
    cases_of,
    is_measured,
)
from benchmarks.storage.journal import Journal, RunSettings
from benchmarks.suite.cases import AccuracyCase, Case, EstimatorCase, PopulationCase, StartCase

_OWN_PROCESSES = (StartCase, AccuracyCase, PopulationCase)


@dataclass(frozen=True)
class Planned:
    """A turn of a contender in a case; `number` is the number of its pass, or the seed."""

    case: Case
    contender: str
    number: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Level, case, contender and number."""
        return self.case.level, self.case.name, self.contender, self.number


@dataclass(frozen=True)
class Plan:
    """The turns of a run.

    Attributes:
        settings: settings of the run.
        extensions: cases (level, name) that further groups measure, because they are undecided.
    """

    settings: RunSettings
    extensions: tuple[tuple[tuple[str, str], ...], ...] = ()

    @classmethod
    def of(cls, journal: Journal) -> Self:
        """Return the plan of the run of a journal."""
        return cls(journal.settings, tuple(journal.extensions))

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """All cases."""
        levels = self.settings.levels
        return tuple(case for level in levels for case in cases_of(self.settings, level))

    @cached_property
    def turns(self) -> tuple[Planned, ...]:
        """All turns, in order."""
        groups = self.settings.processes + len(self.extensions)
        return tuple(turn for group in range(groups) for turn in self._group(group))

    def contenders_of(self, case: Case) -> list[str]:
        """Return the contenders that have turns in a case."""
        return [name for name in self.settings.contenders if is_measured(case, name)]

    def group_of(self, number: int) -> int:
        """Return the number of the group that a pass belongs to."""
        return number // self.settings.passes_per_process

    def _group(self, group: int) -> Iterator[Planned]:
        """Yield the turns of a group: case after case in random order, pass after pass.

        The cases that have processes of their own come first.
        """
        rng = random.Random(f"{self.settings.seed} {group}")  # noqa: S311  # an order, not a secret
        cases = list(self.cases)
        extension = group - self.settings.processes
        if extension >= 0:
            chosen = set(self.extensions[extension])
            cases = [case for case in cases if (case.level, case.name) in chosen]
        rng.shuffle(cases)
        # These end the workers of the other cases.
        cases.sort(key=lambda case: not isinstance(case, _OWN_PROCESSES))
        for case in cases:
            for number in self._numbers(case, group):
                names = self.contenders_of(case)
                rng.shuffle(names)
                yield from (Planned(case, name, number) for name in names)

    def _numbers(self, case: Case, group: int) -> range:
        """Return the numbers of the passes of a case in a group."""
        count, planned = self.settings.passes_per_process, self.settings.processes
        if isinstance(case, AccuracyCase):  # the number is a seed, and each has its own process
            return range(ACCURACY_SEEDS if group == 0 else 0)
        first = group * count
        if isinstance(case, StartCase | PopulationCase):  # one turn takes seconds
            return range(first, first + (group < MAX_STARTS or group >= planned))
        last = first + count
        if group < planned:
            passes = self.settings.passes
            is_fit = isinstance(case, EstimatorCase)  # the number is also the seed
            last = min(last, passes, ESTIMATOR_SEEDS if is_fit else passes)
        return range(first, last)

"""The result of a population: its members with their networks, and statistics over them."""

import io
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Backend, as_backend, resolve_name, shown
from mnist_accel.nn.network import Network
from mnist_accel.populations.grid import Grid, setting_text
from mnist_accel.populations.member import MemberResult
from mnist_accel.populations.statistics import Comparison, compare_paired, mean_of
from mnist_accel.recipes.settings import SETTING_ALIASES
from mnist_accel.runs.setup import make_trainer
from mnist_accel.util.text import count

MEASURES = (
    "test_accuracy", "test_loss", "validation_accuracy", "validation_loss", "train_accuracy",
    "train_loss", "seconds",
)  # fmt: skip
_Values: TypeAlias = dict[tuple[int, Any], float]  # by seed and other settings
_ROUNDED = {*MEASURES, "mean", "std", "low", "high"}  # columns that are printed with few digits


class Rows(list[dict[str, Any]]):
    """A list of rows with the same keys, printed as a table."""

    def __str__(self) -> str:
        if not self:
            return "no rows"
        from mnist_accel.console.tables import print_table  # imports rich

        stream = io.StringIO()
        rows = [[_cell(name, value) for name, value in row.items()] for row in self]
        print_table(list(self[0]), rows, stream)
        return stream.getvalue().rstrip()

    __repr__ = __str__


class Population(Sequence[Network]):
    """Networks that were trained with several seeds and settings.

    `population[k]` is the trained network of member k.

    Args:
        grid: the settings of the members.
        results: the results of the members that have ended, in any order.
        backend: the backend that computes predictions, or its name.

    Attributes:
        grid: the settings of the members.
        results: the results by number of the member; None for a member that has not ended.
    """

    def __init__(
        self, grid: Grid, results: Sequence[MemberResult], *, backend: Backend | str
    ) -> None:
        self.grid = grid
        self.results: list[MemberResult | None] = [None] * len(grid.members)
        for result in results:
            self.results[result.member] = result
        self._backend = backend
        self._networks: dict[int, Network] = {}

    def __len__(self) -> int:
        return len(self.grid.members)

    def __getitem__(self, member: Any) -> Any:
        """Return the trained network of a member, or the networks of a slice.

        Raises:
            IndexError: there is no such member.
            ValueError: its training failed or has not ended.
        """
        if isinstance(member, slice):
            return [self[number] for number in range(*member.indices(len(self)))]
        number = range(len(self))[member]
        if number not in self._networks:
            self._networks[number] = self._network(number)
        return self._networks[number]

    def __repr__(self) -> str:
        done, failed = len(self._finished()), self.failed
        seeds = len({settings.seed for settings in self.grid.members})
        settings = " × ".join([count(seeds, "seed"), *self.grid.varied])
        return (
            f"<Population of {len(self)} × {self.grid.members[0].model} ({settings}): {done} "
            f"trained, {failed} failed>"
        )

    @property
    def failed(self) -> int:
        """Number of members whose training failed, for example because it diverged."""
        return sum(result is not None and bool(result.error) for result in self.results)

    @property
    def table(self) -> Rows:
        """One row per member: seed, varied settings, status, losses, accuracies and seconds."""
        return Rows(self._row(number) for number in range(len(self)))

    def summary(self, measure: str = "test_accuracy") -> Rows:
        """Return one row per setting: mean, standard deviation and 95 % interval over the seeds.

        Args:
            measure: one of `MEASURES`, a column of `table`.

        Raises:
            ValueError: the measure is unknown.
        """
        measure = resolve_name("measure", measure, MEASURES)
        rows = Rows()
        for setting, results in self.by_setting():
            values = [v for result in results if (v := getattr(result, measure)) is not None]
            failed = sum(bool(result.error) for result in results)
            counts = {"ended": len(results), "failed": failed}
            rows.append({**setting, "measure": measure, **counts, **asdict(mean_of(values))})
        return rows

    def by_setting(self) -> list[tuple[dict[str, Any], list[MemberResult]]]:
        """Return each combination of the varied settings, with the results of its ended members."""
        groups: dict[Any, tuple[dict[str, Any], list[MemberResult]]] = {}
        for number, result in enumerate(self.results):
            setting = self.grid.setting(number)
            _, results = groups.setdefault(tuple(setting.items()), (setting, []))
            if result is not None:
                results.append(result)
        return list(groups.values())

    def compare(self, *, measure: str = "test_accuracy", **pair: Any) -> Comparison:
        """Compare two values of a setting by their differences with equal seeds.

        If other settings vary as well, the differences of a seed are averaged over them. A member
        counts only if the other value has a result with the same seed and other settings.

        Args:
            measure: one of `MEASURES`.
            pair: name of the setting, and its two values: `lr=(0.005, 0.01)`.

        Raises:
            ValueError: not one setting is given, it does not vary or lacks the values, or fewer
                than two seeds have results with both values.
        """
        measure = resolve_name("measure", measure, MEASURES)
        if len(pair) != 1:
            raise ValueError(f"give one setting with two values, got {len(pair)} settings")
        ((given, values),) = pair.items()
        if not self.grid.varied:
            raise ValueError(f"{given} does not vary in this population; no setting does")
        name = resolve_name("varied setting", given, self.grid.varied, SETTING_ALIASES)
        if not isinstance(values, tuple | list) or len(values) != 2:
            raise ValueError(f"{name} needs a pair of values, got {shown(values)}")
        values = [tuple(value) if isinstance(value, list) else value for value in values]
        present = list(dict.fromkeys(getattr(settings, name) for settings in self.grid.members))
        for value in values:
            if value not in present:
                known = ", ".join(map(shown, present))
                raise ValueError(f"no member has {name}={shown(value)}; the values are {known}")
        groups = [self._by_partner(measure, name, value) for value in values]
        pairs = groups[0].keys() & groups[1].keys()
        first, second = (_mean_by_seed(group, pairs) for group in groups)
        names = f"{name}={setting_text(values[0])}", f"{name}={setting_text(values[1])}"
        return compare_paired(first, second, names=names, measure=measure)

    def compare_with(self, other: "Population", *, measure: str = "test_accuracy") -> Comparison:
        """Compare with another population by the differences of members with equal seeds.

        Values of a seed are averaged over the settings that vary within a population.

        Raises:
            ValueError: fewer than two seeds have results in both populations.
        """
        measure = resolve_name("measure", measure, MEASURES)
        first, second = (
            _mean_by_seed(values, values.keys())
            for values in (self._by_partner(measure), other._by_partner(measure))
        )
        return compare_paired(first, second, names=("the first", "the second"), measure=measure)

    def best(self, measure: str = "validation_accuracy") -> Network:
        """Return the network with the best result on held-out training images.

        Args:
            measure: "validation_accuracy" or "validation_loss".

        Raises:
            ValueError: no images were held out, no network is trained, or another measure is
                given. A network that is chosen on the test set looks better there than it is.
        """
        member: Network = self[self.best_member(measure)]
        return member

    def best_member(self, measure: str = "validation_accuracy") -> int:
        """Return the number of the member that `best` returns.

        Raises:
            ValueError: see `best`.
        """
        if measure not in ("validation_accuracy", "validation_loss"):
            raise ValueError(
                "choose the best member by validation_accuracy or validation_loss, got "
                f"{shown(measure)}; a choice by test or training results would be biased"
            )
        sign = 1 if measure == "validation_accuracy" else -1
        values = {
            result.member: sign * value
            for result in self._require_finished()
            if (value := getattr(result, measure)) is not None
        }
        if not values:
            raise ValueError(
                "no member has validation results; train the population with validation_split, "
                "such as 0.1"
            )
        return max(values, key=values.__getitem__)

    def predict_proba(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the mean of the outputs of all trained networks, an ensemble (N, classes).

        Raises:
            ValueError, TypeError: see `Network.predict_proba`; no network is trained.
        """
        finished = self._require_finished()
        total: Any = 0
        for result in finished:
            total = total + self[result.member].predict_proba(images)
        return np.asarray(total / len(finished))

    def predict(self, images: NDArray[Any]) -> NDArray[np.int64]:
        """Return the most probable class of each image (N,) by `predict_proba`."""
        return np.asarray(self.predict_proba(images).argmax(axis=1), np.int64)

    def _row(self, number: int) -> dict[str, Any]:
        """Return the row of a member in the table."""
        result = self.results[number] or MemberResult(number)
        ended = self.results[number] is not None
        return {
            "member": number,
            "seed": self.grid.members[number].seed,
            **self.grid.setting(number),
            "status": "failed" if result.error else "done" if ended else "not trained",
            "steps": result.steps,
            **{measure: getattr(result, measure) for measure in MEASURES},
            "note": result.error or result.stop_reason,
        }

    def _by_partner(self, measure: str, name: str = "", chosen: Any = None) -> _Values:
        """Return the values of the members whose setting `name`, if given, is `chosen`.

        The keys are what a partner in a comparison has in common: the seed and the other settings.
        """
        values = {}
        for result in self._finished():
            setting = self.grid.setting(result.member)
            value = getattr(result, measure)
            if value is not None and setting.pop(name, None) == chosen:
                seed = self.grid.members[result.member].seed
                values[seed, tuple(setting.values())] = value
        return values

    def _finished(self) -> list[MemberResult]:
        """Return the results of the members whose training succeeded."""
        return [result for result in self.results if result is not None and not result.error]

    def _require_finished(self) -> list[MemberResult]:
        """Return the results of the members whose training succeeded.

        Raises:
            ValueError: there is none.
        """
        finished = self._finished()
        if not finished:
            raise ValueError("no member of the population has ended without an error")
        return finished

    def _network(self, number: int) -> Network:
        result = self.results[number]
        if result is None or result.weights is None:
            reason = result.error if result is not None else "its training has not ended"
            raise ValueError(f"member {number} has no trained network: {reason}")
        self._backend = as_backend(self._backend)
        settings, form = self.grid.members[number], self.grid.form
        network = make_trainer(settings, self._backend, examples=1, form=form).model
        network.load_state_dict(result.weights)
        return network


def _mean_by_seed(values: _Values, keys: Collection[tuple[int, Any]]) -> dict[int, float]:
    """Return the mean of the values of each seed that have one of the keys."""
    groups: dict[int, list[float]] = {}
    for key, value in values.items():
        if key in keys:
            groups.setdefault(key[0], []).append(value)
    return {seed: math.fsum(group) / len(group) for seed, group in groups.items()}


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:  # NaN
        return "-"
    if name in _ROUNDED:
        return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"
    return setting_text(value)

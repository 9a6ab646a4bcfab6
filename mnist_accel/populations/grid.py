"""The members of a population: every combination of the given settings, with every seed."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np

from backends import as_integer, as_integers, get_backend, resolve_name, shown
from mnist_accel.data import DataForm
from mnist_accel.errors import UsageError
from mnist_accel.recipes.models import model_name
from mnist_accel.recipes.settings import SETTING_ALIASES, TrainSettings, resolve
from mnist_accel.runs.setup import make_trainer
from mnist_accel.util.schema import convert

MAX_MEMBERS = 10**6
MAX_INTEGER = 2**63 - 1  # steps are counted in int64, and `config.json` contains no larger seed
# Fraction of the training images that is held out if several settings are compared. The best of
# them must not be chosen on the test set.
HELD_OUT = 0.1
# The population itself gives these, or they concern the files of a single run.
_NOT_SETTINGS = {
    "model", "seed", "dataset", "data_dir", "label_column", "test_split", "kind", "backend",
    "threads", "device", "no_fallback", "checkpoint_every", "log_every", "log",
    "max_seconds",
}  # fmt: skip
SETTINGS = tuple(
    field.name for field in dataclasses.fields(TrainSettings) if field.name not in _NOT_SETTINGS
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The settings of all members.

    Attributes:
        members: settings of each member, by its number. The seed changes fastest.
        varied: names of the settings that differ between members, except the seed.
        form: form of the data.
    """

    members: tuple[TrainSettings, ...]
    varied: tuple[str, ...]
    form: DataForm = DataForm()

    def setting(self, number: int) -> dict[str, Any]:
        """Return the varied settings of a member, by name."""
        return {name: getattr(self.members[number], name) for name in self.varied}

    def described(self, number: int) -> dict[str, Any]:
        """Return all settings that determine the training of a member, by name, for JSON."""
        settings = self.members[number]
        values = {name: getattr(settings, name) for name in ("model", "seed", "dataset", *SETTINGS)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def make_grid(
    model: str,
    *,
    seeds: int | Iterable[int],
    given: Mapping[str, Any],
    fixed: Mapping[str, Any],
    form: DataForm | None = None,
) -> Grid:
    """Return the members of a population.

    Args:
        model: name of the recipe.
        seeds: seeds of the members, or their number: 20 means the seeds 0…19.
        given: settings by name, each with one value or a list of values. `hidden_sizes` takes a
            list of lists.
        fixed: further settings by name, the same for all members, such as the data set.
        form: form of the data; None for that of MNIST.

    Raises:
        ValueError: a list is empty or has a value twice, a setting is unknown or not accepted by
            the model, or there are more than `MAX_MEMBERS` members.
        TypeError: a seed or a hidden size is not an integer.
    """
    model, form = model_name(model), form or DataForm()
    lists: dict[str, list[Any]] = {"seed": _seeds(seeds)}
    for name, value in given.items():
        setting = resolve_name("setting", name, SETTINGS, SETTING_ALIASES)
        if setting in lists:
            raise ValueError(f"{setting} is given twice; remove {name} or its other name")
        lists[setting] = _values(setting, value)
    count = math.prod(map(len, lists.values()))
    if count > MAX_MEMBERS:
        factors = " × ".join(f"{len(values):,} {name}" for name, values in lists.items())
        raise ValueError(
            f"{factors} are {count:,} members, but a population has at most {MAX_MEMBERS:,}; give "
            "fewer values"
        )
    varied = tuple(name for name, values in lists.items() if len(values) > 1 and name != "seed")
    if varied and "validation_split" not in lists:
        lists["validation_split"] = [HELD_OUT]
    names = [name for name in lists if name != "seed"]
    members = []
    for values in itertools.product(*(lists[name] for name in names)):
        choice = {"model": model, **fixed, **dict(zip(names, values, strict=True))}
        settings = _checked(choice, form)
        members += [dataclasses.replace(settings, seed=seed) for seed in lists["seed"]]
    return Grid(tuple(members), varied, form)


def setting_text(value: Any) -> str:
    """Return the value of a setting as text, such as "128,64" for hidden sizes."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _checked(given: dict[str, Any], form: DataForm) -> TrainSettings:
    """Return complete settings, after checking their types and ranges.

    Raises:
        ValueError: a value has a wrong type or is out of range, two settings contradict each
            other, or the model does not accept one.
    """
    try:
        settings: TrainSettings = convert(dataclasses.asdict(resolve(given)), TrainSettings)
        make_trainer(settings, get_backend("numpy"), examples=1, form=form)  # checks the names
    except UsageError as error:
        raise ValueError(str(error)) from error
    for name in ("epochs", "iterations", "validation_every", "patience"):
        if getattr(settings, name) is not None:
            as_integer(name, getattr(settings, name), at_least=1)
    for name in ("batch_size", "limit_train", "limit_test"):
        as_integer(name, getattr(settings, name), at_least=0)
    if (settings.iterations or 0) > MAX_INTEGER:
        raise ValueError(f"iterations must be at most 2^63 - 1, got {settings.iterations}")
    if not 0 <= settings.validation_split < 1:
        raise ValueError(
            f"validation_split must be at least 0 and below 1, got {settings.validation_split}"
        )
    if settings.target_accuracy is not None and not 0 < settings.target_accuracy <= 1:
        raise ValueError(
            f"target_accuracy must be above 0 and at most 1, got {settings.target_accuracy}"
        )
    return settings


def _seeds(seeds: int | Iterable[int]) -> list[int]:
    if _is_list(seeds):
        values = [as_integer("a seed", seed, at_least=0) for seed in _items("seeds", seeds)]
        if max(values) > MAX_INTEGER:
            raise ValueError(f"a seed must be at most 2^63 - 1, got {max(values)}")
        return _distinct("seeds", values)
    number = as_integer("seeds", seeds, at_least=1)
    if number > MAX_MEMBERS:
        raise ValueError(f"a population has at most {MAX_MEMBERS:,} members, got {number:,} seeds")
    return list(range(number))


def _values(name: str, value: Any) -> list[Any]:
    """Return the values of a setting as a list of values that can be compared.

    Raises:
        ValueError: the list is empty, has a value twice, or contains a list.
        TypeError: hidden sizes are not integers.
    """
    if not _is_list(value):
        return [_of_python(value)]
    values = _items(name, value)
    if name == "hidden_sizes":
        networks = values if any(map(_is_list, values)) else [values]
        return _distinct(name, [as_integers(name, sizes, at_least=1) for sizes in networks])
    for one in values:
        if _is_list(one):
            raise ValueError(f"a value of {name} must be a number or a name, got {shown(one)}")
    return _distinct(name, values)


def _is_list(value: Any) -> TypeGuard[Iterable[Any]]:
    """Return whether an argument contains several values."""
    is_array = getattr(value, "ndim", 1) > 0  # an array without axes is one number
    return isinstance(value, Iterable) and is_array and not isinstance(value, str | bytes)


def _items(name: str, values: Iterable[Any]) -> list[Any]:
    """Return a list of Python objects.

    Raises:
        ValueError: it is empty or too long.
    """
    items = list(itertools.islice(values, MAX_MEMBERS + 1))
    if not items:
        raise ValueError(f"{name} must have at least one value, got {shown(values)}")
    if len(items) > MAX_MEMBERS:
        raise ValueError(f"{name} has more than {MAX_MEMBERS:,} values; give fewer")
    return [_of_python(item) for item in items]


def _of_python(value: Any) -> Any:
    """Return a number of NumPy as a number of Python, and other values unchanged."""
    is_scalar = isinstance(value, np.generic | np.ndarray) and value.ndim == 0
    return value.item() if is_scalar else value


def _distinct(name: str, values: list[Any]) -> list[Any]:
    """Return the values.

    Raises:
        ValueError: two of them are equal.
    """
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} has {shown(value)} twice; give each value once")
        seen.add(value)
    return values

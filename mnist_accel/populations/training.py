"""`train_population`: the whole of a population, from settings to results."""

import math
import signal
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import as_integer, get_backend, require_type, shown
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.data.arrays import require_unmasked
from mnist_accel.data.dataset import DIGIT_NAMES
from mnist_accel.data.own_files import dataset_of_arrays
from mnist_accel.populations.grid import Grid, make_grid
from mnist_accel.populations.member import MemberResult
from mnist_accel.populations.population import Population
from mnist_accel.populations.running import ExecutorMembers, LocalMembers, worker_count
from mnist_accel.runs.signals import stop_on_signals
from mnist_accel.util.text import count

Examples: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


class PopulationInterrupt(KeyboardInterrupt):
    """Ctrl-C stopped a population.

    Attributes:
        population: the population with the members that have ended.
    """

    def __init__(self, population: Population) -> None:
        ended = sum(result is not None for result in population.results)
        super().__init__(
            f"{ended} of {count(len(population), 'member')} have ended; they are in the attribute "
            "`population` of this exception: `except KeyboardInterrupt as stop`, or in a notebook "
            "`sys.last_value.population`"
        )
        self.population = population


def train_population(
    model: str,
    *,
    seeds: int | Iterable[int],
    data: str | Dataset | tuple[Examples, Examples] = "mnist",
    data_dir: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    executor: Executor | None = None,
    **settings: Any,
) -> Population:
    """Train a recipe with several seeds and settings, and return all networks and results.

    Each member is identical to the last bit to `train` with its settings and one thread. After
    Ctrl-C, no member that has ended is lost.

    Args:
        model: name of the recipe.
        seeds: seeds of the members, or their number: 20 means the seeds 0…19.
        data: name of a data set, the result of `load_dataset`, or
            `((x_train, t_train), (x_test, t_test))` in any form that `load_mnist` returns, or
            with examples (N, features), (N, H, W) or (N, C, H, W) and labels (N,) of any classes.
        data_dir: folder of the data set; see `load_dataset`.
        backend: name of the backend that trains.
        threads: number of members that train at the same time with Numba; None for the number of
            cores.
        executor: trains the members in its processes instead, for example on other machines.
        settings: settings of `train`, such as `lr` and `epochs`, each with one value or a list of
            values. Every combination is trained with every seed. If a setting has several values
            and `validation_split` is not given, a tenth of the training images is held out, so
            that `Population.best` can choose.

    Raises:
        ValueError: a list is empty or has a value twice, a setting is unknown or not accepted, or
            there are more than a million members.
        TypeError: an argument has a wrong type.
        DataError: the data cannot be obtained.
        BackendUnavailableError: the backend cannot run here.
        PopulationInterrupt: Ctrl-C was pressed during the training. This `KeyboardInterrupt` has
            the population with the members that have ended.
    """
    if executor is not None:
        require_type("executor", executor, Executor, "a concurrent.futures.Executor")
    if threads is not None:
        threads = as_integer("threads", threads, at_least=1)
    is_named = isinstance(data, str)
    fixed = {"dataset": data, "data_dir": data_dir} if is_named else {}
    given = data if isinstance(data, str | Dataset) else own_dataset(data)
    form = given.form if isinstance(given, Dataset) else None
    grid = make_grid(model, seeds=seeds, given=settings, fixed=fixed, form=form)
    name = get_backend(backend).name
    if isinstance(given, Dataset):
        dataset = given
    else:
        dataset = load_dataset(given, data_dir)
        grid = replace(grid, form=dataset.form)
    if executor is None:
        workers = worker_count(name, threads)
        local = LocalMembers(grid, dataset, backend=name, workers=workers)
        local.prepare()
        return _train(local, grid, name)
    shipped = None if is_named else dataset
    return _train(ExecutorMembers(executor, grid, backend=name, data=shipped), grid, name)


def _train(members: LocalMembers | ExecutorMembers, grid: Grid, backend: str) -> Population:
    """Train all members, and return the population.

    Raises:
        PopulationInterrupt: Ctrl-C was pressed.
    """
    results: list[MemberResult] = []
    try:
        with stop_on_signals(members, [signal.SIGINT]) as stop:
            results.extend(members.train(range(len(grid.members))))
    except KeyboardInterrupt as error:  # the second one, or the process of an executor had it
        raise PopulationInterrupt(Population(grid, results, backend=backend)) from error
    population = Population(grid, results, backend=backend)
    if stop.signal is not None:
        raise PopulationInterrupt(population)
    return population


def own_dataset(data: tuple[Examples, Examples]) -> Dataset:
    """Return arrays of the user as a data set.

    What `load_mnist` returns has ten digits as classes, even if some of them do not occur. Other
    arrays have the classes of their labels, as in a file.

    Raises:
        TypeError: they are not two pairs of arrays.
        ValueError: a shape, a dtype or a value is not accepted.
    """
    try:
        (x_train, t_train), (x_test, t_test) = data
    except (TypeError, ValueError):
        raise TypeError(
            "data must be the name of a data set or ((x_train, t_train), (x_test, t_test)), got "
            f"{shown(data)}"
        ) from None
    for array in (x_train, t_train, x_test, t_test):
        require_unmasked("data", array)
    train, test = (
        (np.asarray(x_train), np.asarray(t_train)),
        (np.asarray(x_test), np.asarray(t_test)),
    )
    if not _is_mnist_like(*train) or not _is_mnist_like(*test):
        return dataset_of_arrays(train, test)
    images = (x.reshape(-1, 28, 28) for x, _ in (train, test))
    return Dataset("custom", next(images), train[1], next(images), test[1], DIGIT_NAMES, "arrays")


def _is_mnist_like(images: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Return whether images and labels have a form of `load_mnist`."""
    if not images.size or math.prod(images.shape[1:]) != 28 * 28 or images.dtype.kind not in "uf":
        return False
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
        return False
    if labels.dtype.kind not in "iuf" or not labels.size:
        return False
    classes = len(DIGIT_NAMES)
    is_one_hot = labels.shape == (len(images), classes)
    return is_one_hot or (
        labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < classes
    )

"""Train a population in a folder, as the command `population` does; it can be resumed."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from mnist_accel.console.activity import preparation
from mnist_accel.data import Dataset
from mnist_accel.errors import DataError, usage_errors
from mnist_accel.populations.cluster import members_on_cluster
from mnist_accel.populations.display import PopulationDisplay
from mnist_accel.populations.folder import PopulationConfig, PopulationFolder
from mnist_accel.populations.grid import Grid
from mnist_accel.populations.member import MemberResult
from mnist_accel.populations.population import Population
from mnist_accel.populations.running import ExecutorMembers, LocalMembers, worker_count
from mnist_accel.runs.setup import load_dataset_of, require_identity, split_run_data, total_steps
from mnist_accel.runs.signals import stop_on_signals


@dataclass(frozen=True)
class PopulationRun:
    """The result of `run_population`.

    Attributes:
        population: the members that have ended.
        signal: number of the signal that stopped the population; None if it is finished.
    """

    population: Population
    signal: int | None


def run_population(
    folder: PopulationFolder,
    *,
    dataset: str | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> PopulationRun:
    """Train the members that have not ended, and write the final files.

    If a signal interrupts the training, members that were training leave a checkpoint.

    Args:
        folder: the folder, which contains the configuration.
        dataset: the data set at its new place, if its file has moved.
        scheduler: address of a Dask scheduler whose workers train; None to train here.
        quiet: show no progress.

    Raises:
        UsageError: another process trains in the folder, or the scheduler cannot be reached.
        BackendUnavailableError: the backend cannot run here.
        DataError: the data cannot be obtained, or a file cannot be read or written.
    """
    config = folder.read_config()
    grid = folder.grid(config)
    with folder.lock():
        folder.remove_unfinished()
        results = folder.read(grid)
        run = _Run(folder, config, grid, dataset or grid.members[0].dataset, quiet=quiet)
        signal = run.train(results, scheduler=scheduler)
        population = Population(grid, results, backend=config.backend)
        if signal is None:
            folder.finish(population)
    return PopulationRun(population, signal)


class _Run:
    """A population that trains in a folder."""

    def __init__(
        self,
        folder: PopulationFolder,
        config: PopulationConfig,
        grid: Grid,
        dataset: str,
        *,
        quiet: bool,
    ) -> None:
        self._folder = folder
        self._config = config
        self._grid = grid
        self._dataset = dataset
        self._quiet = quiet

    def train(self, results: list[MemberResult], *, scheduler: str | None) -> int | None:
        """Train the missing members and append their results; return the signal that stopped it."""
        known = {result.member for result in results}
        missing = [member for member in range(len(self._grid.members)) if member not in known]
        if not missing:
            return None
        settings, identity = self._grid.members[0], self._config.identity
        require_identity(identity, self._dataset, settings.dataset)
        with usage_errors():
            dataset = load_dataset_of(replace(settings, dataset=self._dataset), identity)
            if dataset.form != self._grid.form:
                raise DataError(
                    f"{self._folder.path} trains on {self._grid.form} of "
                    f"{self._grid.form.classes} classes, but {dataset.source} contains "
                    f"{dataset.form} of {dataset.form.classes}; give it the data it began with"
                )
        if scheduler is not None:
            with members_on_cluster(scheduler, self._grid, self._config.backend, dataset) as remote:
                return self._collect(remote, missing, dataset, results)
        return self._train_here(missing, dataset, results)

    def _train_here(
        self, missing: list[int], dataset: Dataset, results: list[MemberResult]
    ) -> int | None:
        config = self._config
        members = LocalMembers(
            self._grid,
            dataset,
            backend=config.backend,
            device=config.device,
            workers=worker_count(config.backend, config.threads),
            before=lambda training: training.restore(self._folder.unfinished),
        )
        with preparation(sys.stderr) if not self._quiet else nullcontext():
            members.prepare()
        signal = self._collect(members, missing, dataset, results)
        for training in members.interrupted:
            training.save(self._folder.unfinished)
        return signal

    def _collect(
        self,
        members: LocalMembers | ExecutorMembers,
        missing: list[int],
        dataset: Dataset,
        results: list[MemberResult],
    ) -> int | None:
        """Train members, and write and append each result; return the signal that stopped it."""
        display = PopulationDisplay(
            self._count_steps(missing, dataset),
            members=len(self._grid.members),
            earlier=results,
            workers=members.workers,
            quiet=self._quiet,
        )
        members.on_steps = display.add_steps
        if isinstance(members, LocalMembers):
            members.on_skipped = display.skip_steps
        with display, stop_on_signals(members) as stop:
            for result in members.train(missing):
                self._folder.add(result, self._grid)
                results.append(result)
                display.add_result(result)
        return stop.signal

    def _count_steps(self, members: list[int], dataset: Dataset) -> int:
        """Return the number of steps of some members together.

        Raises:
            UsageError: the data set is too small for a setting.
        """
        examples: dict[Any, int] = {}  # number of training images; splitting takes milliseconds
        steps = 0
        for settings in (self._grid.members[member] for member in members):
            key = settings.limit_train, settings.validation_split
            if key not in examples:
                with usage_errors():
                    examples[key] = split_run_data(dataset, settings).train_count
            steps += total_steps(settings, examples[key])
        return steps

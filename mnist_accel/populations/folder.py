"""The folder of a population.

config.json           everything needed to repeat or resume it
members.jsonl         settings and results of each member, in the order in which they ended
members.csv           the same as a table in the order of the members, without the curves
weights.safetensors   the parameters of all trained networks; "0.W1", "0.b1", … have one row for
                      each member in "0.member", and "1.W1", … those of networks of other shapes
summary.json          mean, standard deviation and interval of each setting
spread.png            losses and accuracies of all members
unfinished/           weights and checkpoints while the population trains
"""

import csv
import io
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backends import Backend, shown
from mnist_accel.checkpoints.tensor_file import read_tensors, write_tensors
from mnist_accel.data import DataForm
from mnist_accel.data.identity import FileIdentity
from mnist_accel.errors import DataError, UsageError, file_errors
from mnist_accel.populations.grid import Grid, make_grid, setting_text
from mnist_accel.populations.member import MemberResult, Weights
from mnist_accel.populations.population import Population
from mnist_accel.recipes.settings import MAX_JSON_BYTES
from mnist_accel.runs.folder import DEFAULT_PARENT
from mnist_accel.util.files import (
    append_or_nothing,
    remove_unfinished,
    sync_file,
    write_atomically,
)
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.json_text import to_json
from mnist_accel.util.process_lock import process_lock
from mnist_accel.util.schema import (
    Amount,
    AtLeastOne,
    Count,
    Finite,
    Fraction,
    Name,
    decode_json,
)
from mnist_accel.util.text import count

_MAX_MEMBERS_BYTES = 2**32


class PopulationConfig(msgspec.Struct, frozen=True):
    """The content of `config.json`, from which a population can be repeated.

    Attributes:
        model: name of the recipe.
        seeds: seeds of the members.
        given: lists of values by setting.
        fixed: further settings, the same for all members.
        backend: name of the backend that trains.
        device: name of the device, or None; a number N of early versions means "cuda:N".
        threads: number of members that train at the same time, or None for all cores.
        form: form of the data, or None for that of MNIST.
        class_names: names of the classes, or None for those of the published set.
        identity: what tells whether the user's own files have changed, or None for other data.
    """

    model: Name
    seeds: list[Count]
    given: dict[Name, list[Any]]
    fixed: dict[Name, Any]
    backend: Name
    device: Count | Name | None = None
    threads: AtLeastOne | None = None
    form: DataForm | None = None
    class_names: tuple[str, ...] | None = None
    identity: FileIdentity | None = None

    def grid(self) -> Grid:
        """Return the members.

        Raises:
            ValueError, TypeError: the settings are not valid.
        """
        return make_grid(
            self.model, seeds=self.seeds, given=self.given, fixed=self.fixed, form=self.form
        )


class _Line(msgspec.Struct, frozen=True):
    """A line of `members.jsonl`: a `MemberResult` without weights, and the member's settings."""

    member: Count
    settings: dict[Name, Any]
    steps: Count
    seconds: Amount
    train_loss: Finite | None
    train_accuracy: Fraction | None
    validation_loss: Finite | None
    validation_accuracy: Fraction | None
    test_loss: Finite | None
    test_accuracy: Fraction | None
    stop_reason: str
    error: str
    curve: list[tuple[Count, Finite | None]]


class PopulationFolder:
    """The folder of a population at `path`; the other attributes are the paths of its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.members = path / "members.jsonl"
        self.table = path / "members.csv"
        self.weights = path / "weights.safetensors"
        self.summary = path / "summary.json"
        self.picture = path / "spread.png"
        self.unfinished = path / "unfinished"

    @classmethod
    def create(cls, out: str | None, config: PopulationConfig) -> "PopulationFolder":
        """Create the folder `out`, or a new one in `runs/`, and write the configuration.

        Raises:
            UsageError: `out` contains files already.
            DataError: the folder cannot be written.
        """
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-population-{config.model}"
        folder = cls(Path(out or DEFAULT_PARENT / name))
        with file_errors(f"write to the output folder {folder.path}"):
            if folder.path.is_dir() and any(folder.path.iterdir()):
                raise UsageError(
                    f"{folder.path} contains files already; choose another --out, or continue its "
                    f"population with --resume {folder.path}"
                )
            content = (to_json(msgspec.to_builtins(config), indent=2) + "\n").encode()
            write_atomically(folder.config, content)
        return folder

    def read_config(self) -> PopulationConfig:
        """Return the configuration.

        Raises:
            DataError: it cannot be read, or the folder is not that of a population.
        """
        if not self.config.is_file():
            raise DataError(
                f"{self.path} is not the folder of a population: it contains no config.json"
            )
        with file_errors(f"read {self.config}"):
            text = read_regular(self.config, max_bytes=MAX_JSON_BYTES)
        kind = "the config.json of a population"
        return decode_json(text, PopulationConfig, name=str(self.config), kind=kind)

    def grid(self, config: PopulationConfig) -> Grid:
        """Return the members of the population.

        Raises:
            DataError: the settings are not valid.
        """
        try:
            return config.grid()
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.config} has settings that are not valid: {error}") from error

    def lock(self) -> AbstractContextManager[None]:
        """Return a context in which no other process trains in this folder; see `process_lock`."""
        return process_lock(self.path / "run.lock", f"training in {self.path}")

    def add(self, result: MemberResult, grid: Grid) -> None:
        """Write the result of a member that has ended. It survives a crash right afterward.

        Args:
            result: the result.
            grid: the settings of the members.

        Raises:
            DataError: a file cannot be written.
        """
        if result.weights is not None:
            write_tensors(self._weights_of(result.member), result.weights, {})
        line = {**vars(result), "settings": grid.described(result.member)}
        del line["weights"]
        with file_errors(f"write {self.members}"):
            append_or_nothing(self.members, (to_json(line) + "\n").encode())
            sync_file(self.members)

    def read(self, grid: Grid) -> list[MemberResult]:
        """Return the results of all members that have ended, with their weights.

        Raises:
            DataError: a file cannot be read, or does not fit the members.
        """
        lines = {line.member: line for line in self._lines()}
        together = self._read_together()
        results = []
        for member, line in lines.items():
            self._check_settings(line, grid)
            fields = msgspec.structs.asdict(line)
            del fields["settings"]
            # A loss that is not finite is null in JSON; figures leave it out.
            fields["curve"] = [(step, loss) for step, loss in line.curve if loss is not None]
            weights = None if line.error else together.get(member) or self._read_one(member)
            results.append(MemberResult(**fields, weights=weights))
        return results

    def load(self, backend: Backend | str = "auto") -> Population:
        """Return the population with the members that have ended.

        Args:
            backend: the backend that computes predictions, or its name.

        Raises:
            DataError: a file cannot be read, or the folder is not that of a population.
        """
        config = self.read_config()
        grid = self.grid(config)
        return Population(grid, self.read(grid), backend=backend)

    def finish(self, population: Population) -> None:
        """Write the table, the weights in one file, the picture and the summary.

        Raises:
            DataError: a file cannot be written.
        """
        with file_errors(f"write {self.table}"):
            write_atomically(self.table, _csv(population.table))
        _draw(self.picture, population)
        summary = {
            "model": population.grid.members[0].model,
            "members": len(population),
            "failed": population.failed,
            **{name: population.summary(name) for name in ("test_accuracy", "test_loss")},
        }
        with file_errors(f"write {self.summary}"):
            write_atomically(self.summary, (to_json(summary, indent=2) + "\n").encode())
        self._write_together(population)
        with file_errors(f"remove {self.unfinished}"):
            if self.unfinished.exists():
                shutil.rmtree(self.unfinished)

    def remove_unfinished(self) -> None:
        """Remove temporary files of a killed process, and a line that a power failure has cut.

        Raises:
            DataError: a file cannot be removed or written.
        """
        with file_errors(f"write to {self.path}"):
            if self.members.exists():
                text = read_regular(self.members, max_bytes=_MAX_MEMBERS_BYTES)
                if not text.endswith(b"\n"):
                    write_atomically(self.members, text[: text.rfind(b"\n") + 1])
            for folder in (self.path, self.unfinished):
                remove_unfinished(folder)

    def _weights_of(self, member: int) -> Path:
        return self.unfinished / f"weights-{member}.safetensors"

    def _lines(self) -> Iterable[_Line]:
        if not self.members.exists():
            return []
        with file_errors(f"read {self.members}"):
            text = read_regular(self.members, max_bytes=_MAX_MEMBERS_BYTES)
        # A power failure can cut the last line; its member counts as not trained.
        complete = text[: text.rfind(b"\n") + 1].splitlines()
        return [
            decode_json(line, _Line, name=f"line {number} of {self.members}", kind="a member")
            for number, line in enumerate(complete, 1)
        ]

    def _check_settings(self, line: _Line, grid: Grid) -> None:
        """Require that a member was trained with the settings in `config.json`.

        Raises:
            DataError: it was not, for example because the file was edited.
        """
        if line.member >= len(grid.members):
            raise DataError(f"{self.members} has more members than {self.config}")
        expected = grid.described(line.member)
        for name, value in line.settings.items():
            if name not in expected or value != expected[name]:
                raise DataError(
                    f"{self.members} and {self.config} do not fit: member {line.member} was "
                    f"trained with {name}={shown(value)}, not with {shown(expected.get(name))}; "
                    "restore the files, or start a new population"
                )

    def _read_one(self, member: int) -> dict[str, Any]:
        tensors, _ = read_tensors(self._weights_of(member))
        return tensors

    def _write_together(self, population: Population) -> None:
        """Write the weights of all members to one file, those with equal shapes in one array."""
        groups: dict[Any, tuple[list[int], list[Weights]]] = {}
        for result in population.results:
            if result is not None and result.weights is not None:
                kind = tuple((k, v.shape, v.dtype.name) for k, v in result.weights.items())
                members, weights = groups.setdefault(kind, ([], []))
                members.append(result.member)
                weights.append(result.weights)
        tensors = {}
        for number, (members, weights) in enumerate(groups.values()):
            tensors[f"{number}.member"] = np.array(members)
            for name in weights[0]:
                tensors[f"{number}.{name}"] = np.stack([one[name] for one in weights])
        write_tensors(self.weights, tensors, {})

    def _read_together(self) -> dict[int, Weights]:
        """Return the weights in the common file by member; empty if it does not exist yet.

        Raises:
            DataError: the file cannot be read, or is not that of a population.
        """
        if not self.weights.exists():
            return {}
        tensors, _ = read_tensors(self.weights)
        groups: dict[str, Weights] = {}
        for key, stack in tensors.items():
            number, _, name = key.partition(".")
            groups.setdefault(number, {})[name] = stack
        weights: dict[int, Weights] = {}
        for group in groups.values():
            members = group.pop("member", None)
            if members is None or any(a.shape[:1] != members.shape for a in group.values()):
                raise DataError(f"{self.weights} does not contain the networks of a population")
            for index, member in enumerate(members.tolist()):
                weights[member] = {name: stack[index] for name, stack in group.items()}
        return weights


def _draw(path: Path, population: Population) -> None:
    """Draw the losses and accuracies of all members."""
    from mnist_accel.plots import Spread, plot_spread  # matplotlib takes long to import

    spreads = []
    for (setting, results), row in zip(population.by_setting(), population.summary(), strict=True):
        spreads.append(
            Spread(
                name=", ".join(f"{name} {setting_text(value)}" for name, value in setting.items())
                or "all",
                curves=[result.curve for result in results],
                accuracies=[r.test_accuracy for r in results if r.test_accuracy is not None],
                interval=(row["low"], row["high"]),
            )
        )
    seeds = count(len({member.seed for member in population.grid.members}), "seed")
    settings = population.grid.members[0]
    title = f"{settings.model} on {settings.dataset}, {seeds} per setting"
    plot_spread(path, spreads=spreads, title=title)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: setting_text(v) if isinstance(v, tuple) else v for name, v in row.items()}
        )
    return text.getvalue().encode()

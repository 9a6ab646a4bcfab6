"""Train every recipe with ten seeds, and check the mean test accuracy.

    make accept                              all recipes on numba; about twenty minutes
    make accept ARGS="--only cnn"            one recipe
    make accept ARGS="--update-readme"       also write the table into README.md
    make accept ARGS="--backend numpy --seeds 1"    another backend; numpy takes an hour per seed

Trains on MNIST, with the default settings of the recipes. The exit code is 1 if an accuracy is too
low or a training failed. Ctrl-C ends the program and prints the table of the complete recipes.
"""

import argparse
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mnist_accel as ma
from mnist_accel.commands.exit_codes import EXIT_INTERRUPTED

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- accuracy: written by `make accept` -->", "<!-- end of accuracy -->"


@dataclass(frozen=True)
class Requirement:
    """A recipe and the test accuracy that it must reach.

    Attributes:
        label: name in the table.
        required: minimum mean test accuracy, 0…1.
        settings: settings that differ from those of the recipe.
        falls: whether the loss must fall all the time.
    """

    label: str
    required: float
    settings: dict[str, Any] = field(default_factory=dict)
    falls: bool = False


REQUIREMENTS = [
    Requirement("two-layer", 0.95, {"model": "two-layer"}),
    Requirement("three-layer", 0.97, {"model": "three-layer"}),
    Requirement("backprop 784-30-10", 0.93, {"model": "backprop"}),
    Requirement("backprop 784-100-10", 0.95, {"model": "backprop", "hidden_sizes": (100,)}),
    Requirement("cnn", 0.80, {"model": "cnn"}),
    Requirement("fcnn", 0.88, {"model": "fcnn"}, falls=True),
    Requirement("lenet", 0.99, {"model": "lenet"}),
    Requirement("fast99", 0.99, {"model": "fast99"}),
]


@dataclass(frozen=True)
class Result:
    """The result of a recipe.

    Attributes:
        text: mean and standard deviation of the test accuracy.
        passed: whether the requirement is fulfilled.
    """

    text: str
    passed: bool


def main() -> int:
    """Train, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="numba", help="default: %(default)s")
    parser.add_argument("--only", help="train only recipes whose label contains this text")
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument(
        "--update-readme", action="store_true", help="write the table into README.md"
    )
    args = parser.parse_args()
    chosen = [r for r in REQUIREMENTS if args.only is None or args.only in r.label]
    results: dict[str, Result] = {}
    interrupted = False
    try:
        for requirement in chosen:
            result = results[requirement.label] = _train(requirement, args.backend, args.seeds)
            print(f"{requirement.label}: {result.text}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        interrupted = True
    table = "\n".join(_table([r for r in chosen if r.label in results], results))
    print(f"\n{table}")
    if interrupted:
        return EXIT_INTERRUPTED
    if args.update_readme:
        _write_into_readme(table)
    return 0 if all(result.passed for result in results.values()) else 1


def _train(requirement: Requirement, backend: str, seeds: int) -> Result:
    """Train a population and return its result."""
    try:
        population = ma.train_population(seeds=seeds, backend=backend, **requirement.settings)
    except Exception as error:  # the other recipes may work
        text = " ".join(str(error).split())
        return Result(f"**failed**: {type(error).__name__}: {text}", passed=False)
    (row,) = population.summary()
    falls = all(_falls(result.curve) for result in population.results if result is not None)
    passed = (
        population.failed == 0
        and row["mean"] >= requirement.required
        and (falls or not requirement.falls)
    )
    deviation = f" ± {row['std']:.2%}" if seeds > 1 else ""
    missed = "" if passed else " **missed**"
    return Result(f"{row['mean']:.2%}{deviation}{missed}", passed)


def _falls(curve: list[tuple[int, float]]) -> bool:
    """Return whether each mean loss of a curve is below the previous one."""
    return all(after[1] < before[1] for before, after in itertools.pairwise(curve))


def _table(requirements: list[Requirement], results: dict[str, Result]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| recipe | required | mean ± standard deviation |", "|---|---|---|"]
    for requirement in requirements:
        required = f"{requirement.required:.1%}" + (", loss falls" if requirement.falls else "")
        lines.append(f"| {requirement.label} | {required} | {results[requirement.label].text} |")
    return lines


def _write_into_readme(table: str) -> None:
    """Replace the text between the two markers."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

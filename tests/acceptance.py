"""Trains every recipe to its end with its own settings, and says whether it is good enough.

    make accept                              all recipes on numpy and numba; about half an hour
    make accept ARGS="--only cnn"            one of them
    make accept ARGS="--update-readme"       and write the table into README.md

Real MNIST, seed 0, default settings. Exit code 1 if an accuracy is missed.
"""

import argparse
import itertools
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnist_accel.run_folder import RunFolder
from mnist_accel.settings import resolve
from mnist_accel.training_run import start_run

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- accuracy: written by `make accept` -->", "<!-- end of accuracy -->"


@dataclass(frozen=True)
class Requirement:
    """A recipe, and the test accuracy that it must reach.

    Attributes:
        label: for the table.
        required: accuracy, 0…1.
        settings: flags of the training, beside the recipe's own.
        falls: whether the loss must fall at every step.
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


def main() -> int:
    """Train, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="numpy,numba", help="default: %(default)s")
    parser.add_argument("--only", help="labels that contain this")
    parser.add_argument("--update-readme", action="store_true", help="write the table there")
    args = parser.parse_args()
    backends = args.backends.split(",")
    chosen = [r for r in REQUIREMENTS if args.only is None or args.only in r.label]
    results = {(r.label, b): _train(r, b) for r in chosen for b in backends}
    table = "\n".join(_table(chosen, backends, results))
    print(f"\n{table}")
    if args.update_readme:
        _write_into_readme(table)
    return 0 if all(passed for _, passed in results.values()) else 1


def _train(requirement: Requirement, backend: str) -> tuple[float, bool]:
    """Train in a temporary folder; return the accuracy, and whether all is as required."""
    settings = resolve({**requirement.settings, "backend": backend, "no_fallback": True, "seed": 0})
    with tempfile.TemporaryDirectory() as temporary:
        out = str(Path(temporary) / "run")
        print(f"{requirement.label} on {backend}: ", end="", file=sys.stderr, flush=True)
        folder = start_run(settings, out=out, quiet=True, progress=False).folder
        accuracy = folder.read_json(folder.summary)["test_accuracy"]
        falls = _loss_falls(folder)
    return accuracy, accuracy >= requirement.required and (falls or not requirement.falls)


def _loss_falls(folder: RunFolder) -> bool:
    """Whether every step's loss is below the one before."""
    losses = [loss for line in folder.read_metrics("steps") for loss in line["losses"]]
    return all(after < before for before, after in itertools.pairwise(losses))


def _table(
    requirements: list[Requirement],
    backends: list[str],
    results: dict[tuple[str, str], tuple[float, bool]],
) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        f"| recipe | required | {' | '.join(backends)} |",
        f"|---|---|{'---|' * len(backends)}",
    ]
    for requirement in requirements:
        cells = []
        for backend in backends:
            accuracy, passed = results[requirement.label, backend]
            cells.append(f"{accuracy:.2%}" if passed else f"{accuracy:.2%} **missed**")
        required = f"{requirement.required:.1%}" + (", loss falls" if requirement.falls else "")
        lines.append(f"| {requirement.label} | {required} | {' | '.join(cells)} |")
    return lines


def _write_into_readme(table: str) -> None:
    """Replace what stands between the two marks."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

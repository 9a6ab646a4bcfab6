"""Train every recipe with its default settings, and check the test accuracy.

    make accept                              all recipes on numpy and numba; about half an hour
    make accept ARGS="--only cnn"            one recipe
    make accept ARGS="--update-readme"       also write the table into README.md
    make accept ARGS="--only fast99 --backends numba --seeds 10"    variation over seeds

Trains on MNIST. The table contains the results of seed 0. The exit code is 1 if an accuracy is too
low. Ctrl-C ends the program and prints the table of the trainings that are complete.
"""

import argparse
import itertools
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mnist_accel.commands.exit_codes import EXIT_INTERRUPTED
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.run import start_run

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- accuracy: written by `make accept` -->", "<!-- end of accuracy -->"


@dataclass(frozen=True)
class Requirement:
    """A recipe and the test accuracy that it must reach.

    Attributes:
        label: name in the table.
        required: minimum test accuracy, 0…1.
        settings: settings that differ from those of the recipe.
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


@dataclass(frozen=True)
class Result:
    """The result of one training.

    Attributes:
        accuracy: test accuracy, 0…1.
        passed: whether the requirement is fulfilled.
        training_s: duration of the steps in seconds, without compilation and validation.
    """

    accuracy: float
    passed: bool
    training_s: float


def main() -> int:
    """Train, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--backends", default="numpy,numba", help="backends to train on (default: %(default)s)"
    )
    parser.add_argument("--only", help="train only recipes whose label contains this text")
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of seeds, from 0 (default: %(default)s)"
    )
    parser.add_argument(
        "--update-readme", action="store_true", help="write the table into README.md"
    )
    args = parser.parse_args()
    backends = args.backends.split(",")
    chosen = [r for r in REQUIREMENTS if args.only is None or args.only in r.label]
    results: dict[tuple[str, str], list[Result]] = {}
    interrupted = False
    try:
        for r, b, seed in itertools.product(chosen, backends, range(args.seeds)):
            result = _train(r, b, seed)
            results.setdefault((r.label, b), []).append(result)
    except KeyboardInterrupt:
        interrupted = True
    first = {key: of_all_seeds[0] for key, of_all_seeds in results.items()}
    table = "\n".join(_table(chosen, backends, first))
    print(f"\n{table}")
    if args.seeds > 1:
        print("\n".join(_over_seeds(results)))
    if interrupted:
        return EXIT_INTERRUPTED
    if args.update_readme:
        _write_into_readme(table)
    return 0 if all(one.passed for of_all_seeds in results.values() for one in of_all_seeds) else 1


def _train(requirement: Requirement, backend: str, seed: int) -> Result:
    """Train in a temporary folder and return the result.

    Raises:
        KeyboardInterrupt: the training was interrupted.
    """
    flags = {"backend": backend, "no_fallback": True, "seed": seed}
    settings = resolve({**requirement.settings, **flags})
    with tempfile.TemporaryDirectory() as temporary:
        out = str(Path(temporary) / "run")
        print(f"{requirement.label} on {backend}: ", end="", file=sys.stderr, flush=True)
        run = start_run(settings, out=out, quiet=True, progress=False)
        if run.signal is not None:
            raise KeyboardInterrupt
        folder = run.folder
        accuracy = folder.read_json(folder.summary)["test_accuracy"]
        falls = _loss_falls(folder)
        training_s = sum(line["seconds"] for line in folder.read_metrics("steps"))
    passed = accuracy >= requirement.required and (falls or not requirement.falls)
    return Result(accuracy, passed, training_s)


def _loss_falls(folder: RunFolder) -> bool:
    """Return whether the loss of every step is below that of the previous step."""
    losses = [loss for line in folder.read_metrics("steps") for loss in line["losses"]]
    return all(after < before for before, after in itertools.pairwise(losses))


def _table(
    requirements: list[Requirement],
    backends: list[str],
    results: dict[tuple[str, str], Result],
) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        f"| recipe | required | {' | '.join(backends)} |",
        f"|---|---|{'---|' * len(backends)}",
    ]
    for requirement in requirements:
        cells = []
        for backend in backends:
            result = results.get((requirement.label, backend))
            missed = "" if result is None or result.passed else " **missed**"
            cells.append("not reached" if result is None else f"{result.accuracy:.2%}{missed}")
        required = f"{requirement.required:.1%}" + (", loss falls" if requirement.falls else "")
        lines.append(f"| {requirement.label} | {required} | {' | '.join(cells)} |")
    return lines


def _over_seeds(results: dict[tuple[str, str], list[Result]]) -> list[str]:
    """Return one line per recipe and backend: mean and range over the seeds."""
    lines = []
    for (label, backend), of_all_seeds in results.items():
        accuracies = [one.accuracy for one in of_all_seeds]
        seconds = [one.training_s for one in of_all_seeds]
        lines.append(
            f"{label} on {backend}, {len(of_all_seeds)} seeds: "
            f"mean accuracy {fmean(accuracies):.2%}, lowest {min(accuracies):.2%}; "
            f"mean training time {fmean(seconds):.1f} s, {min(seconds):.1f} to {max(seconds):.1f}"
        )
    return lines


def _write_into_readme(table: str) -> None:
    """Replace the text between the two markers."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

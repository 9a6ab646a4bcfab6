"""The parts of the report that each answer one question about training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from benchmarks.report.analysis import Analysis
from benchmarks.report.estimator_table import estimator_table
from benchmarks.report.population_table import population_table
from benchmarks.report.tables import Table, case_table, comparison_table
from benchmarks.storage.schema import Case, Sweep

MakeTable: TypeAlias = Callable[[Analysis, Sequence[Case]], Table]


@dataclass(frozen=True)
class Section:
    """A table with its heading and an introduction; `name` is its anchor on the page."""

    name: str
    heading: str
    text: str
    table: Table
    cases: tuple[Case, ...]


# Series of cases: name, heading, introduction.
_SERIES: tuple[tuple[Sweep, str, str], ...] = (
    (
        "raw",
        "An epoch from raw arrays",
        "Each call begins with the uint8 arrays of the user: it checks and converts them, moves "
        "them to the device if there is one, and trains one epoch.",
    ),
    (
        "step",
        "A single update",
        "One call makes one update on prepared data, so the fixed cost of a call counts in full.",
    ),
    (
        "full",
        "Images with much ink",
        "MNIST on a background of noise: 55 % of the pixels are not zero, about as many as in "
        "Fashion-MNIST, so kernels that skip zeros gain nothing.",
    ),
    (
        "features",
        "Dense features",
        "The network two-layer on random numbers, of which none is zero.",
    ),
    (
        "simplechains",
        "LeNet-5 as SimpleChains.jl measures it",
        "The first convolution has no padding, and Adam has a learning rate of 3e-4. The authors "
        "of SimpleChains.jl published 23.7 to 25.2 k images/s per core on an Intel i7-1165G7 and "
        "an i9-10980XE (julialang.org/blog/2022/04/simple-chains). Those are other machines: the "
        "figures show the order of magnitude, not a ratio.",
    ),
    (
        "threads",
        "Fewer threads",
        "The processes of all contenders are bound to this number of cores. The recipes above "
        "use all cores.",
    ),
)


def sections(analysis: Analysis) -> Iterator[Section]:
    """Yield the sections that have measurements."""
    for sweep, heading, text in _SERIES:
        if cases := analysis.cases_with(sweep):
            table = case_table(analysis, cases, with_absent=False)
            yield Section(sweep, heading, text, table, tuple(cases))
    if cases := analysis.results.cases("start"):
        text = (
            "Seconds from the start of a process to the end of its first update: it imports the "
            "library, reads the training set and compiles. A cold start has no compiled code on "
            "disk, a second start finds that of an earlier process. Each turn is a new process."
        )
        table = case_table(analysis, cases, with_absent=False)
        yield Section("start", "Cold start and second start", text, table, tuple(cases))

    if cases := analysis.results.cases("population"):
        text = (
            "Several networks at once, each with its own seed, image order and one of two learning "
            "rates. numba trains one network per core; numba-one-thread trains them one after the "
            "other on one thread, numba-in-turn one after the other on all cores. jax is "
            "`jit(vmap(scan))`, torch-eager is `torch.func.vmap`, scikit-learn runs in the "
            "processes of joblib. Memory is the peak of a process, with its children, that runs "
            "only this case."
        )
        table = population_table(analysis, cases)
        yield Section("population", "Populations", text, table, tuple(cases))
    if cases := analysis.results.cases("estimator"):
        text = (
            "NetworkClassifier and NetworkRegressor against MLPClassifier and MLPRegressor: one "
            "hidden layer of 100 units, Adam, batches of 200, in float32 or float64. A fit begins "
            "with the arrays of the user and trains until it converges, or until max_iter, which "
            "is the default of 200 for the digits and smaller for the larger sets. full images are "
            "MNIST with as much ink as Fashion-MNIST. Scores are those of test examples after the "
            "timed fits, with one seed per pass. Regressors learn the number of the class."
        )
        table = estimator_table(analysis, cases)
        yield Section("estimator", "Estimators of scikit-learn", text, table, tuple(cases))


def published_tables(analysis: Analysis) -> dict[str, Callable[[], Table] | None]:
    """Return the tables that documents may contain, by name; None for those without results."""
    results = analysis.results
    populations, estimators = results.cases("population"), results.cases("estimator")
    largest = max((case.members for case in populations), default=0)
    compared: dict[str, Sequence[Case]] = {
        "recipes": analysis.recipes(),
        "inference": results.cases("inference"),
        "start": results.cases("start"),
        "width": analysis.cases_with("width"),
        **{sweep: analysis.cases_with(sweep) for sweep, _, _ in _SERIES},
    }
    found: dict[str, tuple[MakeTable, Sequence[Case]]] = {
        **{name: (comparison_table, cases) for name, cases in compared.items()},
        "population": (population_table, populations),
        "populations": (
            population_table,
            [case for case in populations if case.members == largest],
        ),
        "estimator": (estimator_table, estimators),
        "estimators": (
            estimator_table,
            [case for case in estimators if case.name.endswith("classifier, float32")],
        ),
    }
    return {
        name: partial(_published, analysis, make, cases) if cases else None
        for name, (make, cases) in found.items()
    }


def _published(analysis: Analysis, make: MakeTable, cases: Sequence[Case]) -> Table:
    """Return a table without the cases whose ratio is undecided; a note names them."""
    decided, undecided = analysis.divide(cases)
    table = make(analysis, decided)
    if not undecided:
        return table
    names = "; ".join(case.name for case in undecided)
    note = f"Not shown, because their ratios are undecided: {names}."
    return replace(table, notes=(*table.notes, note))

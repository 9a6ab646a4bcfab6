"""The cases of the suite: networks at several sizes, and the operations that they consist of.

A case is a description with a name; it computes nothing. Cases are sent to the processes that
measure them.
"""

from typing import ClassVar, Literal, TypeAlias

from msgspec import Struct

from benchmarks.storage.schema import Sweep, TimedLevel
from benchmarks.suite.networks import PIXELS, SIMPLECHAINS, create_network
from mnist_accel.nn import Network
from mnist_accel.recipes.models import RECIPES

Profile: TypeAlias = Literal["quick", "full"]
Direction: TypeAlias = Literal["forward", "backward"]
Call: TypeAlias = Literal["epoch", "raw", "step"]
Cache: TypeAlias = Literal["cold", "second"]
Task: TypeAlias = Literal["classifier", "regressor"]
Float: TypeAlias = Literal["float32", "float64"]
_Shape: TypeAlias = tuple[int, ...]
PROFILES: tuple[Profile, ...] = ("quick", "full")
FLOATS: tuple[Float, ...] = ("float32", "float64")
LEVELS = ("training", "inference", "operations", "start", "population", "estimator", "accuracy")

# Steps per timed epoch, by batch size. They take much longer than the work that a library does once
# per epoch, but a run can still time many epochs.
STEPS = {1: 1000, 10: 500, 64: 200, 256: 60, 512: 40, 4096: 5}
BATCH_SIZES = {"two-layer": (1, 10, 64, 512, 4096), "cnn": (1, 64, 512), "lenet": (1, 64, 512)}
WIDTHS = (50, 128, 512, 2048)
DEPTHS = (1, 3, 8)
FULL_SET = 60_000
# Populations: networks with their batch sizes, and numbers of members.
POPULATION_NETWORKS = (
    ("two-layer", 512),
    ("two-layer", 64),
    ("backprop", 10),
    ("cnn", 1),
    ("cnn", 64),
    ("lenet", 64),
)
MEMBERS = (1, 2, 8, 32, 128)
# Maximum number of epochs of a fit, by data set. 200 is the default of scikit-learn. "full images"
# have as much ink as those of Fashion-MNIST, which may be impossible to download.
FIT_EPOCHS = {"digits": 200, "features": 50, "mnist": 5, "fashion-mnist": 5, "full images": 5}
_FEATURES = 100  # numbers per example of the smaller set of dense data


class TrainingCase(Struct, frozen=True, tag="training"):
    """A network to train at one batch size.

    Attributes:
        network: name of the recipe, or `SIMPLECHAINS`.
        batch: images per step.
        hidden_sizes: units of its hidden layers; the recipe's if None.
        sweeps: the series that the case belongs to: "recipe" is the network at the recipe's own
            batch size; "batch", "width", "depth" and "threads" show how the cost changes with each.
        images: "mnist"; "full" has as much ink as Fashion-MNIST; "dense" is random numbers.
        inputs: numbers per example.
        call: what is timed: an epoch on prepared data; with "raw", an epoch that begins with the
            arrays of the user; with "step", a single update on prepared data.
        threads: cores that a contender may use; None for all of the run.
    """

    level: ClassVar[TimedLevel] = "training"
    network: str
    batch: int
    hidden_sizes: tuple[int, ...] | None = None
    sweeps: tuple[Sweep, ...] = ()
    images: Literal["mnist", "full", "dense"] = "mnist"
    inputs: int = PIXELS
    call: Call = "epoch"
    threads: int | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        sizes = "" if self.hidden_sizes is None else f" {'-'.join(map(str, self.hidden_sizes))}"
        parts = [f"{self.network}{sizes}, batch {self.batch}"]
        if self.images == "full":
            parts.append("full images")
        if self.images == "dense":
            parts.append(f"{self.inputs} features")
        if self.call != "epoch":
            parts.append({"raw": "raw arrays", "step": "one step"}[self.call])
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        return ", ".join(parts)

    @property
    def steps(self) -> int:
        """Updates per epoch; `fit` from raw arrays has the whole training set if there is time."""
        if self.call == "raw":
            return FULL_SET // self.batch
        return STEPS.get(self.batch, 1)

    def model(self) -> Network:
        """Return the network on NumPy, with the initial weights of seed 0."""
        return create_network(self.network, hidden_sizes=self.hidden_sizes, inputs=self.inputs)


class InferenceCase(Struct, frozen=True, tag="inference"):
    """A network whose predictions are timed.

    Attributes:
        network: name of the recipe.
        batch: images per call.
    """

    level: ClassVar[TimedLevel] = "inference"
    network: str
    batch: int

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.network}, batch {self.batch}"

    def model(self) -> Network:
        """Return the network on NumPy, with the initial weights of seed 0."""
        return create_network(self.network)


class OperationCase(Struct, frozen=True, tag="operations"):
    """An operation of a network.

    Attributes:
        operation: name, as in `OperationTask`.
        direction: "forward" or "backward".
        shape: shape of one input without the batch; of the whole vector for updates.
        batch: images per call; 1 for updates.
        settings: names and values of the keyword arguments of the operation.
        weight_shape: shape of the weight; None if the operation has none.
    """

    level: ClassVar[TimedLevel] = "operations"
    operation: str
    direction: Direction
    shape: _Shape
    batch: int
    settings: tuple[tuple[str, int | float], ...] = ()
    weight_shape: _Shape | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        size = "×".join(map(str, self.weight_shape or self.shape))
        batch = "" if self.operation.endswith("update") else f", batch {self.batch}"
        return f"{self.operation} {self.direction} {size}{batch}"


class StartCase(Struct, frozen=True, tag="start"):
    """The time from the start of a process to the end of the first update.

    Attributes:
        network: name of the recipe.
        batch: images per step.
        cache: "cold" if no compiled code is on disk, "second" if an earlier process left it.
    """

    level: ClassVar[TimedLevel] = "start"
    network: str
    batch: int
    cache: Cache

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.network}, {self.cache} start"

    def training(self) -> TrainingCase:
        """Return the training that starts."""
        return TrainingCase(self.network, self.batch)


class AccuracyCase(Struct, frozen=True, tag="accuracy"):
    """A network to train until it reaches a validation accuracy.

    Attributes:
        network: name of the recipe.
        batch: images per step.
        target: validation accuracy at which training ends, 0…1.
        max_epochs: epochs after which training ends without reaching the target.
        lr: learning rate; the recipe's if None.
    """

    level: ClassVar[Literal["accuracy"]] = "accuracy"
    network: str
    batch: int
    target: float
    max_epochs: int
    lr: float | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.network} to {self.target:.0%}"

    def model(self, seed: int) -> Network:
        """Return the network on NumPy, with the initial weights of this seed."""
        return create_network(self.network, seed=seed)


class PopulationCase(Struct, frozen=True, tag="population"):
    """Networks that are trained at once.

    Attributes:
        network: name of the recipe.
        batch: images per step of each network.
        members: number of networks, 1 or even: half of them have half the learning rate.
    """

    level: ClassVar[TimedLevel] = "population"
    sweeps: ClassVar[tuple[Sweep, ...]] = ("members",)
    network: str
    batch: int
    members: int

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.members} × {self.network}, batch {self.batch}"

    @property
    def steps(self) -> int:
        """Updates of each network per epoch, in whole batches."""
        return FULL_SET // self.batch


class EstimatorCase(Struct, frozen=True, tag="estimator"):
    """A scikit-learn estimator that is fitted with the defaults of `MLPClassifier`.

    Attributes:
        data: a key of `FIT_EPOCHS`.
        task: what the estimator is.
        dtype: of the features.
    """

    level: ClassVar[TimedLevel] = "estimator"
    batch: ClassVar[int] = 200
    data: str
    task: Task
    dtype: Float

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.data}, {self.task}, {self.dtype}"

    @property
    def network(self) -> str:
        """The data set, by which cases are grouped: all of them train the same network."""
        return self.data

    @property
    def epochs(self) -> int:
        """Maximum number of epochs."""
        return FIT_EPOCHS[self.data]


TimedCase: TypeAlias = TrainingCase | InferenceCase | OperationCase | PopulationCase | EstimatorCase
Case: TypeAlias = TimedCase | StartCase | AccuracyCase


def recipe_batch(network: str) -> int:
    """Return the batch size of a recipe."""
    return RECIPES[network].batch_size or FULL_SET


def training_cases(profile: Profile, threads: int = 1) -> list[TrainingCase]:
    """Return the training cases of a profile; `threads` is the number of cores of the run."""
    if profile == "quick":
        quick = {"two-layer": (64, 512), "backprop": (10,), "cnn": (1,), "lenet": (64,)}
        return [
            TrainingCase(network, batch, sweeps=_sweeps(network, batch))
            for network, batches in quick.items()
            for batch in batches
        ]
    cases = [
        TrainingCase(network, batch, sweeps=_sweeps(network, batch))
        for network in RECIPES
        for batch in sorted({recipe_batch(network), *BATCH_SIZES.get(network, ())})
    ]
    cases += [TrainingCase("two-layer", 512, (width,), ("width",)) for width in WIDTHS]
    cases += [TrainingCase("fcnn", 64, (64,) * depth, ("depth",)) for depth in DEPTHS]
    common = (("two-layer", 512), ("two-layer", 64), ("backprop", 10))
    cases += [TrainingCase(*sizes, sweeps=("raw",), call="raw") for sizes in common]
    cases += [TrainingCase(*sizes, sweeps=("full",), images="full") for sizes in common]
    cases += [
        TrainingCase("two-layer", 512, sweeps=("features",), images="dense", inputs=inputs)
        for inputs in (_FEATURES, PIXELS)
    ]
    cases += [TrainingCase("two-layer", 64, sweeps=("step",), call="step")]
    cases += [TrainingCase(SIMPLECHAINS, batch, sweeps=("simplechains",)) for batch in (64, 256)]
    cases += [
        TrainingCase(network, batch, sweeps=("threads",), threads=count)
        for network, batch in (("two-layer", 512), ("lenet", 64))
        for count in _thread_counts(threads)
    ]
    return cases


def _thread_counts(threads: int) -> list[int]:
    """Return 1, 2, 4, … below the number of cores; the recipes are measured on all of them."""
    return [2**power for power in range(threads.bit_length()) if 2**power < threads]


def _sweeps(network: str, batch: int) -> tuple[Sweep, ...]:
    sweeps: list[Sweep] = ["recipe"] if batch == recipe_batch(network) else []
    return (*sweeps, "batch") if batch in BATCH_SIZES.get(network, ()) else tuple(sweeps)


def inference_cases(profile: Profile) -> list[InferenceCase]:
    """Return the inference cases of a profile: latency of one image, and throughput of many."""
    both = (1, 4096)
    batches: dict[str, tuple[int, ...]] = dict.fromkeys(("two-layer", "cnn", "lenet"), both)
    if profile == "quick":
        batches = {"two-layer": both}
    return [InferenceCase(network, batch) for network in batches for batch in batches[network]]


def operation_cases(profile: Profile) -> list[OperationCase]:
    """Return the operation cases of a profile, with the sizes of the recipes."""
    adam = (("lr", 1e-3), ("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8), ("step", 2))
    fused = (("stride", 1), ("padding", 2), ("size", 2))
    # Name, shape of an image, settings, shape of the weight.
    layers: tuple[tuple[str, _Shape, tuple[tuple[str, int | float], ...], _Shape | None], ...] = (
        ("linear", (784,), (), (784, 50)),
        ("conv2d", (6, 14, 14), (("stride", 1), ("padding", 0)), (16, 6, 5, 5)),
        ("max_pool2d", (8, 26, 26), (("size", 2),), None),
        ("conv2d_relu_max_pool2d", (1, 28, 28), fused, (6, 1, 5, 5)),
    )
    directions: tuple[Direction, ...] = ("forward", "backward")
    cases = [
        OperationCase("sgd_update", "forward", (39_760,), 1, (("lr", 1e-3),)),
        OperationCase("adam_update", "forward", (61_706,), 1, adam),
    ]
    for batch in (64,) if profile == "quick" else (1, 64):
        cases.append(OperationCase("softmax_cross_entropy", "forward", (10,), batch))
        cases += [
            OperationCase(name, direction, shape, batch, settings, weight_shape)
            for direction in directions
            for name, shape, settings, weight_shape in layers
        ]
    return cases


def start_cases(profile: Profile) -> list[StartCase]:
    """Return the cold and second starts; none in the quick profile, because they compile."""
    if profile == "quick":
        return []
    caches: tuple[Cache, ...] = ("cold", "second")
    return [
        StartCase(n, recipe_batch(n), cache) for n in ("two-layer", "lenet") for cache in caches
    ]


def population_cases(profile: Profile) -> list[PopulationCase]:
    """Return the populations of a profile."""
    if profile == "quick":
        return [PopulationCase("two-layer", 512, members) for members in (1, 8)]
    return [
        PopulationCase(network, batch, members)
        for network, batch in POPULATION_NETWORKS
        for members in MEMBERS
    ]


def estimator_cases(profile: Profile) -> list[EstimatorCase]:
    """Return the fits of a profile."""
    if profile == "quick":
        return [
            EstimatorCase("digits", "classifier", "float32"),
            EstimatorCase("features", "regressor", "float64"),
        ]
    tasks: tuple[Task, ...] = ("classifier", "regressor")
    return [
        EstimatorCase(data, task, dtype)
        for data in FIT_EPOCHS
        for task in tasks
        for dtype in FLOATS
    ]


def accuracy_cases(profile: Profile) -> list[AccuracyCase]:
    """Return the time-to-accuracy cases; there are none in the quick profile."""
    if profile == "quick":
        return []
    return [
        AccuracyCase("two-layer", 64, 0.95, 20),
        AccuracyCase("three-layer", 64, 0.97, 20),
        # With a constant learning rate, only larger batches, whose gradients have less noise,
        # reach 99 %.
        AccuracyCase("fast99", 256, 0.99, 20, lr=0.003),
    ]

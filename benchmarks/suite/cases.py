"""The cases of the suite: networks at several sizes, and the operations that they consist of.

A case is a description with a name; it computes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from benchmarks.storage.schema import Sweep, TimedLevel
from mnist_accel.nn import Network
from mnist_accel.recipes.models import RECIPES, create_model

Profile: TypeAlias = Literal["quick", "full"]
Direction: TypeAlias = Literal["forward", "backward"]
_Shape: TypeAlias = tuple[int, ...]
PROFILES: tuple[Profile, ...] = ("quick", "full")
LEVELS = ("training", "inference", "operations", "accuracy")

# Steps per timed epoch, by batch size. They take much longer than the work that a library does once
# per epoch, but a run can still time many epochs.
STEPS = {1: 1000, 10: 500, 64: 200, 512: 40, 4096: 5}
BATCH_SIZES = tuple(STEPS)
WIDTHS = (25, 50, 100, 200, 400, 800)
DEPTHS = (1, 2, 4, 8)
FULL_SET = 60_000


@dataclass(frozen=True)
class TrainingCase:
    """A network to train at one batch size.

    Attributes:
        network: name of the recipe.
        batch: images per step.
        hidden_sizes: units of its hidden layers; the recipe's if None.
        sweeps: the series that the case belongs to: "recipe" is the network at the recipe's own
            batch size; "batch", "width" and "depth" show how the cost grows with each.
    """

    level: ClassVar[TimedLevel] = "training"
    network: str
    batch: int
    hidden_sizes: tuple[int, ...] | None = None
    sweeps: tuple[Sweep, ...] = ()

    @property
    def name(self) -> str:
        """Name in reports."""
        sizes = "" if self.hidden_sizes is None else f" {'-'.join(map(str, self.hidden_sizes))}"
        return f"{self.network}{sizes}, batch {self.batch}"

    @property
    def steps(self) -> int:
        """Updates per epoch."""
        return STEPS.get(self.batch, 1)

    def model(self) -> Network:
        """Return the network on NumPy, with the initial weights of seed 0."""
        return create_model(self.network, backend="numpy", hidden_sizes=self.hidden_sizes)


@dataclass(frozen=True)
class InferenceCase:
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
        return create_model(self.network, backend="numpy")


@dataclass(frozen=True)
class OperationCase:
    """An operation of a network.

    Attributes:
        operation: name, as in `OperationTask`.
        direction: "forward" or "backward".
        shape: shape of one input without the batch; of the whole vector for updates.
        batch: images per call; 1 for updates.
        settings: keyword arguments of the operation.
        weight_shape: shape of the weight; None if the operation has none.
    """

    level: ClassVar[TimedLevel] = "operations"
    operation: str
    direction: Direction
    shape: _Shape
    batch: int
    settings: Mapping[str, float] = field(default_factory=dict, hash=False)
    weight_shape: _Shape | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        size = "×".join(map(str, self.weight_shape or self.shape))
        batch = "" if self.operation.endswith("update") else f", batch {self.batch}"
        return f"{self.operation} {self.direction} {size}{batch}"


@dataclass(frozen=True)
class AccuracyCase:
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
        return create_model(self.network, backend="numpy", seed=seed)


def recipe_batch(network: str) -> int:
    """Return the batch size of a recipe."""
    return RECIPES[network].batch_size or FULL_SET


def training_cases(profile: Profile) -> list[TrainingCase]:
    """Return the training cases of a profile."""
    if profile == "quick":
        quick = {"two-layer": (64, 512), "backprop": (10,), "cnn": (1, 64, 512), "lenet": (64,)}
        return [
            TrainingCase(network, batch, sweeps=_sweeps(network, batch))
            for network, batches in quick.items()
            for batch in batches
        ]
    cases = [
        TrainingCase(network, batch, sweeps=_sweeps(network, batch))
        for network in RECIPES
        for batch in sorted({recipe_batch(network), *BATCH_SIZES})
    ]
    cases += [TrainingCase("two-layer", 512, (width,), ("width",)) for width in WIDTHS]
    cases += [TrainingCase("fcnn", 64, (64,) * depth, ("depth",)) for depth in DEPTHS]
    return cases


def _sweeps(network: str, batch: int) -> tuple[Sweep, ...]:
    sweeps: list[Sweep] = ["recipe"] if batch == recipe_batch(network) else []
    return (*sweeps, "batch") if batch in BATCH_SIZES else tuple(sweeps)


def inference_cases(profile: Profile) -> list[InferenceCase]:
    """Return the inference cases of a profile: latency of one image, and throughput of many."""
    both = (1, 4096)
    batches: dict[str, tuple[int, ...]] = dict.fromkeys(RECIPES, both)
    if profile == "quick":  # lenet on 4096 images takes NumPy and JAX half a second per call
        batches = {"two-layer": both, "cnn": both, "lenet": (1,)}
    return [InferenceCase(network, batch) for network in batches for batch in batches[network]]


def operation_cases(profile: Profile) -> list[OperationCase]:
    """Return the operation cases of a profile, with the sizes of the recipes."""
    adam = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "step": 2}
    fused = {"stride": 1, "padding": 2, "size": 2}
    # Name, shape of an image, settings, shape of the weight.
    layers: tuple[tuple[str, _Shape, Mapping[str, float], _Shape | None], ...] = (
        ("linear", (784,), {}, (784, 50)),
        ("conv2d", (6, 14, 14), {"stride": 1, "padding": 0}, (16, 6, 5, 5)),
        ("max_pool2d", (8, 26, 26), {"size": 2}, None),
        ("conv2d_relu_max_pool2d", (1, 28, 28), fused, (6, 1, 5, 5)),
    )
    directions: tuple[Direction, ...] = ("forward", "backward")
    cases = [
        OperationCase("sgd_update", "forward", (39_760,), 1, {"lr": 1e-3}),
        OperationCase("adam_update", "forward", (61_706,), 1, adam),
    ]
    for batch in (64,) if profile == "quick" else (1, 64, 512):
        cases.append(OperationCase("softmax_cross_entropy", "forward", (10,), batch))
        cases += [
            OperationCase(name, direction, shape, batch, settings, weight_shape)
            for direction in directions
            for name, shape, settings, weight_shape in layers
        ]
    return cases


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

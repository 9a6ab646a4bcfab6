"""Explain how a recipe is computed on each backend: what `mnist-accel doctor --explain` shows."""

from dataclasses import dataclass

from backends import (
    Availability,
    NotCompiledError,
    Stage,
    available_backends,
    create_optimizer,
    get_backend,
)
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, Recipe, create_model, model_name
from mnist_accel.training.trainer import Trainer


@dataclass(frozen=True)
class TrainingMode:
    """How one backend trains the network.

    Attributes:
        backend: name of the backend.
        how: "compiled" or "eager" with a description, or the reason why the backend cannot run.
        max_threads: largest useful number of CPU threads; None if the backend does not limit it.
        remarks: remarks on some of the stages, or on the cost of eager steps.
    """

    backend: str
    how: str
    max_threads: int | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageDescription:
    """A stage of the compiled program as text.

    Attributes:
        layer: the layer.
        fused: operations fused with the layer, or "–".
        shapes: shapes of input and output of one image.
    """

    layer: str
    fused: str
    shapes: str


@dataclass(frozen=True)
class Explanation:
    """How a recipe is computed.

    Attributes:
        model: name of the recipe.
        network: layers of the network.
        training: loss, optimizer and batches.
        ways: how each known backend trains the network.
        stages: stages of the compiled program; empty if the recipe has no compiled form.
        not_lowered: the reason why it has none; empty if it has one.
    """

    model: str
    network: str
    training: str
    ways: tuple[TrainingMode, ...]
    stages: tuple[StageDescription, ...]
    not_lowered: str


def explain(name: str) -> Explanation:
    """Return how the recipe called `name` is computed on each known backend.

    Raises:
        ValueError: the recipe is unknown.
    """
    name = model_name(name)
    recipe = RECIPES[name]
    model = create_model(name, backend="numpy")
    stages: tuple[Stage, ...] = ()
    not_lowered = ""
    try:
        stages = model.training_program(create_optimizer(recipe.optimizer)).stages
    except NotCompiledError as reason:
        not_lowered = str(reason)
    return Explanation(
        model=name,
        network=model.describe(),
        training=_describe_training(recipe, model),
        ways=tuple(_training_mode(recipe, name, *known) for known in available_backends().items()),
        stages=tuple(_describe_stage(stage) for stage in stages),
        not_lowered=not_lowered,
    )


def _describe_training(recipe: Recipe, model: Network) -> str:
    size = recipe.batch_size
    batches = {0: "the whole set at each step", 1: "batches of 1 image"}
    loss = model.loss.kind.replace("_", " ")
    return f"{loss}, {recipe.optimizer}, {batches.get(size, f'batches of {size} images')}"


def _training_mode(
    recipe: Recipe, model: str, backend_name: str, availability: Availability
) -> TrainingMode:
    """Return how a backend trains a recipe, by preparing the training."""
    if not availability.ok:
        return TrainingMode(backend_name, f"cannot run here: {availability.reason}")
    backend = get_backend(backend_name)
    trainer = Trainer(create_model(model, backend=backend), recipe.optimizer)
    if trainer.compiled is None:
        how = f"eager: {trainer.not_compiled}"
        cost = (backend.eager_cost,) if backend.eager_cost else ()
        return TrainingMode(backend_name, how, backend.max_threads, cost)
    remarks = trainer.compiled.remarks().items()
    return TrainingMode(
        backend_name,
        "compiled: one call runs many steps",
        backend.max_threads,
        tuple(f"stage {number + 1} takes {remark}" for number, remark in remarks),
    )


def _describe_stage(stage: Stage) -> StageDescription:
    layer: str = stage.activation if stage.kind == "activation" else stage.kind
    fused: list[str] = []
    if stage.kind == "conv2d":
        layer += f" {stage.kernel_size}×{stage.kernel_size}"
        if stage.padding:
            layer += f", padding {stage.padding}"
    if stage.kind != "activation" and stage.activation != "identity":
        fused.append(stage.activation)
    if stage.pooling is not None:
        size = f"{stage.pooling.size}×{stage.pooling.size}"
        if stage.kind == "conv2d":
            fused.append(f"max_pool2d {size}")
        else:
            layer += f" {size}"
    shapes = ("×".join(map(str, shape)) for shape in (stage.input_shape, stage.output_shape))
    return StageDescription(layer, ", ".join(fused) or "–", " → ".join(shapes))

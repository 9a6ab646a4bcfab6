"""How a recipe is computed on each backend: what `mnist-accel doctor --explain` shows."""

from dataclasses import dataclass

from backends import Availability, Stage, available_backends, get_backend
from mnist_accel.nn.lowering import NotLoweredError, lower_training
from mnist_accel.nn.network import Network
from mnist_accel.nn.optimizers import create_optimizer
from mnist_accel.recipes.models import Recipe, create_model, get_recipe
from mnist_accel.training.trainer import Trainer


@dataclass(frozen=True)
class Way:
    """How one backend trains the network.

    Attributes:
        backend: its name.
        how: in words; where many steps do not run in one call, the reason.
        max_threads: how many threads of the CPU it takes at most; None where it does not say.
        remarks: what is special about some of the stages.
    """

    backend: str
    how: str
    max_threads: int | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageInWords:
    """A stage of compiled epochs.

    Attributes:
        layer: what it computes.
        fused: what is computed along with it, while its output is at hand.
        shapes: of what goes in and what comes out.
    """

    layer: str
    fused: str
    shapes: str


@dataclass(frozen=True)
class Explanation:
    """How a recipe is computed.

    Attributes:
        model: name of the recipe.
        network: its layers.
        training: loss, optimizer and batches.
        ways: of all backends that are known here.
        stages: of compiled epochs.
        not_lowered: why there are no stages; empty where there are.
    """

    model: str
    network: str
    training: str
    ways: tuple[Way, ...]
    stages: tuple[StageInWords, ...]
    not_lowered: str


def explain(name: str) -> Explanation:
    """Return how the recipe called `name` is computed on each backend that is known here.

    Raises:
        ValueError: no recipe has this name.
    """
    recipe = get_recipe(name)
    model = create_model(name, backend="numpy")
    stages: tuple[Stage, ...] = ()
    not_lowered = ""
    try:
        stages = lower_training(model, create_optimizer(recipe.optimizer)).stages
    except NotLoweredError as reason:
        not_lowered = str(reason)
    return Explanation(
        model=name,
        network=model.describe(),
        training=_training(recipe, model),
        ways=tuple(_way(recipe, name, *known) for known in available_backends().items()),
        stages=tuple(_in_words(stage) for stage in stages),
        not_lowered=not_lowered,
    )


def _training(recipe: Recipe, model: Network) -> str:
    size = recipe.batch_size
    batches = {0: "the whole set at every step", 1: "one image at a time"}
    loss = model.loss.kind.replace("_", " ")
    return f"{loss}, {recipe.optimizer}, {batches.get(size, f'batches of {size}')}"


def _way(recipe: Recipe, model: str, backend_name: str, availability: Availability) -> Way:
    """Return how a backend trains a recipe, by preparing to do so."""
    if not availability.ok:
        return Way(backend_name, f"cannot run here: {availability.reason}")
    backend = get_backend(backend_name)
    trainer = Trainer(create_model(model, backend=backend), recipe.optimizer)
    if trainer.compiled is None:
        how = f"operation by operation: {trainer.not_compiled}"
        return Way(backend_name, how, backend.max_threads)
    remarks = tuple(
        f"stage {number + 1} takes {remark}"
        for number, remark in trainer.compiled.remarks().items()
    )
    return Way(backend_name, "whole epochs in one compiled call", backend.max_threads, remarks)


def _in_words(stage: Stage) -> StageInWords:
    words: list[str] = [stage.kind]
    if stage.kind == "activation":
        words = [stage.activation]
    elif stage.activation != "identity":
        words.append(stage.activation)
    if stage.kind == "conv2d":
        words[0] += f" {stage.kernel_size}×{stage.kernel_size}"
        words[0] += f", padding {stage.padding}" if stage.padding else ""
    if stage.pooling is not None:
        size = f"{stage.pooling.size}×{stage.pooling.size}"
        if stage.kind == "conv2d":
            words.append(f"max_pool2d {size}")
        else:
            words[0] += f" {size}"
    layer, *fused = words
    shapes = ("×".join(map(str, shape)) for shape in (stage.input_shape, stage.output_shape))
    return StageInWords(layer, ", ".join(fused) or "–", " → ".join(shapes))

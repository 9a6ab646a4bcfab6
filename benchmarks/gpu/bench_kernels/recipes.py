"""The networks of the recipes, at whose sizes the kernels are measured."""

from backends import TrainingProgram, UpdateRule, create_optimizer
from backends.cupy.plan import Plan, parameters_of, plan_for
from backends.operations.common import Array
from backends.program import Stage
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model


def network_of(recipe: str, dtype: str, *, activation: str | None = None) -> Network:
    """Return the network of a recipe, by default with its own activation."""
    return create_model(recipe, backend="numpy", dtype=dtype, activation=activation)


def optimizer_of(recipe: str) -> UpdateRule:
    """Return the optimizer of a recipe."""
    return create_optimizer(RECIPES[recipe].optimizer)


def plan_of(program: TrainingProgram, *, capability: int = 0) -> Plan:
    """Return the division of a program among kernels, without tensor cores; 0 is the oldest GPU."""
    return plan_for(program, capability=capability)


def multiply_adds(stage: Stage) -> int:
    """Return the multiply-adds of one gradient of a layer with parameters, for an image.

    The forward pass has as many, or four times as many if a convolution is pooled.
    """
    if stage.kind == "linear":
        return stage.input_shape[0] * stage.output_shape[0]
    filters, rows, columns = stage.output_shape
    return filters * rows * columns * stage.input_shape[0] * stage.kernel_size**2


def parameters_of_all(program: TrainingProgram, vector: Array) -> tuple[Array, ...]:
    """Return the weights and biases of all layers as views of the parameter vector."""
    views = (view for stage in program.stages for view in parameters_of(stage, vector))
    return tuple(view for view in views if view is not None)

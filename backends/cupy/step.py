"""A step of a training as a row of launches: what a CUDA graph is captured from.

Forward, a launch a stage, of which the first takes its images from the data set; the linear layers
at the end together with the loss and the way back through them and through the convolutions before
them; back, a launch for each stage that is left and whose input has a gradient that somebody needs;
and one launch for the gradients and the updates of all parameters.
"""

import math
from typing import Any

from backends.cupy.launch.fused_classifier import ACTIVATIONS, Head, HeadConvolution, HeadLayer
from backends.cupy.launch.launches import (
    LOSSES,
    MOST_KERNEL_SIZE,
    RULES,
    Batch,
    Data,
    Launches,
)
from backends.cupy.launch.shapes import MOST_CLASSES, Filters, Windows
from backends.cupy.launch.wgrad_update import MOST_LAYERS, Layer
from backends.cupy.loader import Kernels
from backends.cupy.workspace import Plan, Workspace, maps_of
from backends.operations.common import Array
from backends.program import NotCompiledError, Stage, TrainingProgram, require_kernels


class CapturedStep:
    """The launches of a step.

    Args:
        program: what to launch.
        kernels: of CuPy.

    Attributes:
        plan: what needs memory.

    Raises:
        NotCompiledError: there is no kernel for part of the program.
    """

    def __init__(self, program: TrainingProgram, kernels: Kernels) -> None:
        _require_kernels(program)
        self._program = program
        self._kernels = kernels
        last = program.stages[-1]
        has_head = (last.kind, last.activation) == ("linear", "identity")
        has_head = has_head and last.output_shape[0] <= MOST_CLASSES
        stages = _with_a_first_that_gathers(program.stages, has_head=has_head)
        lowest = next(number for number, stage in enumerate(stages) if stage.weight is not None)
        self.plan = Plan(program.dtype, stages, has_head, lowest)

    def launch(self, data: Data, workspace: Workspace, parameters: tuple[Array, ...]) -> None:
        """Launch the kernels of a step in their order.

        Args:
            data: the data set.
            workspace: of the plan.
            parameters: the parameter vector, and the arrays of the optimizer; changed in place.
        """
        program, plan = self._program, self.plan
        batch = Batch(data, workspace.section, workspace.step, program.pixel_shift)
        launches = Launches(self._kernels, program.dtype, batch=batch)
        weights, head = parameters[0], plan.first_of_head()
        for index in range(head):
            self._forward(launches, batch, workspace, weights, index)
        if plan.has_head:
            self._head(launches, batch, workspace, weights, head)
        else:
            self._loss(launches, batch, workspace)
        for index in range(plan.first_of_way_back() - 1, plan.lowest, -1):
            self._backward(launches, workspace, weights, index)
        launches.descend(
            program.update.kind,
            [
                self._layer(workspace, index)
                for index, stage in enumerate(plan.stages)
                if stage.weight is not None
            ],
            *(workspace.tile, batch, parameters, program.update.settings),
        )

    def _forward(
        self, launches: Launches, batch: Batch, workspace: Workspace, weights: Array, index: int
    ) -> None:
        """Compute the outputs of a stage."""
        stage, x = self.plan.stages[index], batch if index == 0 else self._input(workspace, index)
        y, mask = workspace.outputs[index], workspace.masks[index]
        weight, bias = parameters_of(stage, weights)
        if stage.kind == "linear":
            launches.linear(x, weight, bias, y, stage.activation)
        elif stage.kind == "conv2d":
            launches.conv2d(
                x, weight, bias, y, mask, maps_of(stage), _filters(stage), stage.activation
            )
        elif stage.kind == "max_pool2d":
            assert stage.pooling is not None
            launches.max_pool2d(x, y, mask, _windows(stage), stage.pooling.ties)
        elif stage.kind == "avg_pool2d":
            launches.avg_pool2d(x, y, _windows(stage))
        else:
            launches.activation(x, y, stage.activation)

    def _head(
        self, launches: Launches, batch: Batch, workspace: Workspace, weights: Array, first: int
    ) -> None:
        """Compute the stages from the first of the head on, the loss, and the way back."""
        stages = self.plan.stages
        layers = [
            HeadLayer(
                x=workspace.outputs[index - 1],
                dx=workspace.gradients[index - 1],
                weight=stage.weight,
                bias=stage.bias,
                inputs=stage.input_shape[0],
                outputs=stage.output_shape[0],
                below=stages[index - 1].activation,
            )
            for index, stage in enumerate(stages[first:], first)
            if stage.weight is not None
        ]
        convolutions = [
            self._convolution(workspace, index)
            for index in range(first - 1, self.plan.first_of_way_back() - 1, -1)
        ]
        head = Head(self._program.dtype, workspace.capacity, layers, convolutions)
        launches.head(self._program.loss, head, weights, batch, workspace.gradients[-1])

    def _convolution(self, workspace: Workspace, index: int) -> HeadConvolution:
        """Return a stage through which the head takes the gradients back."""
        stage, before = self.plan.stages[index], workspace.gradients[index - 1]
        assert stage.weight is not None
        assert before is not None
        return HeadConvolution(
            x=self._input(workspace, index),
            dy=workspace.gradients[index],
            mask=workspace.masks[index],
            dx=before,
            weight=stage.weight,
            below=self.plan.stages[index - 1].activation,
            maps=maps_of(stage),
            kernel_size=stage.kernel_size,
        )

    def _loss(self, launches: Launches, batch: Batch, workspace: Workspace) -> None:
        """Compute the loss, and the gradient of what the last stage's activation took."""
        step, last = workspace.step, self.plan.stages[-1]
        logits, dlogits = workspace.outputs[-1], workspace.gradients[-1]
        launches.loss_and_gradient(
            *(self._program.loss, logits, batch.data.labels, dlogits),
            *(step.row_losses, step.row_correct),
        )
        if last.activation != "identity":
            launches.activation_backward(dlogits, logits, dlogits, last.activation)

    def _backward(
        self, launches: Launches, workspace: Workspace, weights: Array, index: int
    ) -> None:
        """Compute the gradient of what the activation of the stage before took.

        The stage above takes that activation's derivative along.
        """
        stage, below = self.plan.stages[index], self.plan.stages[index - 1].activation
        x, dy = self._input(workspace, index), workspace.gradients[index]
        dx_of_stage, mask = workspace.gradients[index - 1], workspace.masks[index]
        assert dx_of_stage is not None
        dx = dx_of_stage.reshape(x.shape)
        weight, _ = parameters_of(stage, weights)
        if stage.kind == "linear":
            launches.linear_backward_x(dy, weight, x, dx, below)
            return
        if stage.kind == "conv2d":
            launches.conv2d_backward_x(
                dy, mask, weight, x, dx, maps_of(stage), _filters(stage), below
            )
            return
        if stage.kind == "activation":
            launches.activation_backward(dy, x, dx, below)
            return
        if stage.kind == "max_pool2d":
            launches.max_pool2d_backward(dy, mask, dx, _windows(stage))
        else:
            launches.avg_pool2d_backward(dy, dx, _windows(stage))
        if below != "identity":
            launches.activation_backward(dx, x, dx, below)

    def _layer(self, workspace: Workspace, index: int) -> Layer:
        """Return a stage with parameters as the last kernel takes it."""
        stage, cut = self.plan.stages[index], workspace.cuts[index]
        assert stage.weight is not None
        assert cut is not None
        is_convolution = stage.kind == "conv2d"
        return Layer(
            x=None if index == 0 else workspace.outputs[index - 1],
            dy=workspace.gradients[index],
            mask=workspace.masks[index],
            cut=cut,
            parts=workspace.parts[index],
            tickets=workspace.tickets[index],
            weight=stage.weight,
            bias=stage.bias,
            inputs=math.prod(stage.input_shape),
            outputs=stage.output_shape[0],
            maps=maps_of(stage) if is_convolution else None,
            kernel_size=stage.kernel_size,
        )

    def _input(self, workspace: Workspace, index: int) -> Any:
        """Return what a stage takes of the stage before, in the shape in which it takes it."""
        y = workspace.outputs[index - 1]
        assert y is not None
        return y.reshape(workspace.capacity, *self.plan.stages[index].input_shape)


def _require_kernels(program: TrainingProgram) -> None:
    require_kernels(program, activations=ACTIVATIONS, losses=LOSSES, updates=RULES)
    for stage in program.stages:
        if stage.kernel_size > MOST_KERNEL_SIZE:
            raise NotCompiledError(
                f"filters of captured steps have a side of at most {MOST_KERNEL_SIZE}, not "
                f"{stage.kernel_size}"
            )
    layers = sum(stage.weight is not None for stage in program.stages)
    if not 1 <= layers <= MOST_LAYERS:
        raise NotCompiledError(
            f"captured steps have 1 to {MOST_LAYERS} layers with parameters, not {layers}"
        )


def _with_a_first_that_gathers(stages: tuple[Stage, ...], *, has_head: bool) -> tuple[Stage, ...]:
    """Return stages of which the first takes images from the data set."""
    first = stages[0]
    is_head = has_head and len(stages) == 1
    if first.kind in ("linear", "conv2d", "activation") and not is_head:
        return stages
    return (Stage("activation", first.input_shape, first.input_shape), *stages)


def parameters_of(stage: Stage, vector: Array) -> tuple[Array, Array | None]:
    """Return weight and bias of a stage as views of the parameter vector."""
    if stage.weight is None:
        return None, None
    channels, side = stage.output_shape[0], stage.kernel_size
    shape: tuple[int, ...] = (stage.input_shape[0], channels)
    if stage.kind == "conv2d":
        shape = (channels, stage.input_shape[0], side, side)
    weight = vector[stage.weight : stage.weight + math.prod(shape)].reshape(shape)
    bias = None if stage.bias is None else vector[stage.bias : stage.bias + channels]
    return weight, bias


def _filters(stage: Stage) -> Filters:
    return Filters(stage.kernel_size, None if stage.pooling is None else stage.pooling.ties)


def _windows(stage: Stage) -> Windows:
    assert stage.pooling is not None
    _, height, width = stage.input_shape
    _, pooled_height, pooled_width = stage.output_shape
    size, stride = stage.pooling.size, stage.pooling.stride
    return Windows(height, width, pooled_height, pooled_width, size, stride)

"""The launches of a graph step, which a CUDA graph is captured from.

Forward, one launch per stage; the first gathers its images from the data set. The linear layers at
the end are one launch together with the loss and the gradients back through them and the
convolutions before them. Backward, one launch for each remaining stage whose input needs a
gradient. Finally one launch for the gradients and updates of all parameters.
"""

import math
from typing import Any

from backends.cupy.launch.activations import activation, activation_backward
from backends.cupy.launch.conv_shape import NO_CONV
from backends.cupy.launch.convolution import conv2d, conv2d_backward_x
from backends.cupy.launch.fused_classifier import (
    Classifier,
    ClassifierConv,
    ClassifierLayer,
    fused_classifier,
)
from backends.cupy.launch.graph_batch import DeviceDataset, GraphBatch
from backends.cupy.launch.launcher import Launcher
from backends.cupy.launch.linear import linear, linear_backward_x
from backends.cupy.launch.losses import loss
from backends.cupy.launch.pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from backends.cupy.launch.wgrad_update import WgradLayer, wgrad_update
from backends.cupy.loader import Kernels
from backends.cupy.plan import Plan
from backends.cupy.stages import conv_shape_of, parameters_of, pool_shape_of
from backends.cupy.workspace import Workspace
from backends.operations.common import Array
from backends.program import TrainingProgram


class GraphStep:
    """The launches of one step with some arrays.

    Args:
        program: the program.
        plan: its plan.
        kernels: the compiled kernels.
        dataset: the data set.
        workspace: memory of the step.
        parameters: parameter vector and state arrays of the optimizer; changed in place.
    """

    def __init__(
        self,
        program: TrainingProgram,
        plan: Plan,
        kernels: Kernels,
        dataset: DeviceDataset,
        workspace: Workspace,
        parameters: tuple[Array, ...],
    ) -> None:
        self._program = program
        self._plan = plan
        self._workspace = workspace
        self._parameters = parameters
        chunk, state = workspace.chunk, workspace.state
        self._batch = GraphBatch(dataset, chunk, state, program.pixel_shift)
        self._launcher = Launcher(kernels, program.dtype, batch=self._batch)

    def launch(self) -> None:
        """Launch all kernels of the step in order."""
        plan = self._plan
        for index in range(plan.classifier_begin):
            self._forward(index)
        if plan.has_classifier:
            self._classify()
        else:
            self._loss()
        for index in range(plan.backward_end - 1, plan.lowest, -1):
            self._backward(index)
        wgrad_update(
            self._launcher,
            self._program.update.kind,
            [self._wgrad_layer(i) for i, s in enumerate(plan.stages) if s.weight is not None],
            self._workspace.tile,
            self._batch,
            self._parameters,
            self._program.update.settings,
        )

    def _forward(self, index: int) -> None:
        """Compute the output of a stage."""
        stage, launcher = self._plan.stages[index], self._launcher
        x: Any = self._batch if index == 0 else self._input(index)
        y, mask = self._workspace.outputs[index], self._workspace.masks[index]
        weight, bias = parameters_of(stage, self._parameters[0])
        ties = stage.pooling.ties if stage.pooling else "first"
        kind = stage.activation
        if stage.kind == "linear":
            linear(launcher, x, weight, bias, y, kind)
        elif stage.kind == "conv2d":
            shape = conv_shape_of(stage)
            conv2d(launcher, x, weight, bias, y, mask, shape, activation=kind, ties=ties)
        elif stage.kind == "max_pool2d":
            max_pool2d(launcher, x, y, mask, pool_shape_of(stage), ties)
        elif stage.kind == "avg_pool2d":
            avg_pool2d(launcher, x, y, pool_shape_of(stage))
        else:
            activation(launcher, x, y, kind)

    def _classify(self) -> None:
        """Compute the last linear layers, the loss, and the gradients back from there."""
        plan, workspace = self._plan, self._workspace
        first = plan.classifier_begin
        layers = [
            ClassifierLayer(
                x=workspace.outputs[index - 1],
                dx=workspace.gradients[index - 1],
                weight=stage.weight,
                bias=-1 if stage.bias is None else stage.bias,
                inputs=stage.input_shape[0],
                outputs=stage.output_shape[0],
                activation=plan.stages[index - 1].activation,
            )
            for index, stage in enumerate(plan.stages[first:], first)
            if stage.weight is not None
        ]
        convolutions = [
            self._classifier_conv(index) for index in range(first - 1, plan.backward_end - 1, -1)
        ]
        classifier = Classifier(plan.dtype, workspace.capacity, layers, convolutions)
        fused_classifier(
            self._launcher,
            self._program.loss,
            classifier,
            self._parameters[0],
            self._batch,
            workspace.gradients[-1],
        )

    def _classifier_conv(self, index: int) -> ClassifierConv:
        """Return a convolution through which the fused classifier propagates the gradient."""
        stage = self._plan.stages[index]
        assert stage.weight is not None
        return ClassifierConv(
            x=self._input(index),
            dy=self._workspace.gradients[index],
            mask=self._workspace.masks[index],
            dx=self._workspace.gradients[index - 1],
            weight=stage.weight,
            activation=self._plan.stages[index - 1].activation,
            shape=conv_shape_of(stage),
        )

    def _loss(self) -> None:
        """Compute the loss, and the gradient of the pre-activation of the last stage."""
        workspace, state, last = self._workspace, self._workspace.state, self._plan.stages[-1]
        logits, dlogits = workspace.outputs[-1], workspace.gradients[-1]
        loss(
            self._launcher,
            self._program.loss,
            logits,
            None,
            dlogits,
            state.image_losses,
            state.image_correct,
        )
        if last.activation != "identity":
            activation_backward(self._launcher, dlogits, logits, dlogits, last.activation)

    def _backward(self, index: int) -> None:
        """Compute the gradient of the pre-activation of the stage before stage `index`."""
        stage, launcher = self._plan.stages[index], self._launcher
        below = self._plan.stages[index - 1].activation
        x, dy = self._input(index), self._workspace.gradients[index]
        gradient, mask = self._workspace.gradients[index - 1], self._workspace.masks[index]
        assert gradient is not None
        dx = gradient.reshape(x.shape)
        weight, _ = parameters_of(stage, self._parameters[0])
        if stage.kind == "linear":
            linear_backward_x(launcher, dy, weight, x, dx, below)
        elif stage.kind == "conv2d":
            shape = conv_shape_of(stage)
            conv2d_backward_x(launcher, dy, mask, weight, x, dx, shape, activation=below)
        elif stage.kind == "activation":
            activation_backward(launcher, dy, x, dx, below)
        else:
            if stage.kind == "max_pool2d":
                max_pool2d_backward(launcher, dy, mask, dx, pool_shape_of(stage))
            else:
                avg_pool2d_backward(launcher, dy, dx, pool_shape_of(stage))
            if below != "identity":
                activation_backward(launcher, dx, x, dx, below)

    def _wgrad_layer(self, index: int) -> WgradLayer:
        """Return a stage with parameters as the last launch takes it."""
        stage, workspace = self._plan.stages[index], self._workspace
        split = workspace.splits[index]
        assert stage.weight is not None
        assert split is not None
        return WgradLayer(
            x=None if index == 0 else workspace.outputs[index - 1],
            dy=workspace.gradients[index],
            mask=workspace.masks[index],
            split=split,
            partial_sums=workspace.partial_sums[index],
            tile_counters=workspace.tile_counters[index],
            weight=stage.weight,
            bias=stage.bias,
            inputs=math.prod(stage.input_shape),
            outputs=stage.output_shape[0],
            conv=conv_shape_of(stage) if stage.kind == "conv2d" else NO_CONV,
        )

    def _input(self, index: int) -> Any:
        """Return the output of the previous stage in the shape that stage `index` takes."""
        y = self._workspace.outputs[index - 1]
        assert y is not None
        return y.reshape(self._workspace.capacity, *self._plan.stages[index].input_shape)

"""Launches the kernels of a graph step, from which a CUDA graph is captured.

The forward pass launches one kernel per stage. The kernel of the first stage gathers the images of
the batch from the data set. One kernel, the fused classifier, computes the last linear layers, the
loss, and the gradients of the inputs of these layers and of the convolutions before them. The
backward pass launches one kernel for each other stage whose input needs a gradient, and one more if
that stage is a pooling of its own after an activation. A single kernel replaces all of these for a
pooled convolution before a linear layer and, on GPUs with clusters, for two linear layers, and for
two convolutions before two or three linear layers. A final kernel computes the gradients of all
parameters and updates the parameters.
"""

import math
from dataclasses import dataclass
from typing import Any

from backends.cupy.forward import forward
from backends.cupy.launch.activations import activation_backward
from backends.cupy.launch.clustered_wgrad import can_compute as can_compute_gradients
from backends.cupy.launch.clustered_wgrad import clustered_wgrad
from backends.cupy.launch.conv_shape import NO_CONV, conv_shape_of
from backends.cupy.launch.convolution import conv2d_backward_x
from backends.cupy.launch.fused_classifier import (
    Classifier,
    ClassifierConv,
    ClassifierLayer,
    fused_classifier,
)
from backends.cupy.launch.fused_cnn import CnnLayer, FusedCnn, fused_cnn
from backends.cupy.launch.fused_mlp import FusedMlp, MlpParameters, MlpResults, fused_mlp
from backends.cupy.launch.fused_shallow_cnn import (
    FusedShallowCnn,
    ShallowCnnParameters,
    ShallowCnnResults,
    fused_shallow_cnn,
)
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher
from backends.cupy.launch.linear import linear_backward_x
from backends.cupy.launch.losses import loss
from backends.cupy.launch.penalty import penalty
from backends.cupy.launch.pooling import (
    avg_pool2d_backward,
    max_pool2d_backward,
    pool_shape_of,
)
from backends.cupy.launch.tensor_linear import tensor_linear, tensor_wgrad
from backends.cupy.launch.wgrad_update import WgradLayer, wgrad_update
from backends.cupy.plan import Plan, parameters_of
from backends.cupy.workspace import Workspace
from backends.operations.common import Array


@dataclass(frozen=True)
class GraphStep:
    """The kernel launches of one step, with the arrays that the kernels use.

    Attributes:
        plan: which kernels compute which stages.
        launcher: launches the kernels; its `graph_batch` is `batch`.
        batch: the images of the step.
        workspace: memory for outputs, gradients and partial sums.
        parameters: parameter vector and state arrays of the optimizer; changed in place.
    """

    plan: Plan
    launcher: Launcher
    batch: GraphBatch
    workspace: Workspace
    parameters: tuple[Array, ...]

    def launch(self) -> None:
        """Launch all kernels of the step in order."""
        plan, capacity = self.plan, self.workspace.capacity
        mlp, cnn = plan.fused_mlp(capacity), plan.fused_cnn(capacity)
        shallow_cnn = plan.fused_shallow_cnn(capacity)
        if mlp is not None:
            self._fused_mlp(mlp)
        elif cnn is not None:
            self._fused_cnn(cnn)
        elif shallow_cnn is not None:
            self._fused_shallow_cnn(shallow_cnn)
        else:
            self._forward_and_backward()
        if plan.program.l2:
            self._add_penalty()
        layers = [self._wgrad_layer(i) for i, s in enumerate(plan.stages) if s.weight is not None]
        if self._uses_tensor_cores:
            tensor_wgrad(self.launcher, layers[0], self.batch)
        launcher, rule, l2 = self.launcher, plan.program.update, plan.program.l2
        if can_compute_gradients(mlp, self.workspace.capacity):
            clustered_wgrad(launcher, rule, layers, self.batch, self.parameters, l2=l2)
        else:
            sizes = self.workspace.tile, plan.narrow_columns
            wgrad_update(launcher, rule, layers, *sizes, self.batch, self.parameters, l2=l2)

    def _fused_mlp(self, mlp: FusedMlp) -> None:
        """Compute both linear layers, the loss and the gradients of both pre-activations."""
        (stage1, stage2), (first, second) = self.plan.stages, self.workspace.stages
        offsets = MlpParameters(
            weight1=_offset(stage1.weight),
            bias1=_offset(stage1.bias),
            weight2=_offset(stage2.weight),
            bias2=_offset(stage2.bias),
        )
        results = MlpResults(first.output, first.gradient, second.gradient)
        fused_mlp(self.launcher, mlp, self.parameters[0], offsets, self.batch, results)

    def _fused_cnn(self, cnn: FusedCnn) -> None:
        """Compute all layers, the loss and the gradients of what `wgrad_update` reads."""
        layers = [
            CnnLayer(
                y=arrays.output,
                dy=arrays.gradient,
                partial_sums=arrays.partial_sums if stage.kind == "conv2d" else None,
                weight=_offset(stage.weight),
                bias=_offset(stage.bias),
                activation=stage.activation,
            )
            for stage, arrays in zip(self.plan.stages, self.workspace.stages, strict=True)
        ]
        fused_cnn(self.launcher, cnn, self.parameters[0], layers, self.batch)

    def _fused_shallow_cnn(self, cnn: FusedShallowCnn) -> None:
        """Compute both layers, the loss and the gradients of the logits and filters."""
        (stage1, stage2), (first, second) = self.plan.stages, self.workspace.stages
        offsets = ShallowCnnParameters(*map(_offset, (stage1.weight, stage2.weight, stage2.bias)))
        assert first.output is not None
        assert first.partial_sums is not None
        results = ShallowCnnResults(first.output, second.gradient, first.partial_sums)
        fused_shallow_cnn(self.launcher, cnn, self.parameters[0], offsets, self.batch, results)

    def _forward_and_backward(self) -> None:
        """Compute all outputs, the loss and the gradients of all pre-activations."""
        plan = self.plan
        for index in range(plan.classifier_begin):
            self._forward(index)
        if plan.has_classifier:
            self._classify()
        else:
            self._loss()
        for index in range(plan.backward_end - 1, plan.first_trainable, -1):
            self._backward(index)

    @property
    def _uses_tensor_cores(self) -> bool:
        """Whether tensor cores compute the first stage and its weight gradient."""
        return self.plan.uses_tensor_cores(self.workspace.capacity)

    def _forward(self, index: int) -> None:
        """Compute the output of a stage."""
        stage, arrays = self.plan.stages[index], self.workspace.stages[index]
        x: Any = self.batch if index == 0 else self._input(index)
        vector, y = self.parameters[0], arrays.output
        if index == 0 and self._uses_tensor_cores:
            tensor_linear(self.launcher, x, *parameters_of(stage, vector), y, stage.activation)
        else:
            forward(self.launcher, stage, x, vector, y, arrays.mask)

    def _classify(self) -> None:
        """Compute the last linear layers, the loss, and the gradients of the fused classifier."""
        plan, workspace = self.plan, self.workspace
        first = plan.classifier_begin
        layers = [
            ClassifierLayer(
                x=workspace.stages[index - 1].output,
                dx=workspace.stages[index - 1].gradient,
                weight=_offset(stage.weight),
                bias=_offset(stage.bias),
                inputs=stage.input_shape[0],
                outputs=stage.output_shape[0],
                activation=plan.stages[index - 1].activation,
            )
            for index, stage in enumerate(plan.stages[first:], first)
        ]
        convolutions = [
            ClassifierConv(
                x=self._input(index),
                dy=workspace.stages[index].gradient,
                mask=workspace.stages[index].mask,
                dx=workspace.stages[index - 1].gradient,
                weight=_offset(plan.stages[index].weight),
                activation=plan.stages[index - 1].activation,
                shape=conv_shape_of(plan.stages[index]),
            )
            for index in range(first - 1, plan.backward_end - 1, -1)
        ]
        classifier = Classifier(plan.program.dtype, workspace.capacity, layers, convolutions)
        weights, dlogits = self.parameters[0], workspace.stages[-1].gradient
        kind = plan.program.loss
        fused_classifier(self.launcher, kind, classifier, weights, self.batch, dlogits)

    def _loss(self) -> None:
        """Compute the loss, and the gradient of the pre-activation of the last stage."""
        launcher, last, arrays = self.launcher, self.plan.stages[-1], self.workspace.stages[-1]
        logits, dlogits, state = arrays.output, arrays.gradient, self.batch.state
        dataset, rows = self.batch.dataset, self.batch.chunk.rows
        results = dlogits, state.image_losses, state.image_correct
        targets = dataset.labels, dataset.weights
        loss(launcher, self.plan.program.loss, logits, *targets, rows, *results)
        if last.activation != "identity":
            activation_backward(launcher, dlogits, logits, dlogits, last.activation)

    def _backward(self, index: int) -> None:
        """Compute the gradient of the pre-activation of the stage before stage `index`."""
        stage, launcher = self.plan.stages[index], self.launcher
        below = self.plan.stages[index - 1].activation
        arrays, gradient = self.workspace.stages[index], self.workspace.stages[index - 1].gradient
        x, dy, mask = self._input(index), arrays.gradient, arrays.mask
        assert gradient is not None
        dx = gradient.reshape(x.shape)
        weight, _ = parameters_of(stage, self.parameters[0])
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

    def _add_penalty(self) -> None:
        """Add the L2 penalty to the loss."""
        vector = self.parameters[0]
        layers = []
        for stage in self.plan.stages:
            weight, _ = parameters_of(stage, vector)
            if weight is not None:
                layers.append((_offset(stage.weight), int(weight.size)))
        penalty(self.launcher, vector, layers, self.plan.program.l2, self.batch)

    def _wgrad_layer(self, index: int) -> WgradLayer:
        """Return the argument of `wgrad_update` for a stage with parameters."""
        plan, arrays = self.plan, self.workspace.stages[index]
        stage = plan.stages[index]
        assert arrays.split is not None
        is_complete = plan.has_complete_sums(index, self.workspace.capacity)
        conv = conv_shape_of(stage) if stage.kind == "conv2d" and not is_complete else NO_CONV
        return WgradLayer(
            x=None if index == 0 else self.workspace.stages[index - 1].output,
            dy=arrays.gradient,
            mask=arrays.mask,
            split=arrays.split,
            partial_sums=arrays.partial_sums,
            tile_counters=arrays.tile_counters,
            weight=_offset(stage.weight),
            bias=_offset(stage.bias),
            inputs=math.prod(stage.input_shape),
            outputs=stage.output_shape[0],
            conv=conv,
        )

    def _input(self, index: int) -> Any:
        """Return the output of the previous stage in the shape that stage `index` takes."""
        y = self.workspace.stages[index - 1].output
        assert y is not None
        return y.reshape(self.workspace.capacity, *self.plan.stages[index].input_shape)


def _offset(offset: int | None) -> int:
    """Return an offset in the parameter vector in the form that kernels take: -1 for None."""
    return -1 if offset is None else offset

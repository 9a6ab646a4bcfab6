"""The intermediate representation of a network, its loss and its optimizer.

Eagerly, layers call the operations of a backend one by one. A `Program` describes the same
computation as data, which a backend compiles into a function that runs many steps in one call: a
row of stages with the shapes of their inputs and outputs and the offsets of their parameters in
the parameter vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.operations.common import Array, Ties
from backends.operations.updates import UpdateRule
from backends.order import Order

Shape: TypeAlias = tuple[int, ...]
StageKind: TypeAlias = Literal["linear", "conv2d", "max_pool2d", "avg_pool2d", "activation"]
ActivationKind: TypeAlias = str  # a key of `backends.ACTIVATIONS`, or "identity"
LossKind: TypeAlias = str  # a key of `backends.LOSSES`


@dataclass(frozen=True)
class Pooling:
    """Maximum of square patches.

    Attributes:
        size: side of a patch, in pixels.
        stride: distance between patches, in pixels.
        ties: which positions that equal the maximum receive the gradient.
    """

    size: int
    stride: int
    ties: Ties = "first"


@dataclass(frozen=True)
class Stage:
    """A layer, fused with the activation and the pooling that follow it.

    Attributes:
        kind: kind of the layer; "activation" for an activation that is not fused.
        input_shape: shape of one input.
        output_shape: shape of one output, after activation and pooling.
        weight: offset of the weights in the parameter vector; None without weights. Their shape is
            (in, out) for "linear" and (out channels, in channels, k, k) for "conv2d".
        bias: offset of the bias; None without bias.
        kernel_size: side of the filters of "conv2d", in pixels.
        padding: zeros added on each side by "conv2d", in pixels.
        activation: activation of the outputs, before the pooling.
        pooling: the pooling of "max_pool2d" and "avg_pool2d"; for "conv2d" a fused max-pooling, or
            None.
    """

    kind: StageKind
    input_shape: Shape
    output_shape: Shape
    weight: int | None = None
    bias: int | None = None
    kernel_size: int = 0
    padding: int = 0
    activation: ActivationKind = "identity"
    pooling: Pooling | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network as a compiled function computes it.

    Attributes:
        stages: from the image to the logits.
        loss: kind of the loss.
        parameters: length of the parameter vector.
        dtype: "float32" or "float64".
        pixel_shift: added to pixels after scaling to 0…1.
    """

    stages: tuple[Stage, ...]
    loss: LossKind
    parameters: int
    dtype: str
    pixel_shift: float


@dataclass(frozen=True, kw_only=True)
class TrainingProgram(Program):
    """A training as a compiled function computes it.

    Attributes:
        update: the optimizer.
    """

    update: UpdateRule


class NotCompiledError(Exception):
    """A network or a program has no compiled form; the message has the reason."""


def require_kernels(
    program: Program,
    *,
    activations: Container[str],
    losses: Container[str],
    updates: Container[str] = (),
) -> None:
    """Check that a compiled backend has a kernel for every name in a program.

    Args:
        program: the network, or the training.
        activations: names of the activations that have a kernel, without "identity".
        losses: names of the losses that have one.
        updates: kinds of the update rules that have one; not used for a network alone.

    Raises:
        NotCompiledError: a name has no kernel.
    """
    for stage in program.stages:
        if stage.activation != "identity" and stage.activation not in activations:
            raise NotCompiledError(f"the activation {stage.activation} has no compiled form")
    if program.loss not in losses:
        raise NotCompiledError(f"the loss {program.loss} has no compiled form")
    if isinstance(program, TrainingProgram) and program.update.kind not in updates:
        raise NotCompiledError(f"the optimizer {program.update.kind} has no compiled form")


@dataclass(frozen=True)
class Steps:
    """Consecutive steps of a training, within one epoch.

    Attributes:
        order: order of the images in the epoch.
        bounds: positions in the order at which each step begins and ends (steps, 2), int64; each
            step begins where the one before ends.
        rates: learning rate of each step (steps,).
        before: number of steps that the training has done already.
        batch_size: images per step; the last step of an epoch may have fewer.
    """

    order: Order
    bounds: NDArray[np.int64]
    rates: NDArray[np.float64]
    before: int
    batch_size: int

    @property
    def first(self) -> int:
        """Position in the order at which the first step begins; 0 if there are no steps."""
        return int(self.bounds[0, 0]) if len(self.bounds) else 0

    def rows(self) -> NDArray[np.int64]:
        """Return the rows of all steps, concatenated, on the host."""
        return self.order.rows(self.first, int(self.bounds[-1, 1]) if len(self.bounds) else 0)


class CompiledEpoch(ABC):
    """A program in a form that runs many steps in one call."""

    def remarks(self) -> Mapping[int, str]:
        """Return notes about the input of some stages, by number of the stage from 0."""
        return {}

    @abstractmethod
    def load(self, pixels: NDArray[Any], labels: NDArray[np.int64]) -> Any:
        """Return a data set in the form that `run` takes, and compile what is not compiled yet.

        Args:
            pixels: host array (N, pixels), uint8 0…255 or the program's dtype 0…1.
            labels: class indices (N,), on the host.
        """

    @abstractmethod
    def run(
        self, data: Any, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Run some steps, and return when they are done.

        Args:
            data: the result of `load`.
            steps: the steps.
            weights: the parameter vector, an array of the backend; changed in place.
            state: the arrays of the optimizer, by name; changed in place.

        Returns:
            Of each step, the mean loss of its batch before the update, and the number of correct
            images.
        """


class PixelRangeError(ValueError):
    """A floating-point pixel is outside 0…1."""


class CompiledInference(ABC):
    """A program in a form that predicts in one call."""

    @abstractmethod
    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Return the logits of images, or the outputs that the loss computes from them.

        Args:
            weights: the parameter vector, an array of the backend.
            pixels: host array (N, pixels) in C order, uint8 0…255 or the program's dtype 0…1.
            probabilities: whether to return probabilities.

        Returns:
            Host array (N, classes) of the program's dtype.

        Raises:
            PixelRangeError: a floating-point pixel is outside 0…1.
        """

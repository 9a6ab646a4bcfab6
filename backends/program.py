"""What a compiled epoch computes: a network, its loss and its optimizer as plain numbers.

Layers and optimizers are objects that call a backend's operations one by one. A `Program` says the
same thing in a form that one compiled function can execute from the first step of an epoch to the
last: stages in a row, each with the sizes of what goes in and comes out and the place of its
parameters in the parameter vector. It names no array library.
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
    """Maximum of square windows.

    Attributes:
        size: side of a window, in pixels.
        stride: step between windows, in pixels.
        ties: which positions that equal the maximum receive the gradient.
    """

    size: int
    stride: int
    ties: Ties = "first"


@dataclass(frozen=True)
class Stage:
    """A layer, with the activation and the pooling that follow it.

    Attributes:
        kind: of the layer; "activation" where an activation stands by itself.
        input_shape: of one image.
        output_shape: of one image, after activation and pooling.
        weight: where the layer's weights begin in the parameter vector; None without any. Shaped
            (in, out) for "linear", (out channels, in channels, k, k) for "conv2d".
        bias: where its bias begins; None without one.
        kernel_size: side of the filters of "conv2d", in pixels.
        padding: zeros added on each side by "conv2d", in pixels.
        activation: applied to what the layer computes.
        pooling: of "max_pool2d" and "avg_pool2d", and what follows the activation of a "conv2d".
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
    """A network as one compiled function executes it.

    Attributes:
        stages: from the image to the logits.
        loss: from the logits.
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
    """A training as one compiled function executes it.

    Attributes:
        update: of the parameter vector.
    """

    update: UpdateRule


class NotCompiledError(Exception):
    """A backend has no compiled form of a program; the message says why."""


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
    """Some steps of a training.

    Attributes:
        order: in which the epoch takes its images.
        bounds: where in it each step begins and ends, (steps, 2), int64; the steps follow each
            other without gaps.
        rates: learning rate of each step.
        before: how many steps the training has done already.
        batch_size: images of a step; those of the last step of an epoch may be fewer.
    """

    order: Order
    bounds: NDArray[np.int64]
    rates: NDArray[np.float64]
    before: int
    batch_size: int

    @property
    def first(self) -> int:
        """Where in the order the first step begins; 0 where there is no step."""
        return int(self.bounds[0, 0]) if len(self.bounds) else 0

    def rows(self) -> NDArray[np.int64]:
        """Return the rows that all steps take, one after the other, on the host."""
        return self.order.rows(self.first, int(self.bounds[-1, 1]) if len(self.bounds) else 0)


class CompiledEpoch(ABC):
    """A program in the form in which a backend runs many steps in one call."""

    def remarks(self) -> Mapping[int, str]:
        """Return, by number from 0, what is special about the input that some stages take."""
        return {}

    @abstractmethod
    def load(self, pixels: NDArray[Any], labels: NDArray[np.int64]) -> Any:
        """Return a data set in the form that `run` takes, and get ready to run on it.

        Args:
            pixels: host array (N, pixels), uint8 0…255 or the program's dtype 0…1.
            labels: class indices (N,), on the host.
        """

    @abstractmethod
    def run(
        self, data: Any, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Do some steps, and return when they are done.

        Args:
            data: as `load` returned it.
            steps: which.
            weights: the parameter vector of the backend; changed in place.
            state: the arrays of the optimizer, by name; changed in place.

        Returns:
            The mean loss of each step's batch before its update, and how many images of the batch
            were recognised.
        """


class PixelRangeError(ValueError):
    """A floating-point pixel is not in 0…1."""


class CompiledInference(ABC):
    """A program in the form in which a backend predicts in one call."""

    @abstractmethod
    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Return the logits of images, or the probabilities that the loss makes of them.

        Args:
            weights: the parameter vector of the backend.
            pixels: host array (N, pixels) in C order, uint8 0…255 or the program's dtype 0…1.
            probabilities: whether to return probabilities.

        Returns:
            Host array (N, classes) of the program's dtype.

        Raises:
            PixelRangeError: a floating-point pixel is not in 0…1.
        """

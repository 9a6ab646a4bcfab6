"""The intermediate representation of a network, its loss and its optimizer.

In eager training, layers call the operations of a backend one by one. A `Program` describes the
same computation as data: a sequence of stages with the shapes of their inputs and outputs and the
offsets of their parameters in the parameter vector. A backend compiles it into a function that runs
many steps in one call.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.operations.common import Array, Ties
from backends.operations.updates import UpdateRule
from backends.order import OrderPart

Shape: TypeAlias = tuple[int, ...]
ActivationKind: TypeAlias = str  # a key of `backends.ACTIVATIONS`, or "identity"
LossKind: TypeAlias = str  # a key of `backends.LOSSES`


@dataclass(frozen=True)
class Pooling:
    """Pooling of square patches.

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
        kind: kind of the layer, such as "conv2d"; "activation" for an activation that is not fused.
        input_shape: shape of one input.
        output_shape: shape of one output, after activation and pooling.
        offsets: position of each parameter in the parameter vector, by its name in the layer. The
            weights W have shape (in, out) in "linear" and (out channels, in channels, k, k) in
            "conv2d".
        settings: all settings of the layer, by name. A backend must not compile a stage that has a
            setting it does not know.
        activation: activation of the outputs, before the fused pooling.
        fused_pooling: a max-pooling that follows "conv2d", or None.
    """

    kind: str
    input_shape: Shape
    output_shape: Shape
    offsets: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    activation: ActivationKind = "identity"
    fused_pooling: Pooling | None = None

    @property
    def weight(self) -> int | None:
        """Offset of the weights in the parameter vector; None without weights."""
        return self.offsets.get("W")

    @property
    def bias(self) -> int | None:
        """Offset of the bias; None without bias."""
        return self.offsets.get("b")

    @property
    def kernel_size(self) -> int:
        """Side of the filters of "conv2d", in pixels; 0 for other kinds."""
        return int(self.settings["kernel_size"]) if self.kind == "conv2d" else 0

    @property
    def padding(self) -> int:
        """Zeros added on each side by "conv2d", in pixels."""
        return int(self.settings["padding"]) if self.kind == "conv2d" else 0

    @property
    def pooling(self) -> Pooling | None:
        """The pooling of "max_pool2d" and "avg_pool2d", or the fused pooling."""
        if self.kind not in ("max_pool2d", "avg_pool2d"):
            return self.fused_pooling
        size, stride = self.settings["size"], self.settings["stride"]
        return Pooling(size, stride or size, self.settings.get("ties", "first"))


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network in the form that a backend compiles.

    Attributes:
        stages: from the image to the logits.
        loss: kind of the loss.
        parameters: length of the parameter vector.
        dtype: "float32" or "float64".
        pixel_shift: added to pixels after scaling to 0…1.
        takes_pixels: whether floating-point inputs are pixels in 0…1; otherwise they are features.
    """

    stages: tuple[Stage, ...]
    loss: LossKind
    parameters: int
    dtype: str
    pixel_shift: float
    takes_pixels: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainingProgram(Program):
    """A network and its optimizer in the form that a backend compiles.

    Attributes:
        update: the optimizer.
        l2: α, adds ½·α·‖W‖² / B to the mean loss of a batch of B images, with the weights W of all
            stages.
    """

    update: UpdateRule
    l2: float = 0.0


class NotCompiledError(Exception):
    """A network or a program has no compiled form; the message has the reason."""


class _Any:
    """Contains every value."""

    def __contains__(self, value: object) -> bool:
        return True


ANY = _Any()


@dataclass(frozen=True)
class CompiledKinds:
    """What a backend can compile: the kinds for which it has kernels, with their settings.

    Attributes:
        stages: for each kind of stage the accepted values of each setting, `ANY` for all values.
        activations: names of activations.
        losses: names of losses.
        updates: kinds of update rules.
        update_settings: names of the settings of update rules that the kernels read.
        l2: whether the kernels compute the L2 penalty of a program.
    """

    stages: Mapping[str, Mapping[str, Container[Any]]]
    activations: Container[str]
    losses: Container[str]
    updates: Container[str]
    update_settings: Container[str]
    l2: bool = False

    def check(self, program: Program) -> None:
        """Check that there is a kernel for each part of a program and for each of its settings.

        Raises:
            NotCompiledError: a part or a setting has no kernel.
        """
        for stage in program.stages:
            self._check_stage(stage)
        if program.loss not in self.losses:
            raise NotCompiledError(f"the loss {program.loss} has no compiled form")
        if isinstance(program, TrainingProgram):
            self._check_rule(program.update)
            if program.l2 and not self.l2:
                raise NotCompiledError("a loss with an L2 penalty has no compiled form")

    def has_rule(self, rule: UpdateRule) -> bool:
        """Return whether there is a kernel for an update rule and for each of its settings."""
        try:
            self._check_rule(rule)
        except NotCompiledError:
            return False
        return True

    def _check_rule(self, rule: UpdateRule) -> None:
        if rule.kind not in self.updates:
            raise NotCompiledError(f"the optimizer {rule.kind} has no compiled form")
        if not rule.is_registered:
            raise NotCompiledError(
                f"the optimizer {type(rule).__name__} has no compiled form: it is not the class "
                f"registered as {rule.kind!r}"
            )
        for name in rule.settings:
            if name not in self.update_settings:
                raise NotCompiledError(
                    f"the setting {name} of the optimizer {rule.kind} has no compiled form"
                )

    def _check_stage(self, stage: Stage) -> None:
        if stage.kind not in self.stages:
            raise NotCompiledError(f"the layer {stage.kind} has no compiled form")
        accepted = self.stages[stage.kind]
        for name, value in stage.settings.items():
            if value not in accepted.get(name, ()):
                raise NotCompiledError(f"{stage.kind} with {name}={value!r} has no compiled form")
        if stage.activation != "identity" and stage.activation not in self.activations:
            raise NotCompiledError(f"the activation {stage.activation} has no compiled form")


class Steps(NamedTuple):
    """Consecutive steps of a training, in one epoch or in several.

    Attributes:
        parts: positions in the image order of each epoch, one epoch after the other.
        bounds: begin and end of each step in the rows of all parts (steps, 2), int64. The first
            step begins at 0. Each other step begins where the one before ends, or all steps use
            all rows. Must not be changed: chunks of the same length share the array.
        rates: learning rate of each step (steps,).
        before: number of steps that the training has done already.
        batch_size: images per step; the last step of an epoch may have fewer.
    """

    parts: tuple[OrderPart, ...]
    bounds: NDArray[np.int64]
    rates: NDArray[np.float64]
    before: int
    batch_size: int

    @property
    def images(self) -> NDArray[np.int64]:
        """Number of images of each step (steps,)."""
        return self.bounds[:, 1] - self.bounds[:, 0]

    def rows(self) -> NDArray[np.int64]:
        """Return the rows of all parts, concatenated, on the host."""
        return np.concatenate([part.rows() for part in self.parts])

    def select(self, first: int, end: int) -> "Steps":
        """Return some of the steps, from number `first`, counted from 0, to number `end` − 1."""
        bounds = self.bounds[first:end]
        begin = int(bounds[0, 0])
        return self._replace(
            parts=tuple(self._between(begin, int(bounds[-1, 1]))),
            bounds=bounds - begin,
            rates=self.rates[first:end],
            before=self.before + first,
        )

    def _between(self, begin: int, end: int) -> Iterator[OrderPart]:
        """Yield the parts, or pieces of them, whose rows are at `begin` … `end` − 1."""
        at = 0
        for part in self.parts:
            zero = part.begin - at  # position in this part's order of row 0 of all parts
            at += part.end - part.begin
            first, last = max(part.begin, zero + begin), min(part.end, zero + end)
            if first < last:
                yield OrderPart(part.order, first, last)


class ChunkResults(NamedTuple):
    """Results of a chunk of steps.

    Attributes:
        losses: mean loss of each step's batch, before its update (steps,).
        correct: number of correct images in each batch, before its update (steps,); 0 if the
            targets are numbers.
        is_finite: whether all losses, and all parameters after the last step, are finite.
    """

    losses: NDArray[np.float64]
    correct: NDArray[np.int64]
    is_finite: bool


class MemberSteps(NamedTuple):
    """Steps of one of several networks, called members, that train at the same time.

    Attributes:
        steps: the steps.
        weights: the parameter vector, an array of the backend; changed in place.
        state: the arrays of the optimizer, by name; changed in place.
    """

    steps: Steps
    weights: Array
    state: Mapping[str, Array]


class CompiledEpoch(ABC):
    """A program in a form that runs many steps in one call.

    Attributes:
        takes_weights: whether `load` accepts the weights of examples.
    """

    takes_weights = False

    def remarks(self) -> Mapping[int, str]:
        """Return notes about the input of some stages, by number of the stage from 0."""
        return {}

    @abstractmethod
    def load(
        self,
        pixels: NDArray[Any],
        labels: NDArray[Any],
        weights: NDArray[Any] | None = None,
    ) -> Any:
        """Return a data set in the form that `run` takes, and compile the missing kernels.

        Args:
            pixels: host array (N, pixels), uint8 0…255 or the program's dtype 0…1; or features
                (N, features) of the program's dtype.
            labels: class indices (N,), on the host; for the loss "squared_error" targets
                (N, outputs) of the program's dtype.
            weights: factor of the loss of each example (N,), in the program's dtype; None for 1,
                and always None unless `takes_weights`.
        """

    def share(self, data: Any) -> Any:
        """Return a loaded data set for this program, without loading the images again.

        The programs of both may run at the same time. By default, this is the data set itself.

        Args:
            data: the result of `load` of a program with the same dtype and the same kind of first
                stage.
        """
        return data

    @abstractmethod
    def run(
        self, data: Any, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> ChunkResults:
        """Run some steps, and return their results when they are done.

        Args:
            data: the result of `load`.
            steps: the steps.
            weights: the parameter vector, an array of the backend; changed in place.
            state: the arrays of the optimizer, by name; changed in place.
        """

    def members_at_once(self, data: Any, batch_size: int) -> int:
        """Return how many networks `run_members` can train at the same time; 1 by default.

        Args:
            data: the result of `load`.
            batch_size: images per step.
        """
        return 1

    def run_members(self, data: Any, members: Sequence[MemberSteps]) -> list[ChunkResults]:
        """Run steps of several networks, each as `run` does, and return their results.

        By default, the networks train one after the other. Their programs differ at most in the
        learning rate, and their batch sizes are equal.

        Args:
            data: the result of `load`.
            members: steps of each network, at least one.
        """
        return [self.run(data, *member) for member in members]


class InputRangeError(ValueError):
    """A floating-point pixel is outside 0…1, or a feature is not finite."""


class CompiledInference(ABC):
    """A program in a form that predicts in one call."""

    @abstractmethod
    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Return the logits of images, or the probabilities that the loss computes from them.

        Args:
            weights: the parameter vector, an array of the backend.
            pixels: host array (N, pixels) in C order, uint8 0…255 or the program's dtype 0…1; or
                features of the program's dtype.
            probabilities: whether to return probabilities.

        Returns:
            Host array (N, classes) of the program's dtype.

        Raises:
            InputRangeError: a floating-point pixel is outside 0…1, or a feature is not finite.
        """

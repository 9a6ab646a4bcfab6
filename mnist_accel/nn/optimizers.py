"""Optimizers: how the gradient moves the weights.

An optimizer is a description, like a layer: its numbers, and the names of the arrays it keeps
between steps. The trainer owns those arrays, each as long as the network's parameter vector and 0
at first. The rules are PyTorch's, and so are the defaults, except for SGD's learning rate: 0.01
here, 0.001 there. The formulas are in `backends.operations.updates`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from backends import Array, Backend, unknown_name
from mnist_accel.nn.checks import keep_fraction, keep_non_negative, keep_positive


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base of the optimizers.

    Attributes:
        lr: learning rate, more than 0; a schedule multiplies it.
        weight_decay: λ of ½·λ·‖w‖², at least 0; applies to every parameter, biases included.
    """

    lr: float = 0.01
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        keep_positive(self, "lr")
        keep_non_negative(self, "weight_decay")

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the arrays that are kept between steps."""
        return ()

    @abstractmethod
    def update(
        self,
        backend: Backend,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Change `weights` and `state` in place by one step.

        Args:
            backend: computes.
            weights: the parameter vector.
            grads: its gradient.
            state: the arrays of `state_names`.
            lr: learning rate of this step.
            step: number of the step, counted from 1.
        """


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum if wanted.

    Attributes:
        momentum: μ, at least 0 and less than 1.
        nesterov: look ahead along the velocity; needs momentum.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_fraction(self, "momentum")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum of more than 0, got 0")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The velocity, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def update(
        self,
        backend: Backend,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Step along the gradient, or along the velocity."""
        if not self.momentum:
            backend.sgd_update(weights, grads, lr=lr, weight_decay=self.weight_decay)
            return
        backend.momentum_update(
            weights,
            grads,
            state["velocity"],
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients.

    Attributes:
        eps: added to the root.
    """

    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_non_negative(self, "eps")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The sum of squared gradients."""
        return ("square_sum",)

    def update(
        self,
        backend: Backend,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Step by the gradient over the root of the sum of squares."""
        backend.adagrad_update(
            weights,
            grads,
            state["square_sum"],
            lr=lr,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """Steps divided by the root of a running mean of squared gradients.

    Attributes:
        decay: ρ, what the mean keeps from step to step.
        eps: added to the root.
    """

    decay: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_fraction(self, "decay")
        keep_non_negative(self, "eps")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The running mean of squared gradients."""
        return ("square_mean",)

    def update(
        self,
        backend: Backend,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Step by the gradient over the root of the mean of squares."""
        backend.rmsprop_update(
            weights,
            grads,
            state["square_mean"],
            lr=lr,
            decay=self.decay,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Adam(Optimizer):
    """Running mean of gradients over the root of a running mean of their squares.

    Attributes:
        beta1: what the mean of gradients keeps from step to step.
        beta2: what the mean of squares keeps.
        eps: added to the root.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_fraction(self, "beta1")
        keep_fraction(self, "beta2")
        keep_non_negative(self, "eps")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The running means of gradients and of their squares."""
        return ("mean", "square_mean")

    def update(
        self,
        backend: Backend,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Step by the corrected mean over the root of the corrected mean of squares."""
        backend.adam_update(
            weights,
            grads,
            state["mean"],
            state["square_mean"],
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
            step=step,
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with weight decay applied to the weights themselves, not through the gradient."""

    weight_decay: float = 0.01
    decoupled: ClassVar[bool] = True


OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")

_CLASSES: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": SGD,
    "nesterov": SGD,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}


def create_optimizer(
    name: str,
    *,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
) -> Optimizer:
    """Return the optimizer called `name`; what is None keeps the optimizer's default.

    Raises:
        ValueError: no optimizer has this name, it has no momentum, or a number is out of range.
    """
    if name not in _CLASSES:
        raise ValueError(unknown_name("optimizer", name, OPTIMIZERS))
    given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    settings = _PRESETS.get(name, {}) | {k: v for k, v in given.items() if v is not None}
    if momentum is not None and _CLASSES[name] is not SGD:
        raise ValueError(f"optimizer {name!r} takes no momentum, got {momentum}")
    return _CLASSES[name](**settings)

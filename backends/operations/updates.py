"""Optimizers: update rules with their numbers, their defaults and their formulas.

An optimizer is a frozen description. It holds no arrays: its caller owns the arrays that it keeps
between steps, each as long as the parameter vector and 0 at first. Rules and defaults are those of
PyTorch, except for the learning rate of SGD, which is 0.01 instead of 0.001.

To add an optimizer, write one class here and add it to `OPTIMIZERS`. Every backend can then compute
it, and the command line and checkpoints accept its name. Training with it is eager on a backend
without a kernel for its `kind`. A kernel needs one case in `backends/numba/kernels/updates.py` or
in `backends/cupy/kernels/update_rules.cuh`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, ClassVar, TypeAlias

from backends.checks import check_boolean, check_fraction, check_non_negative, check_positive
from backends.names import Aliases, Table, resolve_name
from backends.operations.common import Array, Operations, require_same_dtype, require_shape

State: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class UpdateRule(ABC):
    """Base of the optimizers.

    A subclass is a frozen dataclass whose fields are its numbers. It also sets `kind` and, if it
    keeps arrays between steps, `state_names`.

    Attributes:
        lr: learning rate, greater than 0; a schedule multiplies it.
        weight_decay: λ ≥ 0, adds λ·w to the gradient of every parameter, biases included: the
            gradient of ½·λ·‖w‖² (L2 regularization).
    """

    lr: float = 0.01
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "lr")
        check_non_negative(self, "weight_decay")

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the formula, by which a compiled backend finds its kernel."""

    @property
    def is_registered(self) -> bool:
        """Whether its class is in `OPTIMIZERS`. Only registered classes are compiled and saved.

        A subclass of a registered class is not registered, because it may have another formula.
        """
        return type(self) in OPTIMIZERS.values()

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the arrays that are kept between steps."""
        return ()

    @cached_property
    def settings(self) -> Mapping[str, float]:
        """The numbers other than the learning rate, by name, as kernels take them."""
        return {field.name: getattr(self, field.name) for field in fields(self)[1:]}

    @abstractmethod
    def apply(self, xp: Any, w: Array, g: Array, state: State, *, lr: float, step: int) -> None:
        """Change `w` and `state` in place by one step.

        Args:
            xp: namespace of the Python array API standard.
            w: the parameter vector (P,).
            g: gradient of the loss (P,); not changed.
            state: the arrays of `state_names`, each (P,).
            lr: learning rate of this step.
            step: number of the step, counted from 1.
        """

    def rates(self, lr: Any, step: Any) -> tuple[Any, Any, Any]:
        """Return the learning rate of a step and two factors that depend on its number.

        Kernels take these three numbers at every step. Both arguments may be NumPy arrays, for many
        steps at once.
        """
        return lr, 0 * lr, 0 * lr

    def decayed(self, g: Array, w: Array) -> Array:
        """Return g + λ·w."""
        return g + self.weight_decay * w if self.weight_decay else g


@dataclass(frozen=True)
class SGD(UpdateRule):
    """Gradient descent: w ← w − lr·g.

    With momentum μ, v ← μ·v + g and w ← w − lr·v. With `nesterov`, w ← w − lr·(g + μ·v), the
    gradient after a further step along v (Sutskever et al. 2013, in PyTorch's form).

    Attributes:
        momentum: μ, at least 0 and less than 1.
        nesterov: whether to use Nesterov's form; needs a momentum.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "momentum")
        check_boolean(self, "nesterov")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum of more than 0, got 0")

    @property
    def kind(self) -> str:
        """The formula with momentum, or the one without, which needs no array."""
        return "momentum" if self.momentum else "sgd"

    @property
    def state_names(self) -> tuple[str, ...]:
        """The velocity, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def apply(self, xp: Any, w: Array, g: Array, state: State, *, lr: float, step: int) -> None:
        """Subtract lr times the gradient, or lr times the velocity."""
        g = self.decayed(g, w)
        if not self.momentum:
            w -= lr * g
            return
        velocity = state["velocity"]
        velocity *= self.momentum
        velocity += g
        w -= lr * (g + self.momentum * velocity if self.nesterov else velocity)


@dataclass(frozen=True)
class AdaGrad(UpdateRule):
    """Divide by the root of the sum of squares: s ← s + g², w ← w − lr·g / (√s + ε).

    Source: Duchi, Hazan and Singer 2011.

    Attributes:
        eps: ε.
    """

    eps: float = 1e-10
    kind: ClassVar[str] = "adagrad"
    state_names: ClassVar[tuple[str, ...]] = ("square_sum",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_negative(self, "eps")

    def apply(self, xp: Any, w: Array, g: Array, state: State, *, lr: float, step: int) -> None:
        """Subtract lr times the gradient over the root of the sum of squares."""
        square_sum = state["square_sum"]
        g = self.decayed(g, w)
        square_sum += g * g
        w -= lr * g / (xp.sqrt(square_sum) + self.eps)


@dataclass(frozen=True)
class RMSProp(UpdateRule):
    """Divide by the root of a running mean of squares: s ← ρ·s + (1 − ρ)·g².

    w ← w − lr·g / (√s + ε). Source: Tieleman and Hinton 2012.

    Attributes:
        decay: ρ, at least 0 and less than 1.
        eps: ε.
    """

    decay: float = 0.99
    eps: float = 1e-8
    kind: ClassVar[str] = "rmsprop"
    state_names: ClassVar[tuple[str, ...]] = ("square_mean",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "decay")
        check_non_negative(self, "eps")

    def apply(self, xp: Any, w: Array, g: Array, state: State, *, lr: float, step: int) -> None:
        """Subtract lr times the gradient over the root of the mean of squares."""
        square_mean = state["square_mean"]
        g = self.decayed(g, w)
        square_mean *= self.decay
        square_mean += (1 - self.decay) * g * g
        w -= lr * g / (xp.sqrt(square_mean) + self.eps)


@dataclass(frozen=True)
class Adam(UpdateRule):
    """Divide the running mean of gradients by the root of the running mean of their squares.

    m ← β₁·m + (1 − β₁)·g, s ← β₂·s + (1 − β₂)·g², both divided by 1 − βᵗ at step t ≥ 1, and
    w ← w − lr·m̂ / (√ŝ + ε). Source: Kingma and Ba 2015, algorithm 1.

    Attributes:
        beta1: β₁, at least 0 and less than 1.
        beta2: β₂, at least 0 and less than 1.
        eps: ε.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    kind: ClassVar[str] = "adam"
    state_names: ClassVar[tuple[str, ...]] = ("mean", "square_mean")
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "beta1")
        check_fraction(self, "beta2")
        check_non_negative(self, "eps")

    @cached_property
    def settings(self) -> Mapping[str, float]:
        """The numbers, and whether weight decay is decoupled."""
        return {**super().settings, "decoupled": self.decoupled}

    def rates(self, lr: Any, step: Any) -> tuple[Any, Any, Any]:
        """Return lr, lr / (1 − β₁ᵗ) and 1 / (1 − β₂ᵗ)."""
        return lr, lr / (1 - self.beta1**step), 1 / (1 - self.beta2**step)

    def apply(self, xp: Any, w: Array, g: Array, state: State, *, lr: float, step: int) -> None:
        """Subtract lr times the corrected mean over the root of the corrected mean of squares."""
        mean, square_mean = state["mean"], state["square_mean"]
        if self.decoupled:
            w *= 1 - lr * self.weight_decay
        else:
            g = self.decayed(g, w)
        mean *= self.beta1
        mean += (1 - self.beta1) * g
        square_mean *= self.beta2
        square_mean += (1 - self.beta2) * g * g
        root = xp.sqrt(square_mean / (1 - self.beta2**step)) + self.eps
        w -= (lr / (1 - self.beta1**step)) * mean / root


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w − lr·λ·w before the step; g has no λ·w.

    Source: Loshchilov and Hutter 2019.
    """

    weight_decay: float = 0.01
    decoupled: ClassVar[bool] = True


OPTIMIZERS: Table[Callable[..., UpdateRule]] = Table(
    "optimizer",
    {
        "sgd": SGD,
        "momentum": partial(SGD, momentum=0.9),
        "nesterov": partial(SGD, momentum=0.9, nesterov=True),
        "adagrad": AdaGrad,
        "rmsprop": RMSProp,
        "adam": Adam,
        "adamw": AdamW,
    },
)
OPTIMIZER_ALIASES: Aliases = {"nag": ("nesterov",), "sgdm": ("momentum",)}


def create_optimizer(
    name: str,
    *,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
) -> UpdateRule:
    """Return the optimizer called `name`; None keeps the optimizer's default.

    Raises:
        ValueError: the name is unknown, the optimizer has no momentum, or a number is out of range.
    """
    name = resolve_name("optimizer", name, OPTIMIZERS, OPTIMIZER_ALIASES)
    optimizer = OPTIMIZERS[name]
    if momentum is not None and not hasattr(optimizer(), "momentum"):
        raise ValueError(
            f"optimizer {name!r} takes no momentum, got {momentum}; remove it, or choose sgd, "
            "momentum or nesterov"
        )
    given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    return optimizer(**{key: value for key, value in given.items() if value is not None})


class Updates(Operations):
    """One step of an optimizer over the whole parameter vector."""

    def update(
        self,
        rule: UpdateRule,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Change `weights` and `state` in place by one step of an optimizer.

        Args:
            rule: the optimizer; its own learning rate is not used.
            weights: the parameter vector (P,).
            grads: gradient of the loss (P,); not changed.
            state: the arrays of `rule.state_names`, each (P,).
            lr: learning rate of this step.
            step: number of the step, counted from 1.

        Raises:
            TypeError: the dtypes differ.
            ValueError: a shape differs from that of `weights`, or a state array is missing.
        """
        require_vectors(weights, grads, state)
        try:
            rule.apply(self.xp, weights, grads, state, lr=lr, step=step)
        except KeyError:
            state_arrays(rule, state)
            raise


def require_vectors(weights: Array, grads: Array, state: State) -> None:
    """Check that all arrays of an update have the dtype and the shape of the weights.

    Raises:
        TypeError: a dtype differs.
        ValueError: a shape differs.
    """
    dtype, shape = weights.dtype, weights.shape
    for array in (grads, *state.values()):
        if array.dtype != dtype or array.shape != shape:
            require_same_dtype("update", weights=weights, grads=grads, **state)
            for name, other in {"grads": grads, **state}.items():
                require_shape(name, other, tuple(shape))


def state_arrays(rule: UpdateRule, state: State) -> list[Array]:
    """Return the state arrays of an optimizer in the order of its `state_names`.

    Raises:
        ValueError: one is missing.
    """
    for name in rule.state_names:
        if name not in state:
            found = ", ".join(state) or "none"
            raise ValueError(f"the optimizer {rule.kind} needs the state {name}, got {found}")
    return [state[name] for name in rule.state_names]

"""Launch of the optimizers' updates, and the arguments that describe an update rule."""

from collections.abc import Mapping, Sequence
from typing import Any

from backends.cupy.launch.launcher import THREADS, Launcher, grid_of
from backends.cupy.loader import source
from backends.cupy.signature import enumerators, struct_members
from backends.operations.common import Array

RULES = enumerators(source("updates"), "Rule")  # kinds of update rules that have a kernel
_SETTINGS = struct_members(source("updates"), "RuleSettings")
_COMPLEMENT = "one_minus_"


def rule_settings(settings: Mapping[str, float]) -> dict[str, float]:
    """Return the struct `RuleSettings`; settings that a rule does not have are 0."""
    complements = {f"{_COMPLEMENT}{name}": 1 - value for name, value in settings.items()}
    values = {**settings, **complements}
    return {name: values.get(name, 0) for name in _SETTINGS}


def parameter_arguments(weights: Array, state: Sequence[Array]) -> dict[str, Any]:
    """Return the arguments for the parameter vector and up to two state arrays."""
    state0, state1 = (*state, None, None)[:2]
    return {"weights": weights, "state0": state0, "state1": state1}


def update(
    launcher: Launcher,
    kind: str,
    weights: Array,
    grads: Array,
    state: Sequence[Array],
    *,
    rates: tuple[float, float, float],
    settings: Mapping[str, float],
) -> None:
    """Apply one step of an optimizer to `weights` and `state`, in place.

    Args:
        launcher: launches the kernel.
        kind: one of `RULES`.
        weights: parameter vector.
        grads: its gradient.
        state: state arrays of the rule, in their order.
        rates: learning rate and Adam's two other rates, as `UpdateRule.rates` returns them.
        settings: settings of the update rule.
    """
    kernel = launcher.kernel("updates", "update", {"RULE": kind.upper()})
    lr, mean_rate, square_scale = map(float, rates)
    kernel(
        grid_of(weights.size),
        THREADS,
        **parameter_arguments(weights, state),
        grads=grads,
        length=int(weights.size),
        settings=rule_settings(settings),
        rates={"lr": lr, "mean_rate": mean_rate, "square_scale": square_scale},
    )

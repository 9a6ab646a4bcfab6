"""Launch of the optimizers' updates, and the arguments that describe an update rule."""

from collections.abc import Sequence
from typing import Any

from backends.cupy.launch.launcher import THREADS, Launcher, grid_of
from backends.cupy.loader import source
from backends.cupy.signature import enumerators, struct_members
from backends.operations.common import Array
from backends.operations.updates import UpdateRule

RULES = enumerators(source("updates"), "Rule")  # kinds of update rules that have a kernel
SETTINGS = struct_members(source("updates"), "RuleSettings")


def rule_settings(rule: UpdateRule) -> dict[str, float]:
    """Return the struct `RuleSettings`; settings that the rule does not have are 0."""
    complements = {f"one_minus_{name}": 1 - value for name, value in rule.settings.items()}
    values = {**rule.settings, **complements}
    return {name: values.get(name, 0) for name in SETTINGS}


def parameter_arguments(weights: Array, state: Sequence[Array]) -> dict[str, Any]:
    """Return the arguments for the parameter vector and up to two state arrays."""
    state0, state1 = (*state, None, None)[:2]
    return {"weights": weights, "state0": state0, "state1": state1}


def update(
    launcher: Launcher,
    rule: UpdateRule,
    weights: Array,
    grads: Array,
    state: Sequence[Array],
    rates: tuple[float, float, float],
) -> None:
    """Apply a step of an optimizer in place; `rates` is the result of `rule.rates`."""
    kernel = launcher.kernel("updates", "update", {"RULE": rule.kind.upper()})
    lr, mean_rate, square_scale = map(float, rates)
    kernel(
        grid_of(weights.size),
        THREADS,
        **parameter_arguments(weights, state),
        grads=grads,
        length=int(weights.size),
        settings=rule_settings(rule),
        rates={"lr": lr, "mean_rate": mean_rate, "square_scale": square_scale},
    )

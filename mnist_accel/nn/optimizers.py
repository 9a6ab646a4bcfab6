"""Optimizers by name. The classes and their formulas are in `backends.operations.updates`."""

from backends import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    RMSProp,
    UpdateRule,
    look_up,
)

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "RMSProp",
    "UpdateRule",
    "create_optimizer",
]


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
    optimizer = look_up("optimizer", name, OPTIMIZERS)
    if momentum is not None and not hasattr(optimizer(), "momentum"):
        raise ValueError(f"optimizer {name!r} takes no momentum, got {momentum}")
    given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    return optimizer(**{key: value for key, value in given.items() if value is not None})

"""Registration: makes classes of other packages available by name, in files and commands."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

import backends
from backends import ACTIVATIONS, OPTIMIZERS, Backend, UpdateRule
from mnist_accel.nn.layers import LAYERS, Layer
from mnist_accel.nn.schedules import SCHEDULES, Schedule

Class = TypeVar("Class", bound=type[Any])

_BASES = (Layer, UpdateRule, Schedule)


def register(cls: Class) -> Class:
    """Make a class known by its name, and return the class, so that it can be a decorator.

    Files can then contain networks and trainings with it, and the commands accept its name. A
    layer, an optimizer or a schedule is a frozen dataclass with a `kind`; a backend has a `name`::

        @mnist_accel.register
        @dataclass(frozen=True)
        class SignDescent(UpdateRule):
            kind = "sign"
            ...

    Args:
        cls: a subclass of `Layer`, `UpdateRule`, `Schedule` or `Backend`.

    Raises:
        TypeError: the class is not such a subclass, or it is incomplete.
        ValueError: another class has this name.
    """
    given: object = cls
    if not isinstance(given, type) or not issubclass(given, (Backend, *_BASES)):
        raise TypeError(
            f"register takes a subclass of Layer, UpdateRule, Schedule or Backend, got {given!r}"
        )
    if issubclass(given, Backend):
        backends.register(given)
    else:
        _register_kind(given)
    return cls


def _register_kind(cls: type[Any]) -> None:
    """Add a layer, an optimizer or a schedule to its table."""
    kind = _checked_kind(cls)
    if issubclass(cls, Layer):
        if kind in (*ACTIVATIONS, "activation"):  # "activation" is the kind of their stages
            raise ValueError(f"the layer {kind!r} exists already; choose another kind")
        LAYERS[kind] = cls
    elif issubclass(cls, Schedule):
        SCHEDULES[kind] = cls
    else:
        _check_optimizer(cls, kind)
        OPTIMIZERS[kind] = cls


def _checked_kind(cls: type[Any]) -> str:
    """Return the kind of a class, after checking that the class is complete.

    Raises:
        TypeError: it is not.
    """
    missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", set()) - {"kind"}))
    if missing:
        raise TypeError(f"{cls.__name__} lacks {missing}; define what is missing")
    # Both must be in the class itself: a subclass would share the kind, or lack its own fields.
    parameters, kind = vars(cls).get("__dataclass_params__"), vars(cls).get("kind")
    if parameters is None or not parameters.frozen:
        raise TypeError(
            f"{cls.__name__} must be a frozen dataclass; write @dataclass(frozen=True) below the "
            "decorator register"
        )
    if not isinstance(kind, str) or not kind:
        raise TypeError(f'{cls.__name__} needs a name of its own; add kind = "name" to the class')
    return kind


def _check_optimizer(cls: type[UpdateRule], kind: str) -> None:
    """Check that the command line can create an optimizer, and that its class name is unique.

    Raises:
        TypeError: a setting has no default.
        ValueError: another optimizer has this class name, which is its name in files.
    """
    for field in fields(cls):
        if field.default is MISSING and field.default_factory is MISSING:
            raise TypeError(f"the setting {field.name} of {cls.__name__} needs a default")
    for name, rule in OPTIMIZERS.items():
        if name != kind and isinstance(rule, type) and rule.__name__ == cls.__name__:
            raise ValueError(
                f"an optimizer class {cls.__name__} exists already; choose another class name"
            )

"""Networks, optimizers and schedules as JSON-compatible data, as files contain them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from backends import ACTIVATIONS, OPTIMIZERS, Backend, Shape, UpdateRule, look_up
from mnist_accel.nn.graph import Graph, build_graph
from mnist_accel.nn.layers import LAYERS, Activation, Layer, is_registered
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.network import Network
from mnist_accel.nn.schedules import SCHEDULES, Schedule

T = TypeVar("T")

# A few bytes in a file can describe a network of any size. These limits bound what it allocates.
_MAX_LAYERS = 1000
_MAX_NDIM = 3
_MAX_NAME_CHARS = 100
_MAX_VALUES = 2**22  # in the inputs and outputs of all layers for one image
_MAX_TENSOR = 2**24  # in the unfolded input of a convolution for one image


def network_to_dict(network: Network) -> dict[str, Any]:
    """Return the structure of a network, without weights and backend, as JSON-compatible data.

    Raises:
        ValueError: `network_from_dict` could not build a layer or the loss, or would reject the
            network for its size.
    """
    _check_sizes(network.graph, network.name)
    if type(network) is not Network:
        raise ValueError(
            f"a {type(network).__name__} cannot be saved, because a file would restore a Network; "
            "write what differs as a layer of your own"
        )
    for layer in network.layers:
        if not is_registered(layer):
            raise ValueError(_cannot_be_saved(layer))
    if type(network.loss) is not Loss:
        raise ValueError(f"loss {network.loss} cannot be saved; add its formula to LOSSES")
    return {
        "name": network.name,
        "input_shape": list(network.input_shape),
        "pixel_shift": network.pixel_shift,
        "dtype": network.dtype,
        "loss": network.loss.kind,
        "layers": [
            _storable(layer, {"kind": layer.kind, **layer.settings}, _layer_from_dict)
            for layer in network.layers
        ],
    }


def network_from_dict(
    description: object, weights: Mapping[str, Shape], *, backend: Backend
) -> Network:
    """Return the network that `network_to_dict` described, with new initial weights.

    Args:
        description: the result of `network_to_dict`.
        weights: the shapes of the weights that the file holds. They are compared with the
            description before anything is allocated.
        backend: the backend of the network.

    Raises:
        ValueError: `description` does not describe a network, or one with other weights.
    """
    if not isinstance(description, dict):
        raise ValueError(f"this does not describe a network: found {type(description).__name__}")
    try:
        if len(description["layers"]) > _MAX_LAYERS:
            raise ValueError(
                f"it describes {len(description['layers'])} layers, expected at most {_MAX_LAYERS}"
            )
        layers = [_layer_from_dict(layer) for layer in description["layers"]]
        input_shape = _input_shape(description["input_shape"])
        graph = build_graph(layers, input_shape)
        _check_sizes(graph, description["name"])
        _compare_shapes(graph.parameter_shapes, weights)
        return Network(
            layers,
            Loss(description["loss"]),
            input_shape=input_shape,
            backend=backend,
            dtype=description["dtype"],
            pixel_shift=float(description["pixel_shift"]),
            name=description["name"],
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"this does not describe a network ({type(error).__name__}: {str(error)[:100]})"
        ) from error


def optimizer_to_dict(optimizer: UpdateRule) -> dict[str, Any]:
    """Return the class name and the settings of an optimizer.

    Raises:
        ValueError: its class is not registered, or a setting cannot be saved.
    """
    if not optimizer.is_registered:
        raise ValueError(_cannot_be_saved(optimizer))
    settings = _storable(optimizer, _fields_of(optimizer), partial(_build, type(optimizer)))
    return {"optimizer": type(optimizer).__name__, "optimizer_settings": settings}


def optimizer_from_dict(description: dict[str, Any]) -> UpdateRule:
    """Return the optimizer that `optimizer_to_dict` described.

    Raises:
        ValueError: the class is unknown.
    """
    classes: dict[str, type[UpdateRule]] = {
        rule.__name__: rule for rule in OPTIMIZERS.values() if isinstance(rule, type)
    }
    rule = _look_up("optimizer", description["optimizer"], classes)
    return _build(rule, description["optimizer_settings"])


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    """Return the name and the settings of a schedule.

    Raises:
        ValueError: its class is not registered, or a setting cannot be saved.
    """
    if SCHEDULES.get(schedule.kind) is not type(schedule):
        raise ValueError(_cannot_be_saved(schedule))
    settings = _storable(schedule, _fields_of(schedule), partial(_build, type(schedule)))
    return {"schedule": schedule.kind, "schedule_settings": settings}


def schedule_from_dict(description: dict[str, Any]) -> Schedule:
    """Return the schedule that `schedule_to_dict` described.

    Raises:
        ValueError: the name is unknown.
    """
    kind = _look_up("schedule", description["schedule"], SCHEDULES)
    return _build(kind, description["schedule_settings"])


def _cannot_be_saved(instance: object) -> str:
    name = type(instance).__name__
    return f"{name} cannot be saved; register its class with the decorator @mnist_accel.register"


def _fields_of(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _storable(
    instance: object, settings: dict[str, Any], restore: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Return settings, after checking that a file with them restores the instance.

    Raises:
        ValueError: a setting is not a number, a string, None, or a tuple of these, or `restore`
            needs more than the settings.
    """
    name = type(instance).__name__
    for key, value in settings.items():
        try:
            is_restored = _from_json(json.loads(json.dumps(value))) == value
        except (TypeError, ValueError):
            is_restored = False
        if not is_restored:
            raise ValueError(
                f"{name} cannot be saved: {key} is {value!r}, but settings in a file are numbers, "
                "strings, None or tuples of these"
            )
    try:
        restore(settings)
    except TypeError as error:
        raise ValueError(f"{name} cannot be saved: a file could not restore it ({error})") from None
    return settings


def _look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`, or raise a ValueError that says how the table gets more entries."""
    try:
        return look_up(kind, name, table)
    except ValueError:
        raise ValueError(
            f"unknown {kind} {name!r}; if it is your own, register it with @mnist_accel.register "
            f"or give --import MODULE; known are {', '.join(table)}"
        ) from None


def _build(cls: type[T], settings: Mapping[str, Any]) -> T:
    """Return an instance with the settings from a file."""
    return cls(**{name: _from_json(value) for name, value in dict(settings).items()})


def _from_json(value: Any) -> Any:
    """Return a setting with tuples in place of the lists of JSON."""
    return tuple(_from_json(item) for item in value) if isinstance(value, list) else value


def _input_shape(sides: object) -> Shape:
    """Return the shape of an input, after checking that arithmetic with it is safe.

    Raises:
        ValueError: it is not a list of few integers.
    """
    if (
        not isinstance(sides, list)
        or len(sides) > _MAX_NDIM
        or not all(type(side) is int and 0 < side <= _MAX_VALUES for side in sides)
    ):
        raise ValueError(
            f"input_shape must be a list of at most {_MAX_NDIM} integers from 1 to {_MAX_VALUES}"
        )
    return tuple(sides)


def _check_sizes(graph: Graph, name: object) -> None:
    """Check that a network needs a bounded amount of memory for one image.

    Raises:
        ValueError: a tensor is too large, or the name is no short string.
    """
    if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS:
        raise ValueError(f"the name of a network must have at most {_MAX_NAME_CHARS} characters")
    sizes = graph.values_per_image, graph.largest_tensor_per_image
    if sizes[0] > _MAX_VALUES or sizes[1] > _MAX_TENSOR:
        raise ValueError(
            f"its layers take {sizes[0]:.3g} values for one image and {sizes[1]:.3g} for the "
            f"largest tensor, expected at most {_MAX_VALUES:,} and {_MAX_TENSOR:,}"
        )


def _compare_shapes(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Check that a file holds the weights that it describes.

    Raises:
        ValueError: a weight is missing or unknown, or has another shape.
    """
    for name in [*expected, *(found.keys() - expected.keys())]:
        if found.get(name) != expected.get(name):
            describes, holds = expected.get(name, "none"), found.get(name, "none")
            raise ValueError(
                f"the file describes {name[:40]} with shape {describes} but holds {holds}"
            )


def _layer_from_dict(description: dict[str, Any]) -> Layer:
    kind = description["kind"]
    _look_up("layer", kind, {**LAYERS, **ACTIVATIONS})
    if kind in ACTIVATIONS:
        return _build(Activation, description)
    return _build(LAYERS[kind], {k: value for k, value in description.items() if k != "kind"})

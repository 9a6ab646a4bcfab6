"""Networks, optimizers and schedules as JSON-compatible data, as files contain them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import Meta, Struct

from backends import ACTIVATIONS, OPTIMIZERS, Backend, Shape, UpdateRule, shown
from mnist_accel.nn.graph import Graph, build_graph
from mnist_accel.nn.inputs import Features, Input, Pixels
from mnist_accel.nn.layers import LAYERS, Activation, Layer, is_registered
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.network import Network
from mnist_accel.nn.schedules import SCHEDULES, Schedule
from mnist_accel.util.schema import Amount, Finite, Integer, Name, convert
from mnist_accel.util.text import excerpt

T = TypeVar("T")

# A few bytes in a file can describe a network of any size. These limits bound what it allocates.
_MAX_LAYERS = 1000
_MAX_NDIM = 3
_MAX_VALUES = 2**22  # elements of the inputs and outputs of all layers for one image
_MAX_TENSOR = 2**24  # elements of the unfolded input of a convolution for one image

_Value: TypeAlias = bool | Integer | Finite | str | None
# The settings of a layer, an optimizer or a schedule; tuples become lists.
Settings: TypeAlias = dict[str, _Value | list[_Value | list[_Value]]]


class _Description(Struct, frozen=True):
    """The result of `network_to_dict`."""

    name: Name
    input_shape: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=_MAX_VALUES)], ...],
        Meta(min_length=1, max_length=_MAX_NDIM),
    ]
    pixel_shift: Finite
    dtype: Name
    loss: Name
    layers: Annotated[list[Settings], Meta(max_length=_MAX_LAYERS)]
    # Files of release 0.1.0 do not have these.
    l2: Amount = 0.0
    takes_pixels: bool = True


def network_to_dict(network: Network) -> dict[str, Any]:
    """Return the structure of a network, without weights and backend, as JSON-compatible data.

    Raises:
        ValueError: `network_from_dict` could not build a layer or the loss, or would reject the
            network for its size.
    """
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
    description = {
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
    if network.loss.l2:
        description["l2"] = network.loss.l2
    if isinstance(network.input, Features):
        description["takes_pixels"] = False
    checked = convert(description, _Description)
    layers = [_layer_from_dict(layer) for layer in checked.layers]
    _check_sizes(build_graph(layers, checked.input_shape))
    return description


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
        ValueError: `description` does not describe a network, or its network has other weights.
    """
    found = convert(description, _Description)
    layers = [_layer_from_dict(layer) for layer in found.layers]
    graph = build_graph(layers, found.input_shape)
    _check_sizes(graph)
    _compare_shapes(graph.parameter_shapes, weights)
    return Network(
        layers,
        Loss(found.loss, found.l2),
        input=_input_of(found),
        backend=backend,
        dtype=found.dtype,
        name=found.name,
    )


def _input_of(found: _Description) -> Input:
    """Return what a described network takes."""
    if found.takes_pixels:
        return Pixels(found.input_shape, found.pixel_shift)
    if found.pixel_shift:
        raise ValueError(f"features are not shifted, got pixel_shift {found.pixel_shift}")
    return Features(found.input_shape)


def optimizer_to_dict(optimizer: UpdateRule) -> dict[str, Any]:
    """Return the class name and the settings of an optimizer.

    Raises:
        ValueError: its class is not registered, or a setting cannot be saved.
    """
    if not optimizer.is_registered:
        raise ValueError(_cannot_be_saved(optimizer))
    settings = _storable(optimizer, _fields_of(optimizer), partial(_build, type(optimizer)))
    return {"optimizer": type(optimizer).__name__, "optimizer_settings": settings}


def optimizer_from_dict(name: str, settings: dict[str, Any]) -> UpdateRule:
    """Return the optimizer that `optimizer_to_dict` described.

    Raises:
        ValueError: the class or a setting is unknown, or a setting has a wrong type or range.
    """
    classes: dict[str, type[UpdateRule]] = {
        rule.__name__: rule for rule in OPTIMIZERS.values() if isinstance(rule, type)
    }
    return _build(_look_up("optimizer", name, classes), settings)


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    """Return the name and the settings of a schedule.

    Raises:
        ValueError: its class is not registered, or a setting cannot be saved.
    """
    if SCHEDULES.get(schedule.kind) is not type(schedule):
        raise ValueError(_cannot_be_saved(schedule))
    settings = _storable(schedule, _fields_of(schedule), partial(_build, type(schedule)))
    return {"schedule": schedule.kind, "schedule_settings": settings}


def schedule_from_dict(name: str, settings: dict[str, Any]) -> Schedule:
    """Return the schedule that `schedule_to_dict` described.

    Raises:
        ValueError: the name or a setting is unknown, or a setting has a wrong type or range.
    """
    return _build(_look_up("schedule", name, SCHEDULES), settings)


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
    except ValueError as error:
        raise ValueError(f"{name} cannot be saved: a file could not restore it ({error})") from None
    return settings


def _look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`, or raise a ValueError that says how the table gets more entries."""
    if name not in table:
        raise ValueError(
            f"unknown {kind} {shown(name)}; if it is your own, register it with "
            f"@mnist_accel.register or give --import MODULE; known are {', '.join(table)}"
        )
    return table[name]


def _build(cls: type[T], settings: Mapping[str, Any]) -> T:
    """Return an instance with the settings from a file.

    Raises:
        ValueError: a setting is unknown or missing, or has a wrong type or range.
    """
    try:
        return cls(**{name: _from_json(value) for name, value in settings.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {excerpt(error)}") from error


def _from_json(value: Any) -> Any:
    """Return a setting with tuples in place of the lists of JSON."""
    return tuple(_from_json(item) for item in value) if isinstance(value, list) else value


def _check_sizes(graph: Graph) -> None:
    """Check that a network needs a bounded amount of memory for one image.

    Raises:
        ValueError: a tensor is too large.
    """
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


def _layer_from_dict(description: Mapping[str, Any]) -> Layer:
    kind = str(description.get("kind"))
    _look_up("layer", kind, {**LAYERS, **ACTIVATIONS})
    if kind in ACTIVATIONS:
        return _build(Activation, description)
    settings = {name: value for name, value in description.items() if name != "kind"}
    layer = _build(LAYERS[kind], settings)
    if unknown := settings.keys() - layer.settings.keys():
        raise ValueError(f"layer {kind} has no setting {min(unknown)[:40]} in files")
    return layer

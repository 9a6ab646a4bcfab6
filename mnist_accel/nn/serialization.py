"""A network's structure as plain data, so that a file of weights says what they belong to."""

from dataclasses import fields
from typing import Any

from backends import ACTIVATIONS, Backend
from mnist_accel.nn.layers import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
)
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.network import Network

_LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer for layer in (Linear, Conv2d, MaxPool2d, AvgPool2d, Flatten, Dropout)
} | dict.fromkeys(ACTIVATIONS, Activation)
_INITIALISERS = ("weight_init", "bias_init")  # of no use once there are weights


def network_to_dict(network: Network) -> dict[str, Any]:
    """Return all of a network but its weights and its backend, as JSON can hold it.

    Raises:
        ValueError: a layer or the loss is not one of this package.
    """
    unknown = [layer for layer in network.layers if _LAYERS.get(layer.kind) is not type(layer)]
    if unknown or type(network.loss) is not Loss:
        culprit = unknown[0] if unknown else network.loss
        raise ValueError(f"only layers and losses of mnist_accel can be saved, got {culprit}")
    return {
        "name": network.name,
        "input_shape": list(network.input_shape),
        "pixel_shift": network.pixel_shift,
        "dtype": network.dtype,
        "loss": network.loss.kind,
        "layers": [_layer_to_dict(layer) for layer in network.layers],
    }


def network_from_dict(description: dict[str, Any], *, backend: Backend) -> Network:
    """Build the network that `network_to_dict` described, with weights yet to be loaded.

    Raises:
        ValueError: the description is not one of a network.
    """
    try:
        return Network(
            [_layer_from_dict(layer) for layer in description["layers"]],
            Loss(description["loss"]),
            input_shape=tuple(int(side) for side in description["input_shape"]),
            backend=backend,
            dtype=description["dtype"],
            pixel_shift=float(description["pixel_shift"]),
            name=str(description["name"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this does not describe a network ({error!r})") from error


def _layer_to_dict(layer: Layer) -> dict[str, Any]:
    settings = {
        field.name: getattr(layer, field.name)
        for field in fields(layer)  # type: ignore[arg-type]
        if field.name not in _INITIALISERS
    }
    return {"kind": layer.kind, **settings}


def _layer_from_dict(description: dict[str, Any]) -> Layer:
    layer = _LAYERS[description["kind"]]
    names = {field.name for field in fields(layer)}  # type: ignore[arg-type]
    settings = {k: v for k, v in description.items() if k != "kind" or "kind" in names}
    return layer(**settings)

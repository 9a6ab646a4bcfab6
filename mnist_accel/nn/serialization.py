"""The structure of a network as plain data, as files of models contain it."""

from dataclasses import fields
from typing import Any

from backends import ACTIVATIONS, Backend, look_up
from mnist_accel.nn.layers import LAYERS, Activation, Layer
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.network import Network

_INITIALIZERS = ("weight_init", "bias_init")  # not saved: a file has the weights themselves


def network_to_dict(network: Network) -> dict[str, Any]:
    """Return the structure of a network, without weights and backend, as JSON-compatible data.

    Raises:
        ValueError: `network_from_dict` could not build a layer or the loss.
    """
    for layer in network.layers:
        expected = Activation if layer.kind in ACTIVATIONS else LAYERS.get(layer.kind)
        if type(layer) is not expected:
            raise ValueError(f"layer {layer} cannot be saved; add its class to LAYERS")
    if type(network.loss) is not Loss:
        raise ValueError(f"loss {network.loss} cannot be saved; add its formula to LOSSES")
    return {
        "name": network.name,
        "input_shape": list(network.input_shape),
        "pixel_shift": network.pixel_shift,
        "dtype": network.dtype,
        "loss": network.loss.kind,
        "layers": [_layer_to_dict(layer) for layer in network.layers],
    }


def network_from_dict(description: dict[str, Any], *, backend: Backend) -> Network:
    """Return the network that `network_to_dict` described, with new initial weights.

    Raises:
        ValueError: `description` does not describe a network.
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
        if field.name not in _INITIALIZERS
    }
    return {"kind": layer.kind, **settings}


def _layer_from_dict(description: dict[str, Any]) -> Layer:
    kind = description["kind"]
    if kind in ACTIVATIONS:
        return Activation(**description)
    settings = {name: value for name, value in description.items() if name != "kind"}
    return look_up("layer", kind, LAYERS)(**settings)

"""A network's structure as plain data, so that a file of weights says what they belong to."""

from dataclasses import fields
from typing import Any

from backends import Backend
from mnist_accel.nn import layers as layer_module
from mnist_accel.nn import losses as loss_module
from mnist_accel.nn.layers import Layer
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.network import Network

_LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        layer_module.Linear,
        layer_module.Conv2d,
        layer_module.MaxPool2d,
        layer_module.AvgPool2d,
        layer_module.ReLU,
        layer_module.Sigmoid,
        layer_module.Tanh,
        layer_module.Flatten,
        layer_module.Dropout,
    )
}
_LOSSES: dict[str, type[Loss]] = {
    loss.kind: loss
    for loss in (
        loss_module.SoftmaxCrossEntropy,
        loss_module.BinaryCrossEntropy,
        loss_module.Quadratic,
    )
}
_INITIALISERS = ("weight_init", "bias_init")  # of no use once there are weights


def network_to_dict(network: Network) -> dict[str, Any]:
    """Return all of a network but its weights and its backend, as JSON can hold it.

    Raises:
        ValueError: a layer or the loss is not one of this package.
    """
    unknown = [layer for layer in network.layers if _LAYERS.get(layer.kind) is not type(layer)]
    if unknown or _LOSSES.get(network.loss.kind) is not type(network.loss):
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
            _LOSSES[description["loss"]](),
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
    settings = {name: value for name, value in description.items() if name != "kind"}
    return _LAYERS[description["kind"]](**settings)

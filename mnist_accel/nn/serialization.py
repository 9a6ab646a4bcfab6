"""Networks, optimizers and schedules as JSON-compatible data, as files contain them."""

from dataclasses import asdict, fields
from typing import Any

from backends import ACTIVATIONS, OPTIMIZERS, Backend, UpdateRule, look_up
from mnist_accel.nn.layers import LAYERS, Activation, Layer
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.network import Network
from mnist_accel.nn.schedules import SCHEDULES, Schedule

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


def optimizer_to_dict(optimizer: UpdateRule) -> dict[str, Any]:
    """Return the class name and the numbers of an optimizer.

    Raises:
        ValueError: its class is not in `OPTIMIZERS`.
    """
    if type(optimizer) not in OPTIMIZERS.values():
        raise ValueError(f"{optimizer} cannot be saved; add its class to OPTIMIZERS")
    return {"optimizer": type(optimizer).__name__, "optimizer_settings": asdict(optimizer)}


def optimizer_from_dict(description: dict[str, Any]) -> UpdateRule:
    """Return the optimizer that `optimizer_to_dict` described.

    Raises:
        ValueError: the class is unknown.
    """
    classes: dict[str, type[UpdateRule]] = {
        rule.__name__: rule for rule in OPTIMIZERS.values() if isinstance(rule, type)
    }
    rule = look_up("optimizer", description["optimizer"], classes)
    return rule(**description["optimizer_settings"])


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    """Return the name and the numbers of a schedule.

    Raises:
        ValueError: its class is not in `SCHEDULES`.
    """
    for name, kind in SCHEDULES.items():
        if type(schedule) is kind:
            return {"schedule": name, "schedule_settings": asdict(schedule)}
    raise ValueError(f"{schedule} cannot be saved; add its class to SCHEDULES")


def schedule_from_dict(description: dict[str, Any]) -> Schedule:
    """Return the schedule that `schedule_to_dict` described.

    Raises:
        ValueError: the name is unknown.
    """
    kind = look_up("schedule", description["schedule"], SCHEDULES)
    return kind(**description["schedule_settings"])


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

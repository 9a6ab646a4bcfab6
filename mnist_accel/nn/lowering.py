"""Lowering: from a network, and an optimizer, to a program that one compiled function executes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from backends import (
    Pooling,
    Program,
    Stage,
    TrainingProgram,
    UpdateRule,
)
from mnist_accel.nn.layers import Activation, AvgPool2d, Conv2d, Flatten, Layer, Linear, MaxPool2d

if TYPE_CHECKING:
    from mnist_accel.nn.network import Network, Place


class NotLoweredError(Exception):
    """A network or an optimizer has no compiled form; the message says what and why."""


def lower_training(model: Network, optimizer: UpdateRule) -> TrainingProgram:
    """Return the training of `model` by `optimizer` as a program.

    Raises:
        NotLoweredError: part of it has no compiled form.
    """
    network = _lower(model, model.places)
    return TrainingProgram(
        **{field.name: getattr(network, field.name) for field in fields(network)},
        update=optimizer,
    )


def lower_inference(model: Network) -> Program:
    """Return the predictions of `model` as a program; random layers do nothing then.

    Raises:
        NotLoweredError: part of it has no compiled form.
    """
    return _lower(model, [place for place in model.places if not place.layer.is_random])


def _lower(model: Network, places: Iterable[Place]) -> Program:
    stages: list[Stage] = []
    for place in places:
        _append(stages, place, model.parameters.starts)
    return Program(
        stages=tuple(stages),
        loss=model.loss.kind,
        parameters=model.parameters.flat.shape[0],
        dtype=model.dtype,
        pixel_shift=model.pixel_shift,
    )


def _append(stages: list[Stage], place: Place, starts: dict[str, int]) -> None:
    """Add a layer to the stages, or to the last of them where it can be computed along with it."""
    layer = place.layer
    if isinstance(layer, Flatten):
        return  # numbers lie in the same order before and after
    last = stages[-1] if stages else None
    if isinstance(layer, Activation) and last is not None and _takes_activation(last):
        stages[-1] = replace(last, activation=layer.kind)
    elif isinstance(layer, MaxPool2d) and last is not None and _takes_pooling(last, layer):
        pooling = Pooling(layer.size, layer.step, layer.ties)
        stages[-1] = replace(last, pooling=pooling, output_shape=place.output_shape)
    else:
        stages.append(_stage(place, starts))


def _takes_activation(stage: Stage) -> bool:
    return (
        stage.kind in ("linear", "conv2d")
        and stage.activation == "identity"
        and stage.pooling is None
    )


def _takes_pooling(stage: Stage, layer: MaxPool2d) -> bool:
    """Say whether a convolution pools as well; the activations rise, so the order is the same."""
    return stage.kind == "conv2d" and stage.pooling is None and layer.size == layer.step == 2


def _stage(place: Place, starts: dict[str, int]) -> Stage:
    """Return a stage of one layer.

    Raises:
        NotLoweredError: the layer has no compiled form.
    """
    layer = place.layer
    weight, bias = (starts.get(place.keys.get(name, "")) for name in ("W", "b"))
    stage = Stage("activation", place.input_shape, place.output_shape, weight, bias)
    if isinstance(layer, Linear):
        return replace(stage, kind="linear")
    if isinstance(layer, Conv2d):
        if layer.stride != 1:
            raise NotLoweredError(f"compiled convolutions have a stride of 1, not {layer.stride}")
        return replace(stage, kind="conv2d", kernel_size=layer.kernel_size, padding=layer.padding)
    if isinstance(layer, MaxPool2d):
        pooling = Pooling(layer.size, layer.step, layer.ties)
        return replace(stage, kind="max_pool2d", pooling=pooling)
    if isinstance(layer, AvgPool2d):
        return replace(stage, kind="avg_pool2d", pooling=Pooling(layer.size, layer.step))
    if isinstance(layer, Activation):
        return replace(stage, activation=layer.kind)
    raise NotLoweredError(_why_not(layer))


def _why_not(layer: Layer) -> str:
    if layer.is_random:
        return f"the masks of {layer.kind} are drawn on the host at every step"
    return f"the layer {layer.kind} has no compiled form"

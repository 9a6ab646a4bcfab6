"""Lowering: the layers of a network as the stages of a program for a compiled backend.

Each layer becomes a stage with all its settings. Here stages are fused: an activation joins the
linear or convolution stage before it, and max-pooling joins a convolution.
"""

from dataclasses import replace

from backends import ACTIVATIONS, NotCompiledError, Pooling, Stage
from mnist_accel.nn.graph import Graph, Node
from mnist_accel.nn.layers import Activation, Dropout, Flatten, MaxPool2d, is_registered


def lower(graph: Graph, *, training: bool) -> tuple[Stage, ...]:
    """Return the layers of a network as fused stages.

    Args:
        graph: the network.
        training: False leaves out dropout, which does nothing in inference.

    Raises:
        NotCompiledError: a layer has no compiled form.
    """
    offsets = graph.parameter_offsets
    stages: list[Stage] = []
    for node in graph.nodes:
        layer = node.layer
        if not is_registered(layer):
            raise NotCompiledError(
                f"the layer {type(layer).__name__} has no compiled form: it is not the class "
                f"registered as {layer.kind!r}"
            )
        if type(layer) is Dropout:
            if training:
                raise NotCompiledError("the masks of dropout are drawn on the host at every step")
            continue
        if type(layer) is Flatten:
            continue  # the elements have the same order in memory before and after
        fused = _fuse(stages[-1], node) if stages else None
        if fused is not None:
            stages[-1] = fused
        else:
            stages.append(_stage(node, {name: offsets[key] for name, key in node.keys.items()}))
    return tuple(stages)


def _stage(node: Node, offsets: dict[str, int]) -> Stage:
    """Return the stage of a layer that is not fused."""
    layer, shapes = node.layer, (node.input_shape, node.output_shape)
    if type(layer) is Activation:
        return Stage("activation", *shapes, offsets, layer.settings, activation=layer.kind)
    return Stage(layer.kind, *shapes, offsets, layer.settings)


def _fuse(stage: Stage, node: Node) -> Stage | None:
    """Return the stage fused with the next layer, or None if they cannot be fused.

    The comparisons with new layers exclude subclasses and layers with further settings.
    """
    layer = node.layer
    if stage.pooling is not None:
        return None
    if isinstance(layer, Activation) and layer == Activation(layer.kind):
        fuses = stage.kind in ("linear", "conv2d") and stage.activation == "identity"
        return replace(stage, activation=layer.kind) if fuses else None
    if isinstance(layer, MaxPool2d) and layer == MaxPool2d(2, layer.stride, layer.ties):
        # With an increasing activation, pooling before it gives the same as pooling after it.
        kind = stage.activation
        is_increasing = kind == "identity" or ACTIVATIONS[kind].is_increasing
        if stage.kind == "conv2d" and layer.effective_stride == 2 and is_increasing:
            pooling = Pooling(2, 2, layer.ties)
            return replace(stage, fused_pooling=pooling, output_shape=node.output_shape)
    return None

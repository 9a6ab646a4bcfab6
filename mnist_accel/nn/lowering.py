"""Lowering: the layers of a network as the stages of a program for a compiled backend.

Each layer with a compiled form returns it as a stage (`Layer.stage`). Here stages are fused: an
activation joins the linear or convolution stage before it, and max-pooling joins a convolution.
"""

from dataclasses import replace

from backends import ACTIVATIONS, Stage
from mnist_accel.nn.graph import Graph, Node
from mnist_accel.nn.layers import Activation, MaxPool2d


def lower(graph: Graph, *, training: bool) -> tuple[Stage, ...]:
    """Return the layers of a network as fused stages.

    Args:
        graph: the network.
        training: False leaves out random layers, which do nothing in inference.

    Raises:
        NotCompiledError: a layer has no compiled form.
    """
    offsets = graph.parameter_offsets
    stages: list[Stage] = []
    for node in graph.nodes:
        if node.layer.is_random and not training:
            continue
        fused = _fuse(stages[-1], node) if stages else None
        if fused is not None:
            stages[-1] = fused
            continue
        own_offsets = {name: offsets[key] for name, key in node.keys.items()}
        stage = node.layer.stage(node.input_shape, node.output_shape, own_offsets)
        if stage is not None:
            stages.append(stage)
    return tuple(stages)


def _fuse(stage: Stage, node: Node) -> Stage | None:
    """Return a stage that includes the next layer, or None if it cannot."""
    layer = node.layer
    if stage.pooling is not None:
        return None
    if isinstance(layer, Activation):
        fuses = stage.kind in ("linear", "conv2d") and stage.activation == "identity"
        return replace(stage, activation=layer.kind) if fuses else None
    if isinstance(layer, MaxPool2d) and stage.kind == "conv2d":
        # With an increasing activation, pooling before it gives the same as pooling after it.
        kind = stage.activation
        is_increasing = kind == "identity" or ACTIVATIONS[kind].is_increasing
        if layer.size == layer.effective_stride == 2 and is_increasing:
            return replace(stage, pooling=layer.pooling(), output_shape=node.output_shape)
    return None

"""Lowering: a network, and an optimizer, as a program for a compiled backend.

Each layer with a compiled form returns it as a stage (`Layer.stage`). Here stages are fused: an
activation joins the linear or convolution stage before it, and max-pooling joins a convolution.
"""

from collections.abc import Iterable
from dataclasses import replace

from backends import ACTIVATIONS, Program, Stage, TrainingProgram, UpdateRule
from mnist_accel.nn.graph import Graph, Node
from mnist_accel.nn.layers import Activation, MaxPool2d


def lower_training(
    graph: Graph, rule: UpdateRule, *, loss: str, dtype: str, pixel_shift: float
) -> TrainingProgram:
    """Return the training of a network as a program.

    Args:
        graph: the network.
        rule: the optimizer.
        loss: kind of the loss.
        dtype: "float32" or "float64".
        pixel_shift: added to pixels after scaling to 0…1.

    Raises:
        NotCompiledError: a layer has no compiled form.
    """
    return TrainingProgram(
        stages=_fused_stages(graph, graph.nodes),
        loss=loss,
        parameters=graph.parameter_count,
        dtype=dtype,
        pixel_shift=pixel_shift,
        update=rule,
    )


def lower_inference(graph: Graph, *, loss: str, dtype: str, pixel_shift: float) -> Program:
    """Return the predictions of a network as a program, in which random layers do nothing.

    Arguments and errors are those of `lower_training`.
    """
    return Program(
        stages=_fused_stages(graph, (node for node in graph.nodes if not node.layer.is_random)),
        loss=loss,
        parameters=graph.parameter_count,
        dtype=dtype,
        pixel_shift=pixel_shift,
    )


def _fused_stages(graph: Graph, nodes: Iterable[Node]) -> tuple[Stage, ...]:
    offsets = graph.parameter_offsets
    stages: list[Stage] = []
    for node in nodes:
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

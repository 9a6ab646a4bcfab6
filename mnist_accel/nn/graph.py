"""The structure of a network: its layers with their shapes and the names of their parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from backends import Shape
from mnist_accel.nn.layers import Activation, Conv2d, Layer, MaxPool2d
from mnist_accel.nn.layers.pooling import Pool2d


@dataclass(frozen=True)
class Node:
    """A layer in a network.

    Attributes:
        layer: the layer.
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output.
        keys: the layer's names of its parameters → those of the network: "W" → "W2".
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    keys: dict[str, str]


@dataclass(frozen=True)
class Graph:
    """Layers in a row.

    Parameters are called W1, b1, W2, b2, … , numbered by the layers that have any.

    Attributes:
        nodes: from the input to the logits.
    """

    nodes: tuple[Node, ...]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].output_shape[0]

    @property
    def parameter_shapes(self) -> dict[str, Shape]:
        """Shapes of all parameters, in the order of the parameter vector."""
        return {
            key: node.layer.parameter_shapes(node.input_shape)[name]
            for node in self.nodes
            for name, key in node.keys.items()
        }

    @property
    def values_per_image(self) -> int:
        """Number of values in the padded inputs and in the outputs of all layers for one image."""
        return sum(_padded_size(node) + math.prod(node.output_shape) for node in self.nodes)

    @property
    def largest_tensor_per_image(self) -> int:
        """Number of values of the largest tensor for one image, also of unfolded inputs."""
        return max(max(_padded_size(node), _unfolded_size(node)) for node in self.nodes)

    @property
    def parameter_count(self) -> int:
        """Length of the parameter vector."""
        return sum(math.prod(shape) for shape in self.parameter_shapes.values())

    @property
    def parameter_offsets(self) -> dict[str, int]:
        """Index of the first element of each parameter in the parameter vector."""
        shapes = self.parameter_shapes
        sizes = (math.prod(shape) for shape in shapes.values())
        return dict(zip(shapes, accumulate(sizes, initial=0), strict=False))


def _padded_size(node: Node) -> int:
    *channels, height, width = (1, 1, *node.input_shape)
    padding = 2 * getattr(node.layer, "padding", 0)
    return math.prod(channels) * (height + padding) * (width + padding)


def _unfolded_size(node: Node) -> int:
    """Return the number of values if each output has its own copy of its inputs."""
    if isinstance(node.layer, Conv2d):
        patch = node.input_shape[0] * node.layer.kernel_size**2
        return patch * math.prod(node.output_shape[1:])
    patch = node.layer.size**2 if isinstance(node.layer, Pool2d) else 1
    return patch * math.prod(node.output_shape)


def build_graph(layers: Sequence[Layer], input_shape: Shape) -> Graph:
    """Return layers with their shapes, computed from the input on, and the names of parameters.

    Raises:
        ValueError: the layers do not fit together.
    """
    _check_ties(layers)
    nodes = []
    number = 0
    shape = input_shape
    for layer in layers:
        output_shape = layer.output_shape(shape)  # first, because it checks the input shape
        names = layer.parameter_shapes(shape)
        number += bool(names)
        keys = {name: f"{name}{number}" for name in names}
        nodes.append(Node(layer, shape, output_shape, keys))
        shape = output_shape
    if not number:
        raise ValueError("a network needs at least one layer with parameters")
    if len(shape) != 1:
        raise ValueError(f"a network must end in a vector of logits, got {shape}; add Flatten")
    return Graph(tuple(nodes))


def initial_values(graph: Graph, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return random values for all parameters, by key.

    All biases are drawn before all weights, as in the source of the only recipe that draws both.
    """
    shapes = graph.parameter_shapes
    parameters = [
        (node.layer, name, key) for node in graph.nodes for name, key in node.keys.items()
    ]
    parameters.sort(key=lambda parameter: parameter[1] != "b")
    return {key: layer.initializers()[name](rng, shapes[key]) for layer, name, key in parameters}


def _check_ties(layers: Sequence[Layer]) -> None:
    """Require that pooling with all ties follows a convolution without rounding differences.

    Raises:
        ValueError: equal patches could give outputs that differ by rounding, and miss a tie.
    """
    for before, after in pairwise(layer for layer in layers if not isinstance(layer, Activation)):
        if (
            isinstance(before, Conv2d)
            and not before.uniform
            and isinstance(after, MaxPool2d)
            and after.ties == "all"
        ):
            raise ValueError(
                "max-pooling with ties='all' needs uniform=True in the Conv2d before it"
            )

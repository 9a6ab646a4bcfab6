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
        input_shape: shape of one input, without the batch dimension.
        output_shape: shape of one output, without the batch dimension.
        keys: for each parameter, its name in the layer and its name in the network: "W" → "W2".
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    keys: dict[str, str]


@dataclass(frozen=True)
class Graph:
    """A sequence of layers with their shapes.

    The names of parameters are W1, b1, W2, b2, …. The number counts the layers with parameters.

    Attributes:
        nodes: the layers, from the input to the logits.
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
        """Number of values in the largest tensor for one image, including unfolded inputs."""
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
    """Return the size of the unfolded input, which has a copy of the patch of each output."""
    if isinstance(node.layer, Conv2d):
        patch = node.input_shape[0] * node.layer.kernel_size**2
        return patch * math.prod(node.output_shape[1:])
    patch = node.layer.size**2 if isinstance(node.layer, Pool2d) else 1
    return patch * math.prod(node.output_shape)


def build_graph(layers: Sequence[Layer], input_shape: Shape) -> Graph:
    """Return the graph of a sequence of layers, with all shapes and parameter names.

    Raises:
        ValueError: the layers do not fit together.
    """
    _check_ties(layers)
    nodes = []
    number = 0
    shape = input_shape
    for layer in layers:
        output_shape = layer.output_shape(shape)  # called first, because it checks `shape`
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
    """Return random initial values of all parameters, by name in the network.

    All biases are drawn before all weights. Only one recipe draws random biases, and the program
    that it reproduces uses this order.
    """
    shapes = graph.parameter_shapes
    parameters = [
        (node.layer, name, key) for node in graph.nodes for name, key in node.keys.items()
    ]
    parameters.sort(key=lambda parameter: parameter[1] != "b")
    return {key: layer.initializers()[name](rng, shapes[key]) for layer, name, key in parameters}


def _check_ties(layers: Sequence[Layer]) -> None:
    """Check that each convolution before max-pooling with `ties="all"` is uniform.

    Raises:
        ValueError: a convolution is not uniform, so rounding could make tied outputs unequal.
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

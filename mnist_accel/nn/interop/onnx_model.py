"""A network as an ONNX model."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import LOSSES
from mnist_accel.nn.graph import Graph, Node
from mnist_accel.nn.layers import Activation, AvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d
from mnist_accel.util.optional_packages import missing

# Version 17 has every operator that is used here, and most runtimes support it.
OPSET = 17
_IR_VERSION = 8  # the file format that belongs to this opset
_DTYPE = np.dtype(np.float32)  # onnxruntime has no convolution in float64
_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def onnx_model(
    graph: Graph,
    weights: dict[str, NDArray[Any]],
    *,
    loss: str,
    pixel_shift: float,
    name: str,
    input_name: str,
    preprocess: bool,
) -> bytes:
    """Return a checked ONNX model as bytes.

    It computes in float32. Its output is (N, classes), with any number of images N. It is called
    "probabilities", or "outputs" if the loss has no probabilities.

    Args:
        graph: the structure of the network.
        weights: the parameters by name.
        loss: kind of the loss, which defines the outputs.
        pixel_shift: added to pixels after scaling to 0…1.
        name: name of the graph.
        input_name: name of the input.
        preprocess: if True, the input is uint8 (N, pixels in the input's shape) 0…255,
            which the model scales; otherwise it is what the first layer takes.

    Raises:
        MissingPackageError: the package onnx is not installed.
        ValueError: a layer has no ONNX form; the message names it.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing("exporting to ONNX", "onnx", extra="onnx", error=error) from error
    builder = _Builder(onnx, input_name)
    shape = graph.nodes[0].input_shape
    if preprocess:
        builder.scale_pixels(shift=pixel_shift)
    for number, node in enumerate(graph.nodes, 1):
        builder.add_layer(
            node, number, {key: weights[key].astype(_DTYPE) for key in node.keys.values()}
        )
    builder.add_outputs(LOSSES[loss].outputs)
    return builder.build(name, shape, classes=graph.classes, is_uint8=preprocess)


class _Builder:
    """Collects the nodes and the constants of an ONNX graph, which is a chain.

    Args:
        onnx: the module onnx.
        input_name: name of the input.
    """

    def __init__(self, onnx: Any, input_name: str) -> None:
        self._onnx = onnx
        self._input = input_name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._current = input_name  # name of the newest value

    def add(self, operator: str, *constants: str, output: str = "", **attributes: Any) -> None:
        """Append an operator that takes the newest value and some constants."""
        output = output or f"value_{len(self._nodes) + 1}"
        made = self._onnx.helper.make_node(
            operator, [self._current, *constants], [output], name=output, **attributes
        )
        self._nodes.append(made)
        self._current = output

    def constant(self, name: str, value: Any) -> str:
        """Add a constant and return its name."""
        array = np.ascontiguousarray(value)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def scale_pixels(self, *, shift: float) -> None:
        """Convert uint8 pixels to float32 in 0…1 plus a shift."""
        self.add("Cast", to=self._onnx.helper.np_dtype_to_tensor_dtype(_DTYPE))
        self.add("Mul", self.constant("scale", np.array(1 / 255, _DTYPE)))
        if shift:
            self.add("Add", self.constant("shift", np.array(shift, _DTYPE)))

    def add_layer(self, node: Node, number: int, weights: dict[str, NDArray[Any]]) -> None:
        """Append the operators of a layer.

        Raises:
            ValueError: the layer has no ONNX form.
        """
        for kind, add in _LAYERS.items():
            if type(node.layer) is kind:
                add(self, node.layer, weights)
                return
        raise ValueError(
            f"layer {number} ({node.layer.kind}) has no ONNX form; known are "
            f"{', '.join(sorted(layer.kind for layer in _LAYERS if layer is not Activation))} and "
            f"the activations {', '.join(_ACTIVATIONS)}"
        )

    def add_outputs(self, kind: str) -> None:
        """Append the activation of the output layer, "softmax", "sigmoid" or "identity"."""
        attributes = {"axis": 1} if kind == "softmax" else {}
        name = "outputs" if kind == "identity" else "probabilities"
        self.add(kind.capitalize(), output=name, **attributes)

    def build(self, name: str, shape: tuple[int, ...], *, classes: int, is_uint8: bool) -> bytes:
        """Return the checked model."""
        helper = self._onnx.helper
        types = [
            helper.np_dtype_to_tensor_dtype(np.dtype(np.uint8) if is_uint8 else _DTYPE),
            helper.np_dtype_to_tensor_dtype(_DTYPE),
        ]
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(self._input, types[0], ["N", *shape])],
            [helper.make_tensor_value_info(self._current, types[1], ["N", classes])],
            self._constants,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="mnist_accel"
        )
        self._onnx.checker.check_model(model, full_check=True)
        serialized: bytes = model.SerializeToString()
        return serialized


def _add_linear(builder: _Builder, layer: Any, weights: dict[str, NDArray[Any]]) -> None:
    names = [builder.constant(name, array) for name, array in weights.items()]
    builder.add("Gemm", *names)


def _add_conv(builder: _Builder, layer: Any, weights: dict[str, NDArray[Any]]) -> None:
    names = [builder.constant(name, array) for name, array in weights.items()]
    builder.add(
        "Conv",
        *names,
        kernel_shape=[layer.kernel_size] * 2,
        strides=[layer.stride] * 2,
        pads=[layer.padding] * 4,
    )


def _pool(operator: str) -> Callable[[_Builder, Any, dict[str, NDArray[Any]]], None]:
    def add(builder: _Builder, layer: Any, weights: dict[str, NDArray[Any]]) -> None:
        builder.add(operator, kernel_shape=[layer.size] * 2, strides=[layer.effective_stride] * 2)

    return add


def _add_flatten(builder: _Builder, layer: Any, weights: dict[str, NDArray[Any]]) -> None:
    builder.add("Flatten", axis=1)


def _add_activation(builder: _Builder, layer: Any, weights: dict[str, NDArray[Any]]) -> None:
    if layer.kind not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"the activation {layer.kind} has no ONNX form; known are {known}")
    builder.add(_ACTIVATIONS[layer.kind])


def _add_nothing(builder: _Builder, layer: Any, weights: dict[str, NDArray[Any]]) -> None:
    """Dropout changes nothing in predictions."""


_LAYERS: dict[type[Any], Callable[[_Builder, Any, dict[str, NDArray[Any]]], None]] = {
    Linear: _add_linear,
    Conv2d: _add_conv,
    MaxPool2d: _pool("MaxPool"),
    AvgPool2d: _pool("AveragePool"),
    Flatten: _add_flatten,
    Dropout: _add_nothing,
    Activation: _add_activation,
}

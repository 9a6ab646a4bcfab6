"""A page on which people draw a digit and watch a network recognize it, as one HTML file."""

import base64
import html
import json
import re
from importlib.resources import files
from typing import Any

import numpy as np

from backends import LOSSES
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.layers import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
)
from mnist_accel.nn.network import Network
from mnist_accel.util.text import excerpt

_MAX_NAME_CHARS = 24  # beside the bars of the probabilities
_SCRIPTS = ("network.js", "preprocess.js", "page.js")
_LAYERS = (Activation, AvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d)
_ACTIVATIONS = ("relu", "sigmoid", "tanh")


def draw_page(network: Network, *, class_names: tuple[str, ...], centers: bool) -> str:
    """Return the page of a network as HTML. The page loads nothing from the internet.

    Args:
        network: the network; it must take square gray images.
        class_names: names of the classes, in their order.
        centers: whether drawings are scaled and centered like the digits of MNIST.

    Raises:
        ValueError: the page cannot compute a layer, or the network takes other images; the message
            names the layer.
    """
    names = [excerpt(name, max_chars=_MAX_NAME_CHARS) for name in class_names]
    description = _describe(network, names, centers=centers)
    first = next(node.layer for node in network.graph.nodes if node.keys)
    longest = max(map(len, names))
    values = {
        "title": html.escape(network.name),
        "what": "a digit" if centers else "a picture",
        "subtitle": html.escape(f"{network.name}: {network.describe()}"),
        "first_layer": "The outputs of the filters of the first convolution."
        if isinstance(first, Conv2d)
        else "The weights of the units that the drawing activates most.",
        "name_width": f"{max(1, 0.62 * longest):.1f}em",
        "answer_class": "long" if longest > 2 else "",
        # "<" could end the script element.
        "network": json.dumps(description).replace("<", "\\u003c"),
        "scripts": "\n".join(_read(name) for name in _SCRIPTS),
    }
    # In one pass, because a value may contain the name of another one.
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], _read("page.html"))


def _describe(network: Network, class_names: list[str], *, centers: bool) -> dict[str, Any]:
    """Return the network as the data that the scripts read."""
    if not isinstance(network.input, Pixels):
        raise ValueError("the page draws images, but the network takes features")
    size = network.input.image_size
    if size is None or size[0] != size[1]:
        shape = "×".join(map(str, network.input_shape))
        raise ValueError(f"the page draws square gray images, but the network takes {shape} pixels")
    weights = network.state_dict()
    layers = []
    for number, node in enumerate(network.graph.nodes, 1):
        layer = node.layer
        is_known = type(layer) in _LAYERS
        if not is_known or (isinstance(layer, Activation) and layer.kind not in _ACTIVATIONS):
            raise ValueError(f"layer {number} ({layer.kind}) has no form in the page")
        shapes = {name: list(weights[key].shape) for name, key in node.keys.items()}
        layers.append({"kind": layer.kind, **_settings(layer), **shapes})
    flat = np.concatenate([array.ravel() for array in weights.values()]).astype("<f4")
    return {
        "input_shape": list(network.input_shape),
        "side": size[0],
        "pixel_shift": network.pixel_shift,
        "outputs": LOSSES[network.loss.kind].outputs,
        "classes": class_names,
        "centers": centers,
        "layers": layers,
        "weights": base64.b64encode(flat.tobytes()).decode(),
    }


def _settings(layer: Layer) -> dict[str, int]:
    """Return the settings of a layer that the scripts read."""
    if isinstance(layer, MaxPool2d | AvgPool2d):
        return {"size": layer.size, "stride": layer.effective_stride}
    if isinstance(layer, Conv2d):
        return {"stride": layer.stride, "padding": layer.padding}
    return {}


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")

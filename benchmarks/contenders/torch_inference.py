"""PyTorch: predictions in inference mode, eager, compiled, or replayed from a CUDA graph."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders.base import HostArray, InferenceSession
from benchmarks.contenders.torch_networks import (
    Mode,
    Tensor,
    build_network,
    compiled,
    device,
    record_graph,
    use_float32,
)
from mnist_accel.nn import Network

Forward: TypeAlias = Callable[[Tensor], Tensor]


def prepare_inference(model: Network, mode: Mode) -> InferenceSession:
    """Return the function that predicts with the network."""
    use_float32()
    network = build_network(model).requires_grad_(False)
    softmax = model.loss.kind == "softmax_cross_entropy"

    def eager(pixels: Tensor) -> Tensor:
        logits = network(pixels + model.pixel_shift if model.pixel_shift else pixels)
        return logits.softmax(1) if softmax else logits.sigmoid()

    forward: Forward = {"eager": lambda f: f, "compiled": compiled, "graph": _graphed}[mode](eager)

    def predict(images: NDArray[np.float32]) -> HostArray:
        writable = images if images.flags.writeable else images.copy()  # PyTorch warns otherwise
        with torch.inference_mode():
            pixels = torch.from_numpy(writable).reshape(-1, *model.input_shape).to(device())
            return np.asarray(forward(pixels).cpu().numpy())

    return predict


def _graphed(function: Forward) -> Forward:
    """Return a function that replays `function` as a CUDA graph, recorded once per shape."""
    graphs: dict[Any, tuple[Tensor, Any, Tensor]] = {}

    def replay(pixels: Tensor) -> Tensor:
        if pixels.shape not in graphs:
            static_pixels = pixels.clone()
            graphs[pixels.shape] = (static_pixels, *record_graph(function, static_pixels))
        static_pixels, graph, result = graphs[pixels.shape]
        static_pixels.copy_(pixels)
        graph.replay()
        return result

    return replay

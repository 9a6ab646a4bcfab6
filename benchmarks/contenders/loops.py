"""The plain Python loops of a textbook CNN, as a reference point.

Each image is processed alone: a loop over the patches of the image, a loop over the pooling patches
of the feature maps, a product with the dense weights, and the same steps backward. Like all
contenders, the loops compute in float32.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backends import Availability
from benchmarks.contenders.base import (
    Contender,
    HostArray,
    HostArrays,
    InferenceSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.host import blas_threads
from mnist_accel.nn import SGD, Network
from mnist_accel.recipes.models import RECIPES

KERNEL_SIZE = 3
POOL_SIZE = 2


class Loops(Contender):
    """Loops in Python over single pixels and patches, for the network `cnn` only."""

    name: ClassVar[str] = "loops"
    # As in the textbook, each pixel that equals the maximum receives the gradient.
    ties: ClassVar[Literal["first", "recipe"]] = "recipe"

    def availability(self) -> Availability:
        """Return that the loops are available, because they need only NumPy."""
        return Availability(True, f"NumPy {np.__version__}")

    def versions(self) -> dict[str, str]:
        """Return the version of NumPy, and the number of BLAS threads for the last layer."""
        return {"numpy": np.__version__, "threads": str(blas_threads())}

    def skip_reason(self, task: TrainingTask) -> str:
        """Return why the loops do not support the training; empty if they do."""
        optimizer = task.optimizer
        if reason := self.inference_skip_reason(task.model, task.batch_size):
            return reason
        if type(optimizer) is not SGD or optimizer.momentum or optimizer.weight_decay:
            return "its loops support only SGD without momentum and weight decay"
        return ""

    def inference_skip_reason(self, model: Network, batch_size: int) -> str:
        """Return why the loops do not support the network or batch size; empty if they do."""
        reason = _network_skip_reason(model)
        if not reason and batch_size != 1:
            return f"its loops support a batch of 1, not {batch_size}"
        return reason

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare a training, image by image."""
        return _Training(task)

    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions, image by image."""
        if reason := _network_skip_reason(model):
            raise ValueError(f"loops cannot compute {model.name}: {reason}")
        weights, shift = model.state_dict(), np.float32(model.pixel_shift)

        def predict(images: NDArray[np.float32]) -> HostArray:
            return np.array([_forward(weights, image + shift)[-1] for image in images])

        return predict


def _network_skip_reason(model: Network) -> str:
    layers = tuple(RECIPES["cnn"].build((), ""))
    if model.layers != layers or model.loss != RECIPES["cnn"].loss:
        return f"its loops support the network cnn, not {model.name}"
    return ""


class _Training(TrainingSession):
    """Runs one forward pass, backward pass and update per image."""

    def __init__(self, task: TrainingTask) -> None:
        self._task = task
        self._images = task.pixels()
        self._rng = np.random.default_rng(task.seed)
        self.reset()

    def run(self) -> None:
        for row in self._rng.permutation(len(self._images)):
            self._step(row)

    def reset(self) -> None:
        self._weights = self._task.model.state_dict()

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        gradients = [self._loss_and_gradients(row)[1] for row in rows]
        return {name: np.mean([each[name] for each in gradients], axis=0) for name in gradients[0]}

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        return [self._step(row) for (row,) in batches]

    def weights(self) -> HostArrays:
        return {name: weight.copy() for name, weight in self._weights.items()}

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        pixels = self._task.pixels(images)
        classes = [_forward(self._weights, image)[-1].argmax() for image in pixels]
        return np.array(classes, np.int64)

    def _step(self, row: int) -> float:
        loss, gradients = self._loss_and_gradients(row)
        for name, gradient in gradients.items():
            self._weights[name] -= np.float32(self._task.optimizer.lr) * gradient
        return loss

    def _loss_and_gradients(self, row: int) -> tuple[float, dict[str, HostArray]]:
        image, label = self._images[row], self._task.labels[row]
        maps, pooled, probabilities = _forward(self._weights, image)
        dlogits = probabilities.copy()
        dlogits[label] -= 1
        dpooled = (self._weights["W2"] @ dlogits).reshape(pooled.shape)
        gradients = {
            "W1": _convolution_backward(_pooling_backward(dpooled, maps, pooled), image),
            "W2": np.outer(pooled, dlogits),
            "b2": dlogits,
        }
        return float(-np.log(probabilities[label])), gradients


def _forward(weights: HostArrays, image: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Return the feature maps, the maxima of their patches, and the probabilities."""
    maps = _convolution(image, weights["W1"])
    pooled = _pooling(maps)
    logits = pooled.ravel() @ weights["W2"] + weights["b2"]
    exponentials = np.exp(logits - logits.max())
    return maps, pooled, exponentials / exponentials.sum()


def _patches(image: HostArray) -> Iterator[tuple[int, int, HostArray]]:
    """Yield each patch of the image with its row and column."""
    pixels = image.reshape(28, 28)
    for i in range(len(pixels) - KERNEL_SIZE + 1):
        for j in range(len(pixels) - KERNEL_SIZE + 1):
            yield i, j, pixels[i : i + KERNEL_SIZE, j : j + KERNEL_SIZE]


def _convolution(image: HostArray, filters: HostArray) -> HostArray:
    side = 28 - KERNEL_SIZE + 1
    maps = np.zeros((len(filters), side, side), np.float32)
    for i, j, patch in _patches(image):
        maps[:, i, j] = np.sum(patch * filters[:, 0], axis=(1, 2))
    return maps


def _convolution_backward(dmaps: HostArray, image: HostArray) -> HostArray:
    dfilters = np.zeros((len(dmaps), 1, KERNEL_SIZE, KERNEL_SIZE), np.float32)
    for i, j, patch in _patches(image):
        for f in range(len(dmaps)):
            dfilters[f, 0] += dmaps[f, i, j] * patch
    return dfilters


def _pooling(maps: HostArray) -> HostArray:
    side = maps.shape[1] // POOL_SIZE
    pooled = np.zeros((len(maps), side, side), np.float32)
    for i in range(side):
        for j in range(side):
            row, column = i * POOL_SIZE, j * POOL_SIZE
            patch = maps[:, row : row + POOL_SIZE, column : column + POOL_SIZE]
            pooled[:, i, j] = np.amax(patch, axis=(1, 2))
    return pooled


def _pooling_backward(dpooled: HostArray, maps: HostArray, pooled: HostArray) -> HostArray:
    dmaps = np.zeros_like(maps)
    for f in range(len(maps)):
        for i in range(pooled.shape[1] * POOL_SIZE):
            for j in range(pooled.shape[2] * POOL_SIZE):
                if maps[f, i, j] == pooled[f, i // POOL_SIZE, j // POOL_SIZE]:
                    dmaps[f, i, j] = dpooled[f, i // POOL_SIZE, j // POOL_SIZE]
    return dmaps

"""Arrays of random numbers on a GPU, and launchers of kernels."""

from dataclasses import replace
from typing import Any

import numpy as np

from backends.cupy.chunk import ChunkMemory
from backends.cupy.launch.graph_batch import DeviceDataset, GraphBatch, StepState
from backends.cupy.launch.launcher import Launcher
from backends.cupy.loader import Kernels
from backends.cupy.members import Memory
from backends.cupy.workspace import MAX_STEPS_PER_CHUNK
from backends.operations.common import Array
from mnist_accel.nn.network import Network

RATES = (0.01, 0.02, 1.5)  # learning rate, and Adam's two other rates
FIRST = 2  # position of the batch in the rows of its chunk
_STEP = 1  # the step of the batch


class Gpu:
    """A GPU, or the emulator, with random arrays of one dtype.

    Args:
        cupy: the module `cupy` or its replacement.
        dtype: "float32" or "float64".
    """

    def __init__(self, cupy: Any, dtype: str = "float32") -> None:
        self.cupy = cupy
        self.dtype = dtype
        self.kernels = Kernels(cupy)
        self.launcher = Launcher(self.kernels, dtype)
        self._rng = np.random.default_rng(5)
        self._number: Any = np.dtype(dtype)

    @property
    def capability(self) -> int:
        """Compute capability, such as 90 for 9.0."""
        return int(self.cupy.cuda.Device().compute_capability)

    @property
    def multiprocessors(self) -> int:
        """Number of multiprocessors."""
        return int(self.cupy.cuda.Device().attributes["MultiProcessorCount"])

    def random(self, *shape: int) -> Array:
        """Return normally distributed numbers."""
        return self.cupy.array(self._rng.standard_normal(shape, self._number))

    def positive(self, *shape: int) -> Array:
        """Return numbers in 0…1."""
        return self.cupy.array(self._rng.random(shape, self._number))

    def integers(self, low: int, high: int, *shape: int, dtype: str = "int32") -> Array:
        """Return random integers from `low` to `high` − 1."""
        return self.cupy.array(self._rng.integers(low, high, shape, dtype))

    def masks(self, *shape: int) -> Array:
        """Return tie masks of 2×2 pooling: at least one bit of four is set."""
        return self.integers(1, 16, *shape, dtype="uint8")

    def empty(self, *shape: int, dtype: str = "") -> Array:
        """Return an array whose elements are not set."""
        return self.cupy.empty(shape, dtype or self.dtype)

    def copies(self, *arrays: Array) -> tuple[Array, ...]:
        """Return copies of arrays."""
        return tuple(self.cupy.array(array) for array in arrays)

    def weights_of(self, model: Network) -> Array:
        """Return the parameter vector of a network near its initial one, without zeros."""
        vector = self.cupy.array(model.parameters.flat.astype(self.dtype))
        vector += 0.01 * self.random(vector.size)
        return vector

    def batch(
        self, images: int, pixels: int, *, classes: int = 10, shift: float = 0.0
    ) -> GraphBatch:
        """Return a batch of a data set of bytes, in the middle of a chunk.

        It has the state that the first kernel of its step leaves. Half of the pixels are 0, as in
        MNIST. The chunk has room for as many steps as are timed.
        """
        rows = images + 5
        memory = Memory(self.cupy)
        chunk = ChunkMemory(memory, self.dtype, steps=MAX_STEPS_PER_CHUNK, rows=rows).device
        chunk.rows[...] = self.cupy.array(np.arange(rows, dtype=np.int32)[::-1].copy())
        chunk.bounds[...] = self.cupy.array(np.array([FIRST, FIRST + images], np.int32))
        chunk.rates[...] = self.cupy.array(np.array(RATES, self.dtype))
        chunk.step[...] = self.cupy.array(np.array([_STEP, FIRST, FIRST + images], np.int32))
        state = StepState(
            batch=self.cupy.array(np.array([images, FIRST], np.int32)),
            rates=self.cupy.array(np.array(RATES, self.dtype)),
            image_losses=self.random(images),
            image_correct=self.integers(0, 2, images),
        )
        data = self.integers(0, 256, rows, pixels, dtype="uint8")
        data[:, pixels // 2 :] = 0
        dataset = DeviceDataset(data, self.integers(0, classes, rows))
        return GraphBatch(dataset, chunk, state, shift)

    def launcher_for(self, batch: GraphBatch) -> Launcher:
        """Return a launcher of kernels of the step of a batch."""
        return replace(self.launcher, graph_batch=batch)


def rows_of(batch: GraphBatch) -> Array:
    """Return the rows of the data set that are the images of a batch."""
    return batch.chunk.rows[FIRST : FIRST + len(batch)]


def result_of(batch: GraphBatch) -> tuple[Array, Array]:
    """Return loss and number of correct predictions of the step of a batch, as arrays."""
    step = slice(_STEP, _STEP + 1)
    return batch.chunk.losses[step], batch.chunk.correct[step]

"""Emulated arrays, and launchers of fast and naive CUDA kernels, for tests that compare the two."""

import importlib.resources
from typing import Any

import numpy as np

from backends.cupy.chunk import ChunkMemory
from backends.cupy.kernel import Kernel
from backends.cupy.launch.conv_shape import ConvShape
from backends.cupy.launch.graph_batch import DeviceDataset, GraphBatch, StepState
from backends.cupy.launch.launcher import Launcher, ceil_div
from backends.cupy.loader import Kernels
from backends.cupy.members import Memory
from tests.support.closeness import assert_close
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator

LR = 0.1

CONVOLUTIONS = [
    ConvShape(channels=2, height=7, width=6, filters=4, kernel_size=3, padding=1, pool=2),
    ConvShape(channels=3, height=6, width=8, filters=4, kernel_size=2, padding=0),
    ConvShape(channels=1, height=9, width=9, filters=2, kernel_size=7, padding=2, pool=2),
]
IMAGES = 3


def map_shape(shape: ConvShape) -> tuple[int, int, int, int]:
    """Return the shape of the output of a convolution."""
    border = 2 * shape.padding - shape.kernel_size + 1
    rows, columns = (shape.height + border) // shape.pool, (shape.width + border) // shape.pool
    return IMAGES, shape.filters, rows, columns


def arrays_of(setting: "Setting", shape: ConvShape) -> tuple[Any, Any, Any, Any, Any]:
    """Return x, weight, bias, dy and tie masks of a convolution."""
    side = shape.kernel_size
    return (
        setting.random(IMAGES, shape.channels, shape.height, shape.width),
        setting.random(shape.filters, shape.channels, side, side),
        setting.random(shape.filters),
        setting.random(*map_shape(shape)),
        setting.masks(*map_shape(shape)),
    )


class Setting:
    """Emulated arrays, and launchers of fast and naive kernels, for one dtype."""

    def __init__(self, dtype: str = "float64") -> None:
        self.dtype = dtype
        self.emulator = Emulator()
        self.cupy = EmulatedCupy(self.emulator)
        self.kernels = Kernels(self.cupy)
        self.launcher = Launcher(self.kernels, dtype)
        self._rng = np.random.default_rng(5)

    def random(self, *shape: int) -> Any:
        """Return an array of random numbers."""
        array = self.cupy.empty(shape, self.dtype)
        array[...] = self._rng.standard_normal(shape)
        return array

    def empty(self, *shape: int, dtype: str = "") -> Any:
        """Return an array whose elements are not set."""
        return self.cupy.empty(shape, dtype or self.dtype)

    def integers(self, maximum: int, *shape: int, dtype: str = "int32") -> Any:
        """Return an array of random integers below `maximum`."""
        array = self.cupy.empty(shape, dtype)
        array[...] = self._rng.integers(maximum, size=shape)
        return array

    def masks(self, *shape: int) -> Any:
        """Return random tie masks."""
        array = self.integers(15, *shape, dtype="uint8")
        array += 1
        return array

    def naive(self, name: str, threads: int, **arguments: Any) -> None:
        """Launch a naive kernel with at least `threads` threads, or with one."""
        folder = importlib.resources.files("backends.cupy.kernels").joinpath("naive")
        (file,) = (
            path.name.removesuffix(".cu")
            for path in folder.iterdir()
            if path.name.endswith(".cu") and f" naive_{name}(" in path.read_text(encoding="utf-8")
        )
        kernel: Kernel = self.launcher.kernel(f"naive/{file}", f"naive_{name}", {})
        block = min(threads, 64)
        kernel((ceil_div(threads, block),), block, **arguments)

    def close(self, got: Any, expected: Any, terms: int) -> None:
        """Compare within the rounding errors of two sums with `terms` terms."""
        assert_close(got, expected, dtype=self.dtype, terms=4 * terms)

    def graph_batch(self, images: int, classes: int) -> GraphBatch:
        """Return a batch in the middle of a chunk, as the first kernel of its step leaves it."""
        chunk = ChunkMemory(Memory(self.cupy), self.dtype, steps=3, rows=3 * images).device
        chunk.rows[...] = np.arange(chunk.rows.size)[::-1]
        chunk.step[...] = 1
        state = StepState(
            batch=self.empty(2, dtype="int32"),
            rates=self.empty(3),
            image_losses=self.random(images),
            image_correct=self.integers(2, images),
        )
        state.batch[...] = images, 2
        state.rates[...] = LR, 0, 0
        labels = self.integers(classes, chunk.rows.size)
        dataset = DeviceDataset(self.integers(256, chunk.rows.size, 9, dtype="uint8"), labels)
        return GraphBatch(dataset, chunk, state, pixel_shift=-0.5)

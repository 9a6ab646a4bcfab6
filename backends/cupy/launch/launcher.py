"""Common parts of the launches: compiled kernels, batches, and the input of a stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.loader import REAL, Constant, Kernels
from backends.operations.common import Array

THREADS = 256  # threads per block, except in kernels that have their own number
MAX_PER_IMAGE = (1 << 32) // THREADS - 1  # elements of an image, for `Position` of common.cuh
MAX_SHARED_BYTES = 48 << 10  # static shared memory per block, on every GPU
_ALIGNMENT = 8


@dataclass(frozen=True)
class Launcher:
    """Launches kernels for arrays of one dtype.

    Each module of this package contains the launches of one kernel family. Shapes: in linear layers
    x is (B, in), weight (in, out), y and dy (B, out). In convolutions x is (B, C, H, W), weight
    (O, C, K, K), y, dy and mask (B, O, OH, OW), or half that height and width if pooled. In pooling
    x is (B, C, H, W), y, dy and mask (B, C, PH, PW). A gradient has the shape of its array. All
    arrays are in C order.

    Attributes:
        kernels: the compiled kernels.
        dtype: "float32" or "float64".
        graph_batch: the batch of a graph step; None for eager operations.
        members: number of members of a population that each launch trains.
        member_stride: distance between the arrays of two members, in bytes.
    """

    kernels: Kernels
    dtype: str
    graph_batch: GraphBatch | None = None
    members: int = 1
    member_stride: int = 0

    def kernel(
        self,
        file: str,
        name: str,
        constants: Mapping[str, Constant],
        *,
        cooperative: bool = False,
    ) -> Callable[..., None]:
        """Return a kernel for all members; `Kernels.get` describes the arguments."""
        if self.members > 1:
            constants = {**constants, "MEMBERS": 1}
        kernel = self.kernels.get(file, name, constants, dtype=self.dtype, cooperative=cooperative)
        return partial(kernel, members=self.members)

    def batch(self, images: int) -> dict[str, Any]:
        """Return the struct `Batch` of common.cuh; graph steps do not read `images`."""
        state = None if self.graph_batch is None else self.graph_batch.state.batch
        return {"state": state, "images": images}

    @property
    def dense_input(self) -> dict[str, Constant]:
        """Options of stage_input.cuh for kernels that gather no images."""
        return {"GATHER": 0, "INPUT": REAL[self.dtype]}

    def stage_input(self, x: Array | GraphBatch) -> tuple[dict[str, Constant], dict[str, Any]]:
        """Return options and arguments of a kernel that takes the input of a stage.

        Args:
            x: output of the previous stage, or the batch that the first stage gathers.
        """
        struct: dict[str, Any]
        if isinstance(x, GraphBatch):
            images = x.dataset.images
            struct = {"chunk": x.chunk, "state": x.state, "pixel_shift": x.pixel_shift}
            constants: dict[str, Constant] = {"GATHER": 1, "INPUT": c_type(images)}
            return constants, {"x": images, "input": {"batch": None, **struct}}
        struct = {"chunk": None, "state": None, "pixel_shift": 0}
        return self.dense_input, {"x": x, "input": {"batch": self.batch(len(x)), **struct}}


def c_type(array: Array) -> str:
    """Return the name of an array's element type in CUDA."""
    dtype = str(array.dtype)
    return REAL.get(dtype, dtype)


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient, rounded up."""
    return -(-int(dividend) // divisor)


def grid_of(size: int, *, per_image: int = 1, threads: int = THREADS) -> tuple[int]:
    """Return a grid with at least one thread per element.

    Args:
        size: number of elements.
        per_image: number of elements per image, if the kernel divides by it (`Position` of
            common.cuh).
        threads: threads per block, at most `THREADS`.

    Raises:
        ValueError: an image has so many elements that the division would overflow.
    """
    if per_image > MAX_PER_IMAGE:
        raise ValueError(
            f"the kernels take images of at most {MAX_PER_IMAGE:,} elements, got {per_image:,}; "
            "use smaller images"
        )
    return (ceil_div(size, threads),)


def fits_shared_memory(reals: int, dtype: str, *, more_bytes: int) -> bool:
    """Return whether `reals` numbers and `more_bytes` fit the shared memory of a block."""
    size = np.dtype(dtype).itemsize
    return reals * size + more_bytes + _ALIGNMENT <= MAX_SHARED_BYTES

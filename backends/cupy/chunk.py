"""Inputs and results of the steps of a chunk, and their copies to and from the device."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cupy.launch.graph_batch import Chunk
from backends.cupy.transfers import Transfer
from backends.operations.common import Array


class ChunkMemory:
    """The arrays of a chunk, which one copy per member fills and one copy fetches.

    Args:
        memory: allocates the arrays.
        dtype: dtype of the learning rates.
        steps: number of steps.
        rows: number of images of all steps.
    """

    def __init__(self, memory: Any, dtype: str, *, steps: int, rows: int) -> None:
        self.steps = steps
        self.rows = rows
        self._rows: Array = memory.empty(rows, "int32")
        self._transfer = Transfer(
            memory,
            step=((3,), "int32"),
            bounds=((steps + 1, 2), "int32"),  # the last step reads those of the next one, too
            rates=((steps, 3), dtype),
            diverged=((1,), "int32"),
            losses=((steps,), "float64"),
            correct=((steps,), "int32"),
        )

    @cached_property
    def device(self) -> Chunk:
        """The arrays of the first member on the device."""
        return Chunk(rows=self._rows, **self._transfer.device)

    def upload(self, bounds: NDArray[Any], rates: NDArray[Any]) -> None:
        """Set the inputs of some members, and begin with step 0.

        Args:
            bounds: first and last position of each batch (members, steps, 2).
            rates: learning rates (members, steps, 3).
        """
        members, steps = bounds.shape[:2]
        host = self._transfer.host
        host["step"][:members, 0] = host["diverged"][:members, 0] = 0
        host["step"][:members, 1:] = bounds[:, 0]
        host["bounds"][:members, :steps] = bounds
        host["rates"][:members, :steps] = rates
        self._transfer.upload(members, last="diverged")

    def download(
        self, stream: Any, members: int, steps: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_]]:
        """Wait for the stream, and return the results of some members.

        Returns:
            Losses and numbers of correct predictions (members, steps), views that the next chunk
            overwrites, and whether all updated weights are finite (members,).
        """
        self._transfer.download(members, first="diverged")
        stream.synchronize()
        host = self._transfer.host
        results = host["losses"], host["correct"]
        losses, correct = (array[:members, :steps] for array in results)
        return losses, correct, host["diverged"][:members, 0] == 0

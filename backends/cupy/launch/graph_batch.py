"""Device arrays that the kernels of a graph step share.

A CUDA graph replays its launches with the arguments of the capture. What changes from step to step
is in these arrays; kernels/stage_input.cuh describes how kernels read them.
"""

from dataclasses import dataclass

from backends.operations.common import Array


@dataclass(frozen=True)
class DeviceDataset:
    """A data set in device memory.

    Attributes:
        images: (N, pixels), uint8 in 0…255 or real numbers in 0…1.
        labels: class indices (N,), int32.
    """

    images: Array
    labels: Array


@dataclass(frozen=True)
class Chunk:
    """Inputs and results of the steps that one call runs.

    Attributes:
        rows: rows of the data set in the order in which the steps take them, int32.
        bounds: positions in `rows` where each step begins and ends, (steps, 2), int32.
        rates: learning rate, and Adam's two other rates, of each step, (steps, 3).
        step: number of steps that are done, (1,), int32.
        losses: mean loss of each step, float64.
        correct: number of correct predictions of each step, int32.
    """

    rows: Array
    bounds: Array
    rates: Array
    step: Array
    losses: Array
    correct: Array


@dataclass(frozen=True)
class StepState:
    """What the kernels of one step pass on to later kernels of the step.

    Attributes:
        batch: number of images, and the position of the first in `Chunk.rows`, (2,), int32.
        rates: row of `Chunk.rates` of this step.
        image_losses: loss of each image.
        image_correct: 1 for each image with a correct prediction, else 0, int32.
    """

    batch: Array
    rates: Array
    image_losses: Array
    image_correct: Array


@dataclass(frozen=True)
class GraphBatch:
    """The images of a graph step, gathered from the data set by the first kernel.

    Attributes:
        dataset: the data set.
        chunk: the chunk that the step belongs to.
        state: set by the first kernel of the step.
        pixel_shift: added to pixels after scaling.
    """

    dataset: DeviceDataset
    chunk: Chunk
    state: StepState
    pixel_shift: float

    def __len__(self) -> int:
        """Return the number of images of the largest batch."""
        return len(self.state.image_losses)

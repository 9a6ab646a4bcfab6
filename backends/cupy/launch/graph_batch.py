"""Device arrays that the kernels of a graph step share; kernels/common.cuh describes them."""

from dataclasses import dataclass

from backends.operations.common import Array


@dataclass(frozen=True)
class DeviceDataset:
    """A data set in device memory.

    Attributes:
        images: (N, pixels), uint8 in 0…255 or real numbers in 0…1.
        labels: class indices (N,), int32; numbers (N, outputs) for a squared error.
        weights: factors of the losses (N,); None for 1.
    """

    images: Array
    labels: Array
    weights: Array | None = None


@dataclass(frozen=True)
class Chunk:
    """Inputs and results of the steps that one call runs; a struct of kernels/common.cuh."""

    rows: Array
    bounds: Array
    rates: Array
    step: Array
    diverged: Array
    losses: Array
    correct: Array


@dataclass(frozen=True)
class StepState:
    """Values that kernels of a step compute for later kernels; a struct of kernels/common.cuh."""

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

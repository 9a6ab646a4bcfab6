"""How each kernel is launched: its options, its grid, and its arguments in their order.

Single operations and captured steps launch the same kernels from here. They differ in one thing: a
captured step reads from memory how many images its batch has, and its learning rate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from backends.cuda import persistent
from backends.cuda.loader import REAL, Constant, Kernel, Kernels
from backends.operations.common import Array, Ties

THREADS = 256  # of a block; a multiple of a warp
TILE = 16  # side of the tiles of linear.cu
WARP = 32
MOST_CLASSES = 32  # of head.cu: a lane for each
MOST_KERNEL_SIZE = 32  # of filters: a line of one is kept in registers


def _mean(kept: float) -> tuple[float, float]:
    """Return what a running mean keeps of itself, and what is added of the new number."""
    return float(kept), float(1 - kept)


# The numbers of each rule, in the order in which its kernel takes them.
_SETTINGS: dict[str, Callable[[Mapping[str, float]], tuple[float | int, ...]]] = {
    "sgd": lambda s: (),
    "momentum": lambda s: (float(s["momentum"]), int(s["nesterov"])),
    "adagrad": lambda s: (float(s["eps"]),),
    "rmsprop": lambda s: (*_mean(s["decay"]), float(s["eps"])),
    "adam": lambda s: (
        *(*_mean(s["beta1"]), *_mean(s["beta2"])),
        *(float(s["eps"]), int(s["decoupled"])),
    ),
}


@dataclass(frozen=True)
class Maps:
    """Sizes of a convolution with a stride of 1, in the order in which the kernels take them.

    Attributes:
        channels: of the images.
        height: of the images.
        width: of the images.
        filters: how many there are.
        padding: zeros on each side.
    """

    channels: int
    height: int
    width: int
    filters: int
    padding: int


@dataclass(frozen=True)
class Windows:
    """Sizes of a pooling, in the order in which the kernels take them.

    Attributes:
        height: of the images.
        width: of the images.
        pooled_height: how many windows lie below each other.
        pooled_width: how many windows lie side by side.
        size: side of a window.
        stride: step between windows.
    """

    height: int
    width: int
    pooled_height: int
    pooled_width: int
    size: int
    stride: int


@dataclass(frozen=True)
class Filters:
    """What a convolution is compiled for.

    Attributes:
        kernel_size: side of a filter.
        ties: of the 2×2 max-pooling that follows; None where none follows.
    """

    kernel_size: int
    ties: Ties | None = None

    def constants(self, activation: str = "identity") -> dict[str, str | int]:
        """Return the options of convolution.cu."""
        return {
            "KERNEL_SIZE": self.kernel_size,
            "ACTIVATION": activation.upper(),
            "POOL": int(self.ties is not None),
        }


@dataclass(frozen=True)
class Data:
    """A data set on the device.

    Attributes:
        images: (N, pixels), uint8 0…255 or the dtype of the network 0…1.
        labels: class indices (N,), int32.
    """

    images: Array
    labels: Array


@dataclass(frozen=True)
class Section:
    """Some steps of a captured training: what they take and what they leave, on the device.

    Attributes:
        rows: of the data set, in the order in which they are taken, int32.
        bounds: where in `rows` each step begins and ends, (steps, 2), int32.
        rates: learning rate of each step, and Adam's two others, (steps, 3).
        step: how many of the steps are done, (1,), int32.
        losses: of each step, float64.
        correct: how many images each step has recognised, int32.
    """

    rows: Array
    bounds: Array
    rates: Array
    step: Array
    losses: Array
    correct: Array


@dataclass(frozen=True)
class Step:
    """What the kernels of a captured step hand to each other at its beginning and its end.

    Attributes:
        batch: normalised pixels (B, pixels).
        labels: class indices (B,), int32.
        count: how many images of the batch are there, (1,), int32.
        rates: the step's row of `Section.rates`.
        row_losses: loss of each image.
        row_correct: 1 for each image that was recognised, int32.
    """

    batch: Array
    labels: Array
    count: Array
    rates: Array
    row_losses: Array
    row_correct: Array


class Launches:
    """The kernels, for arrays of one dtype.

    Args:
        kernels: compiles them.
        dtype: "float32" or "float64".
        count: where a captured step finds the number of its images, an int32 on the device; None
            for single operations.
    """

    def __init__(self, kernels: Kernels, dtype: str, *, count: Array | None = None) -> None:
        self._kernels = kernels
        self._dtype = dtype
        self._count = count

    def gather_batch(self, images: Array, rows: Array, shift: float, batch: Array) -> None:
        """Set `batch` (B, pixels) to some rows of `images`, normalised."""
        kernel = self._get("batches", "gather_batch", PIXEL=_pixel(images))
        count, pixels = batch.shape
        kernel(
            *_over(count * pixels),
            *(images, rows, int(count), int(pixels), float(shift), batch),
        )

    def begin_step(self, data: Data, section: Section, shift: float, step: Step) -> None:
        """Take the batch of the next step of a section from the data set."""
        kernel = self._get("steps", "begin_step", PIXEL=_pixel(data.images))
        capacity, pixels = step.batch.shape
        kernel(
            *_over(capacity * pixels),
            *(data.images, data.labels, section.rows, section.bounds, section.rates),
            *(section.step, int(pixels), float(shift)),
            *(step.batch, step.labels, step.count, step.rates),
        )

    def end_step(self, section: Section, step: Step) -> None:
        """Note the loss of a step, and how many images were recognised."""
        kernel = self._get("steps", "end_step", PIXEL="uint8")
        kernel(
            *((1,), (THREADS,)),
            *(step.row_losses, step.row_correct, step.count),
            *(section.step, section.losses, section.correct),
        )

    def train_one_by_one(
        self,
        data: Data,
        section: Section,
        steps: int,
        parameters: tuple[Array, Array, Array],
        *,
        shift: float,
        weight_decay: float,
        ties: Ties,
        constants: Mapping[str, Constant],
    ) -> None:
        """Do some steps of a section from its beginning, each with one image, in one launch.

        Args:
            data: the data set.
            section: the steps.
            steps: how many of them.
            parameters: filters, weight and bias; changed in place.
            shift: added to pixels after scaling.
            weight_decay: of plain descent.
            ties: of the pooling.
            constants: as `backends.cuda.persistent` found them.
        """
        pixel = _pixel(data.images)
        kernel = self._get("one_by_one", "train_one_by_one", PIXEL=pixel, **constants)
        kernel(
            *((1,), (persistent.ONE_BY_ONE_THREADS,)),
            *(data.images, data.labels, section.rows, section.rates, steps),
            *(float(shift), float(weight_decay), ties == "all", *parameters),
            *(section.losses, section.correct),
        )

    def train_small_batches(
        self,
        data: Data,
        section: Section,
        steps: int,
        parameters: tuple[Array, Array, Array, Array],
        parts: Array,
        barrier: Array,
        *,
        shift: float,
        weight_decay: float,
        constants: Mapping[str, Constant],
    ) -> None:
        """Do some steps of a section from its beginning, each with few images, in one launch.

        Args:
            data: the data set.
            section: the steps.
            steps: how many of them.
            parameters: weight and bias of the first layer, then of the second; changed in place.
            parts: what blocks hand to each other: 2 · blocks · images · hidden units.
            barrier: two unsigned integers, 0 before the first launch.
            shift: added to pixels after scaling.
            weight_decay: of plain descent.
            constants: as `backends.cuda.persistent` found them.
        """
        pixel = _pixel(data.images)
        kernel = self._get("small_batches", "train_small_batches", PIXEL=pixel, **constants)
        kernel(
            *((persistent.BLOCKS,), (persistent.SMALL_BATCHES_THREADS,)),
            *(data.images, data.labels, section.rows, section.bounds, section.rates, steps),
            *(float(shift), float(weight_decay), *parameters, parts, barrier),
            *(section.losses, section.correct),
        )

    def linear(
        self, x: Array, weight: Array, bias: Array | None, y: Array, activation: str
    ) -> None:
        """Set `y` (B, out) to the activation of x W + bias."""
        inputs, outputs = weight.shape
        kernel = self._get("linear", "linear", ACTIVATION=activation.upper())
        grid = (_parts(outputs, TILE), _parts(len(x), TILE))
        kernel(grid, (TILE, TILE), x, weight, bias, inputs, outputs, self._images(x), y)

    def linear_backward_x(self, dy: Array, weight: Array, x: Array, dx: Array, below: str) -> None:
        """Set `dx` to dy Wᵀ times the derivative of the activation `below`, which made `x`."""
        inputs, outputs = weight.shape
        kernel = self._get("linear", "linear_backward_x", ACTIVATION=below.upper())
        grid = (_parts(inputs, TILE), _parts(len(x), TILE))
        kernel(grid, (TILE, TILE), dy, weight, x, inputs, outputs, self._images(x), dx)

    def linear_backward_weight(
        self, dy: Array, x: Array, dweight: Array, dbias: Array | None
    ) -> None:
        """Set `dweight` to xᵀ dy, and `dbias`, if there is one, to the sum of dy."""
        inputs, outputs = dweight.shape
        kernel = self._get("linear", "linear_backward_weight", ACTIVATION="IDENTITY")
        grid = (_parts(outputs, TILE), _parts(inputs + 1, TILE))
        images = self._images(x)
        kernel(grid, (TILE, TILE), dy, x, inputs, outputs, images, dweight, dbias)

    def head(
        self,
        loss: str,
        x: Array,
        weight: Array,
        bias: Array | None,
        step: Step,
        dlogits: Array,
        dx: Array | None,
        below: str,
    ) -> None:
        """Compute a last linear layer, the loss, and the gradients of logits and of `x`.

        Args:
            loss: which.
            x: (B, in), what the activation `below` made.
            weight: (in, out), with at most `MOST_CLASSES` outputs.
            bias: (out,); None without one.
            step: has the labels, and takes loss and success of each image.
            dlogits: set to the gradient of the mean loss.
            dx: set to the gradient of what the activation below took; None where nobody needs it.
            below: the activation.
        """
        kernel = self._get("head", "head", ACTIVATION=below.upper(), LOSS=loss.upper())
        (inputs, outputs), grid = weight.shape, (_parts(len(x), THREADS // WARP),)
        kernel(
            *(grid, (THREADS,), x, weight, bias, step.labels, inputs, outputs, self._images(x)),
            *(dlogits, step.row_losses, step.row_correct, dx),
        )

    def activation(self, x: Array, y: Array, kind: str) -> None:
        """Set `y` to an activation of `x`."""
        kernel = self._get("activations", "activation", ACTIVATION=kind.upper())
        kernel(*_over(x.size), x, np.int64(x.size), y)

    def activation_backward(self, dy: Array, y: Array, dx: Array, kind: str) -> None:
        """Set `dx`, which may be `dy`, to `dy` times the derivative of what gave `y`."""
        kernel = self._get("activations", "activation_backward", ACTIVATION=kind.upper())
        kernel(*_over(y.size), dy, y, np.int64(y.size), dx)

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        y: Array,
        mask: Array | None,
        maps: Maps,
        filters: Filters,
        activation: str = "identity",
    ) -> None:
        """Set `y` to what becomes of the images `x`, and `mask` to the ties where it is pooled."""
        kernel = self._get("convolution", "conv2d", **filters.constants(activation))
        cells = math.prod(y.shape[2:])
        threads = min(THREADS, _parts(cells, WARP) * WARP)
        grid = (len(x) * maps.filters, _parts(cells, threads))
        images, all_ties = self._images(x), filters.ties == "all"
        kernel(grid, (threads,), x, weight, bias, *astuple(maps), images, all_ties, y, mask)

    def conv2d_backward_weight(
        self,
        dy: Array,
        mask: Array | None,
        x: Array,
        dweight: Array,
        dbias: Array | None,
        maps: Maps,
        filters: Filters,
    ) -> None:
        """Set the gradients of filters and biases from that of what the activation took."""
        kernel = self._get("convolution", "conv2d_backward_weight", **filters.constants())
        taps = maps.channels * filters.kernel_size**2
        grid = (taps + (dbias is not None), maps.filters)
        threads = min(THREADS, _parts(math.prod(dy.shape) // maps.filters, 4 * WARP) * WARP)
        images = self._images(x)
        kernel(grid, (max(WARP, threads),), dy, mask, x, *astuple(maps), images, dweight, dbias)

    def conv2d_backward_x(
        self,
        dy: Array,
        mask: Array | None,
        weight: Array,
        x: Array,
        dx: Array,
        maps: Maps,
        filters: Filters,
        below: str = "identity",
    ) -> None:
        """Set `dx` to the gradient of the images, times the derivative of what made `x`."""
        kernel = self._get("convolution", "conv2d_backward_x", **filters.constants(below))
        grid = (len(x) * maps.channels, _parts(maps.height * maps.width, THREADS))
        images = self._images(x)
        kernel(grid, (THREADS,), dy, mask, weight, x, *astuple(maps), images, dx)

    def max_pool2d(self, x: Array, y: Array, mask: Array, windows: Windows, ties: Ties) -> None:
        """Set `y` to the maximum of each window, and `mask` to where it lies."""
        kernel = self._pooling("max_pool2d", mask)
        sizes = np.int64(y.size), *astuple(windows)
        kernel(*_over(y.size), x, *sizes, ties == "all", y, mask)

    def max_pool2d_backward(self, dy: Array, mask: Array, dx: Array, windows: Windows) -> None:
        """Set `dx` to the gradient of what was pooled."""
        kernel = self._pooling("max_pool2d_backward", mask)
        kernel(*_over(dx.size), dy, mask, np.int64(dx.size), *astuple(windows), dx)

    def avg_pool2d(self, x: Array, y: Array, windows: Windows) -> None:
        """Set `y` to the mean of each window."""
        kernel = self._pooling("avg_pool2d")
        kernel(*_over(y.size), x, np.int64(y.size), *astuple(windows), y)

    def avg_pool2d_backward(self, dy: Array, dx: Array, windows: Windows) -> None:
        """Set `dx` to the gradient of what was averaged."""
        kernel = self._pooling("avg_pool2d_backward")
        kernel(*_over(dx.size), dy, np.int64(dx.size), *astuple(windows), dx)

    def loss_and_gradient(
        self, kind: str, logits: Array, labels: Array, dlogits: Array, losses: Array, correct: Array
    ) -> None:
        """Set the gradient of the mean loss, and of each row its loss and whether it is right."""
        kernel = self._get("losses", kind, LABEL=str(labels.dtype))
        rows, classes = logits.shape
        grid = (_parts(rows, THREADS // WARP),)
        images = self._images(logits)
        kernel(grid, (THREADS,), logits, labels, classes, images, dlogits, losses, correct)

    def update(
        self,
        rule: str,
        weights: Array,
        grads: Array,
        state: tuple[Array, ...],
        *rates: Array | float,
        settings: Mapping[str, float],
    ) -> None:
        """Change `weights` and `state` by one step of an optimizer.

        Args:
            rule: "sgd", "momentum", "adagrad", "rmsprop" or "adam".
            weights: the parameter vector.
            grads: its gradient.
            state: the arrays that the rule keeps.
            rates: the learning rate, and Adam's two others; for a captured step an array of them.
            settings: the numbers that do not change, by the names of the operation.
        """
        kernel = self._get("updates", rule)
        size = int(weights.size)
        numbers = _SETTINGS[rule](settings)
        decay = float(settings["weight_decay"])
        kernel(*_over(size), weights, grads, *state, size, *rates, decay, *numbers)

    def _pooling(self, name: str, mask: Array | None = None) -> Kernel:
        return self._get("pooling", name, MASK="uint8" if mask is None else str(mask.dtype))

    def _images(self, batch: Array) -> Any:
        """Return the argument that says how many images there are."""
        return int(batch.shape[0]) if self._count is None else self._count

    def _get(self, file: str, name: str, **constants: str | int) -> Kernel:
        if self._count is not None:
            constants["CAPTURED"] = 1
        return self._kernels.get(file, name, dtype=self._dtype, **constants)


def _pixel(images: Array) -> str:
    """Return what C calls the dtype of pixels."""
    return REAL.get(str(images.dtype), str(images.dtype))


def _over(size: int) -> tuple[tuple[int], tuple[int]]:
    """Return grid and block of a kernel with a thread for each of so many numbers."""
    return (_parts(int(size), THREADS),), (THREADS,)


def _parts(size: int, part: int) -> int:
    """Return how many parts cover a size."""
    return -(-int(size) // part)

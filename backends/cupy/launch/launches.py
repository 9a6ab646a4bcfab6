"""How each kernel is launched: its options, its grid, and its arguments in their order.

Single operations and captured steps launch their kernels from here, the same ones where both have
use for them. Those differ in one thing: a captured step reads from memory how many images its
batch has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from backends.cupy.launch import persistent
from backends.cupy.launch import wgrad_update as descent
from backends.cupy.launch.fused_classifier import ACTIVATIONS, Head
from backends.cupy.launch.shapes import MOST_CHANNELS, Filters, Maps, Windows, maps_of_a_thread
from backends.cupy.launch.tiles import Tile, tile_of
from backends.cupy.loader import REAL, Constant, Kernel, Kernels
from backends.operations.common import Array, Ties
from backends.order import ROUNDS, Order
from backends.program import ActivationKind

THREADS = 256  # of a block; a multiple of a warp
WARP = 32
MOST_KERNEL_SIZE = 32  # of filters: a line of one is kept in registers
MOST_FILTERS = 4  # of a thread of conv2d, as long as there are so many threads:
WANTED_THREADS = 1 << 16  # they keep a large GPU busy
MOST_TAPS = 20  # of these filters' lines, which are kept in registers

LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "quadratic")  # kernels of losses.cu


def _mean(kept: float) -> tuple[float, float]:
    """Return what a running mean keeps of itself, and what is added of the new number."""
    return float(kept), float(1 - kept)


# The numbers of each rule but its weight decay, in the order in which kernels take them.
RULES: dict[str, Callable[[Mapping[str, float]], tuple[float | int, ...]]] = {
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
        batch: how many images there are, and where in `Section.rows` they begin, (2,), int32.
        rates: the step's row of `Section.rates`.
        row_losses: loss of each image.
        row_correct: 1 for each image that was recognised, int32.
    """

    batch: Array
    rates: Array
    row_losses: Array
    row_correct: Array


@dataclass(frozen=True)
class Batch:
    """The images of a captured step, which its kernels take from the data set.

    Attributes:
        data: the data set.
        section: the steps of which this is one.
        step: what becomes known of it.
        shift: added to pixels after scaling.
    """

    data: Data
    section: Section
    step: Step
    shift: float

    def __len__(self) -> int:
        return len(self.step.row_losses)


class Launches:
    """The kernels, for arrays of one dtype.

    Of linear layers x is (B, in), the weight (in, out), y and dy (B, out). Of convolutions x is
    (B, C, H, W), the weight (O, C, K, K), y, dy and mask (B, O, OH, OW), or of half that height and
    width where they are pooled. Of poolings x is (B, C, H, W), y, dy and mask (B, C, PH, PW). Every
    gradient has the shape of what it is the gradient of. All lie in C order.

    Args:
        kernels: compiles them.
        dtype: "float32" or "float64".
        batch: of a captured step; None for single operations.
    """

    def __init__(self, kernels: Kernels, dtype: str, *, batch: Batch | None = None) -> None:
        self._kernels = kernels
        self._dtype = dtype
        self._batch = batch

    def gather_batch(self, images: Array, rows: Array, shift: float, batch: Array) -> None:
        """Set `batch` (B, pixels) to some rows of `images`, normalised."""
        kernel = self._get("batches", "gather_batch", PIXEL=_pixel(images))
        count, pixels = batch.shape
        kernel(
            *_over(count * pixels),
            *(images, rows, int(count), int(pixels), float(shift), batch),
        )

    def order(self, order: Order, first: int, rows: Array) -> None:
        """Set `rows` (count,) to what the positions of an order from `first` on stand for.

        Raises:
            ValueError: the order has no such positions.
        """
        order.check(first, first + int(rows.size))
        kernel = self._get("order", "order", ORDER=order.kind.upper())
        keys = order.keys or (0,) * ROUNDS
        kernel(
            *_over(rows.size),
            *(int(first), int(rows.size), order.examples, order.bits),
            *map(np.uint32, keys),
            rows,
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
            constants: as `backends.cupy.launch.persistent` found them.
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
            constants: as `backends.cupy.launch.persistent` found them.
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
        self, x: Array | Batch, weight: Array, bias: Array | None, y: Array, activation: str
    ) -> None:
        """Set `y` (B, out) to the activation of x W + bias."""
        inputs, outputs = weight.shape
        constants, arguments = self._input(x)
        tile = tile_of(self._dtype, len(x), outputs)
        constants |= {"ACTIVATION": activation.upper(), "SIDE": tile.side}
        kernel = self._get("linear", "linear", **constants)
        grid = tile.grid(len(x), outputs)
        kernel(grid, (tile.threads,), *arguments, weight, bias, inputs, outputs, y)

    def linear_backward_x(self, dy: Array, weight: Array, x: Array, dx: Array, below: str) -> None:
        """Set `dx` to dy Wᵀ times the derivative of the activation `below`, which made `x`."""
        inputs, outputs = weight.shape
        tile = tile_of(self._dtype, len(x), inputs)
        constants: dict[str, Constant] = {"ACTIVATION": below.upper(), "SIDE": tile.side}
        kernel = self._get("linear", "linear_backward_x", **constants)
        grid = tile.grid(len(x), inputs)
        kernel(grid, (tile.threads,), dy, weight, x, inputs, outputs, self._images(x), dx)

    def head(
        self,
        loss: str,
        end: Head,
        parameters: Array,
        batch: Batch,
        dlogits: Array,
    ) -> None:
        """Compute the end of a network, the loss, and the gradients of what it takes.

        Args:
            loss: which.
            end: the layers.
            parameters: the parameter vector.
            batch: has the labels, and takes loss and success of each image.
            dlogits: set to the gradient of the mean loss.
        """
        kernel = self._get("head", "head", LOSS=loss.upper(), **end.constants)
        kernel(
            *((_parts(end.batch_size, end.images),), (end.threads,)),
            *(end.as_argument(), parameters),
            *(batch.data.labels, batch.section.rows, self._images(dlogits), dlogits),
            *(batch.step.row_losses, batch.step.row_correct),
        )

    def activation(self, x: Array | Batch, y: Array, kind: str) -> None:
        """Set `y` to an activation of `x`."""
        constants, arguments = self._input(x)
        kernel = self._get("activations", "activation", ACTIVATION=kind.upper(), **constants)
        kernel(*_over(y.size), *arguments, math.prod(y.shape[1:]), y)

    def activation_backward(self, dy: Array, y: Array, dx: Array, kind: str) -> None:
        """Set `dx`, which may be `dy`, to `dy` times the derivative of what gave `y`."""
        kernel = self._get("activations", "activation_backward", ACTIVATION=kind.upper())
        kernel(*_over(y.size), dy, y, np.int64(y.size), dx)

    def conv2d(
        self,
        x: Array | Batch,
        weight: Array,
        bias: Array | None,
        y: Array,
        mask: Array | None,
        maps: Maps,
        filters: Filters,
        activation: str = "identity",
    ) -> None:
        """Set `y` to what becomes of the images `x`, and `mask` to the ties where it is pooled.

        Bit 2·i + j of `mask` is set where output (i, j) of a window receives the gradient.
        """
        cells = math.prod(y.shape[2:])
        most = min(MOST_FILTERS, MOST_TAPS // filters.kernel_size)
        own = maps_of_a_thread(
            maps.filters, most=most, threads=len(x) * cells, wanted=WANTED_THREADS
        )
        constants, arguments = self._input(x)
        constants |= filters.constants(activation, filters=own)
        kernel = self._get("convolution", "conv2d", **constants)
        grid = (_parts(len(x) * cells, THREADS), maps.filters // own)
        all_ties = filters.ties == "all"
        kernel(grid, (THREADS,), *arguments, weight, bias, *astuple(maps), all_ties, y, mask)

    def conv2d_backward_weight(
        self, dy: Array, x: Array, sums: Array, cut: descent.Cut, maps: Maps, filters: Filters
    ) -> None:
        """Set `sums` to the gradients of filters and, behind them, biases, in shares of the images.

        Args:
            dy: the gradient of the outputs.
            x: the images.
            sums: a row for each share; their sum is the gradient.
            cut: into how many.
            maps: the sizes.
            filters: what the convolution is compiled for.
        """
        own = _channels_of_a_thread(maps, len(x))  # as the kernel below, compiled together with it
        kernel = self._gradients("conv2d_backward_weight", filters, own)
        kernel((cut.units, cut.shares), (THREADS,), dy, x, *astuple(maps), len(x), sums)

    def conv2d_backward_x(
        self,
        dy: Array,
        mask: Array | None,
        weight: Array,
        x: Array,
        dx: Array,
        maps: Maps,
        filters: Filters,
        below: ActivationKind = "identity",
    ) -> None:
        """Set `dx` to the gradient of the images, times the derivative of what made `x`."""
        own = _channels_of_a_thread(maps, len(x))
        kernel = self._gradients("conv2d_backward_x", filters, own)
        grid = (_parts(len(x) * maps.threads_of_pixels, THREADS), maps.channels // own)
        sizes = *astuple(maps), self._images(x), ACTIVATIONS[below]
        kernel(grid, (THREADS,), dy, mask, weight, x, *sizes, dx)

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
        """Set the gradient of the mean loss, and of each row its loss and whether it is right.

        Args:
            kind: of the loss.
            logits: (B, classes), or anything whose rows are as long.
            labels: (B,), or of the data set in a captured step.
            dlogits: set, like `logits`.
            losses: set, (B,).
            correct: set, (B,), 1 where the largest logit is that of the label.
        """
        kernel = self._get("losses", kind, LABEL=str(labels.dtype))
        rows, classes = len(logits), math.prod(logits.shape[1:])
        kernel(
            *((_parts(rows, THREADS // WARP),), (THREADS,), logits, labels),
            *(self._batch and self._batch.section.rows, classes, self._images(logits)),
            *(dlogits, losses, correct),
        )

    def update(
        self,
        rule: str,
        weights: Array,
        grads: Array,
        state: tuple[Array, ...],
        *rates: float,
        settings: Mapping[str, float],
    ) -> None:
        """Change `weights` and `state` by one step of an optimizer.

        Args:
            rule: "sgd", "momentum", "adagrad", "rmsprop" or "adam".
            weights: the parameter vector.
            grads: its gradient.
            state: the arrays that the rule keeps.
            rates: the learning rate, and Adam's two others.
            settings: the numbers that do not change, by the names of the operation.
        """
        kernel = self._get("updates", "update", RULE=rule.upper())
        size = int(weights.size)
        kernel(*_over(size), weights, *state, *_numbers(rule, settings), grads, size, *rates)

    def descend(
        self,
        rule: str,
        layers: Sequence[descent.Layer],
        tile: Tile,
        batch: Batch,
        parameters: tuple[Array, ...],
        settings: Mapping[str, float],
    ) -> None:
        """Change the parameters of all layers by their gradients, and note the loss of a step.

        Args:
            rule: as for `update`.
            layers: with parameters, from the first to the last.
            tile: by which the gradients of weights are computed.
            batch: of the step.
            parameters: the parameter vector, and the arrays that the rule keeps.
            settings: as for `update`.
        """
        data, section, step = batch.data, batch.section, batch.step
        kernel = self._get(
            *("descend", "descend"),
            RULE=rule.upper(),
            PIXEL=_pixel(data.images),
            PATCH=descent.patch_of(*(layer.kernel_size for layer in layers)),
            SIDE=tile.side,
        )
        blocks = sum(map(descent.blocks_of, layers))
        numbers = _numbers(rule, settings)
        kernel(
            *((blocks + 1,), (tile.threads,), descent.as_argument(layers)),
            *(data.images, section.rows, float(batch.shift), step.batch, *parameters, *numbers),
            *(step.rates, step.row_losses, step.row_correct),
            *(section.step, section.losses, section.correct),
        )

    def _gradients(self, name: str, filters: Filters, channels: int) -> Kernel:
        patch = descent.patch_of(filters.kernel_size)
        constants = filters.gradient_constants(channels=channels, patch=patch)
        return self._get("convolution_gradients", name, **constants)

    def _pooling(self, name: str, mask: Array | None = None) -> Kernel:
        return self._get("pooling", name, MASK="uint8" if mask is None else str(mask.dtype))

    def _input(self, x: Array | Batch) -> tuple[dict[str, Constant], tuple[Any, ...]]:
        """Return the options and the arguments for what a stage takes."""
        if not isinstance(x, Batch):
            return {}, (x, self._images(x))
        data, section, step = x.data, x.section, x.step
        return {"PIXEL": _pixel(data.images)}, (
            *(data.images, section.rows, section.bounds, section.rates, section.step),
            *(float(x.shift), step.batch, step.rates),
        )

    def _images(self, array: Array) -> Any:
        """Return the argument that says how many images there are."""
        return len(array) if self._batch is None else self._batch.step.batch

    def _get(self, file: str, name: str, **constants: str | int) -> Kernel:
        if self._batch is not None:
            constants["CAPTURED"] = 1
        return self._kernels.get(file, name, dtype=self._dtype, **constants)


def _channels_of_a_thread(maps: Maps, images: int) -> int:
    """Return for how many channels a thread computes the gradient of images."""
    threads = images * maps.threads_of_pixels
    return maps_of_a_thread(
        maps.channels, most=MOST_CHANNELS, threads=threads, wanted=WANTED_THREADS
    )


def _numbers(rule: str, settings: Mapping[str, float]) -> tuple[float | int, ...]:
    """Return the numbers of an optimizer that do not change from step to step."""
    return float(settings["weight_decay"]), *RULES[rule](settings)


def _pixel(images: Array) -> str:
    """Return what C calls the dtype of pixels."""
    return REAL.get(str(images.dtype), str(images.dtype))


def _over(size: int) -> tuple[tuple[int], tuple[int]]:
    """Return grid and block of a kernel with a thread for each of so many numbers."""
    return (_parts(int(size), THREADS),), (THREADS,)


def _parts(size: int, part: int) -> int:
    """Return how many parts cover a size."""
    return -(-int(size) // part)

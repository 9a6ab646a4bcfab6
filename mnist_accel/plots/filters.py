"""The weights of a first layer as images."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mnist_accel.plots.style import MUTED, ORANGE_TO_BLUE, WIDTH, styled, to_png
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.text import count

# More images would be too small to see; further filters or units are left out.
MAX_IMAGES = 100
# On a scale up to the largest of thousands of weights, all others would be pale.
SCALE_QUANTILE = 0.998
GAP = 4  # dots between images
MARGIN = 0.08  # inches
CAPTION = "Blue: a larger pixel value raises the output. Orange: it lowers it. White: no influence."


@styled
def figure_filters(weights: ArrayLike, *, of_units: bool = False) -> Figure:
    """Draw the weights (out, in, height, width) of a first layer on one symmetric color scale.

    The weights of one input channel are arranged in a nearly square grid. Otherwise, the grid has
    one row per input channel and one column per output.

    Args:
        weights: the filters of a convolution, or the weights of units, each an image.
        of_units: whether they belong to units, with a weight for each pixel.

    Raises:
        ValueError: `weights` does not have four dimensions, or is empty.
    """
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 4 or not array.size:
        raise ValueError(
            f"weights must have shape (out, in, height, width) and not be empty, got {array.shape}"
        )
    outputs, inputs, height, width = array.shape
    shown = array[: max(1, MAX_IMAGES // inputs)]
    columns = len(shown) if inputs > 1 else _columns(len(shown))
    mosaic = _mosaic(shown.transpose(1, 0, 2, 3).reshape(-1, height, width), columns)

    # Axes in fixed places: the layout engines of matplotlib would take as long as the rest.
    left, bottom, top = (0.38, 0.63, 0.42) if inputs > 1 else (MARGIN, 0.38, 0.42)
    grid_width = min(WIDTH - 1 - left, 0.95 * columns)
    grid_height = grid_width * mosaic.shape[0] / mosaic.shape[1]
    width_in, height_in = max(left + grid_width + 0.9, 6.6), bottom + grid_height + top
    figure = Figure(figsize=(width_in, height_in))

    def add_axes(start: float, size: float) -> Axes:
        place = (start / width_in, bottom / height_in, size / width_in, grid_height / height_in)
        return figure.add_axes(place)

    axes = add_axes(left, grid_width)
    size = np.abs(array[np.isfinite(array)])
    limit = float(np.quantile(size, SCALE_QUANTILE, method="higher")) if size.any() else 1.0
    grid = axes.imshow(
        mosaic, cmap=ORANGE_TO_BLUE, vmin=-limit, vmax=limit, interpolation="nearest"
    )
    bar = figure.colorbar(grid, cax=add_axes(left + grid_width + 0.15, 0.1))
    bar.outline.set_visible(False)
    less, more = ("≤ ", "≥ ") if size.max(initial=0) > limit else ("", "")
    bar.set_ticks([-limit, 0, limit], labels=[f"{less}−{limit:.2g}", "0", f"{more}{limit:.2g}"])
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    if inputs > 1:
        axes.set(xlabel="output →", ylabel="← input channel")

    noun = "unit" if of_units else "filter"
    title = f"Weights of {count(outputs, noun)} of the first layer, {height} × {width}"
    if len(shown) < outputs:
        title += f" (the first {len(shown)})"
    start = MARGIN / width_in
    figure.text(start, 1 - 0.2 / height_in, title, va="center", weight="bold", size=11.5)
    figure.text(start, 0.17 / height_in, CAPTION, va="center", size=9, color=MUTED)
    return figure


plot_filters = to_png(figure_filters)


def _columns(images: int) -> int:
    """Return the number of columns of a grid: one row for a few images, otherwise full rows."""
    if images <= 8:
        return images
    side = math.isqrt(images - 1) + 1
    return next(c for c in range(side, 2 * side + 1) if images % c == 0 or c == 2 * side)


def _mosaic(images: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """Return images (N, height, width) side by side as one, because many images are slow to draw.

    Each weight is a square of dots. Gaps are NaN.
    """
    height, width = images.shape[1:]
    dots = 8 if width <= 8 else 4
    cell = np.array([height, width]) * dots + GAP
    rows = ceil_div(len(images), columns)
    mosaic = np.full((rows * cell[0] - GAP, columns * cell[1] - GAP), np.nan)
    for index, image in enumerate(images):
        top, left = np.array(divmod(index, columns)) * cell
        mosaic[top : top + height * dots, left : left + width * dots] = np.kron(
            image, np.ones((dots, dots))
        )
    return mosaic

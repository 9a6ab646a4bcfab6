"""The learned filters of a convolution."""

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mnist_accel.plots.style import WIDTH, styled, to_png
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.text import count


@styled
def figure_filters(filters: ArrayLike) -> Figure:
    """Draw the filters (out, in, kh, kw) of a convolution on one symmetric color scale.

    Filters with one input channel are arranged in a nearly square grid. Otherwise, the grid has one
    row per input channel and one column per output channel.

    Raises:
        ValueError: `filters` does not have four dimensions, or is empty.
    """
    array = np.asarray(filters, dtype=np.float64)
    if array.ndim != 4 or not array.size:
        raise ValueError(
            f"filters must have shape (out, in, kh, kw) and not be empty, got {array.shape}"
        )
    outputs, inputs, height, width = array.shape
    if inputs == 1:
        # The smallest number of columns that fills all rows, if the grid is at most four times as
        # wide as high.
        side = math.isqrt(outputs - 1) + 1
        columns = next(c for c in range(side, 2 * side + 1) if outputs % c == 0 or c == 2 * side)
        rows = ceil_div(outputs, columns)
    else:
        rows, columns = inputs, outputs
        array = array.transpose(1, 0, 2, 3)

    # All filters are drawn as one image, because separate images would be slow for many filters. A
    # weight is a square of 8×8 dots, and the gaps between filters are 4 dots wide.
    dots = 8
    cell = np.array([height, width]) * dots + dots // 2
    mosaic = np.full((rows * cell[0] - dots // 2, columns * cell[1] - dots // 2), np.nan)
    for index, kernel in enumerate(array.reshape(-1, height, width)):
        top, left = np.array(divmod(index, columns)) * cell
        mosaic[top : top + height * dots, left : left + width * dots] = np.kron(
            kernel, np.ones((dots, dots))
        )

    grid_width = min(WIDTH - 1, 0.95 * columns)
    grid_height = grid_width * mosaic.shape[0] / mosaic.shape[1]
    figure = Figure(figsize=(max(grid_width + 1, 3.2), grid_height + 0.7), layout="constrained")
    axes = figure.subplots()
    axes.set_anchor("W")
    limit = float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0)) or 1.0
    grid = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    bar = figure.colorbar(grid, cax=axes.inset_axes((1.025, 0, 0.025, 1)))
    bar.outline.set_visible(False)
    bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.2g}", "0", f"{limit:.2g}"])
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    title = f"Weights of {count(outputs, 'filter')}, {height} × {width}"
    if inputs > 1:
        title += f", {inputs} input channels"
        axes.set(xlabel="output channel →", ylabel="← input channel")
    figure.suptitle(title, x=0.012, ha="left", weight="bold", size=11.5)
    return figure


plot_filters = to_png(figure_filters)

"""The style of all figures, and how figures are written to files."""

import functools
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from mnist_accel.errors import file_errors
from mnist_accel.util.files import write_atomically
from mnist_accel.util.text import excerpt

P = ParamSpec("P")

PAPER, GRID, MUTED, INK = "#ffffff", "#e4e8ec", "#66727f", "#1f2933"
# From the palette of Okabe and Ito, which is safe for the common color-vision deficiencies.
BLUE, GREEN, VERMILLION = "#0072b2", "#008060", "#d55e00"
# Below and above 0, such as weights; the drawing page uses the same colors.
ORANGE_TO_BLUE = LinearSegmentedColormap.from_list("orange_to_blue", [VERMILLION, PAPER, BLUE])
PAPER_TO_INK = LinearSegmentedColormap.from_list("paper_to_ink", [PAPER, "#101820"])

# 9 inches at 160 dots per inch give 1440 pixels: sharp and legible at the width of a README.
WIDTH = 9.0
STYLE = {
    "figure.dpi": 160,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",  # included in matplotlib, so figures are equal on all machines
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # names of classes and models may contain a dollar sign
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    **{f"{axis}tick.{kind}.size": 0 for axis in "xy" for kind in ("major", "minor")},
}


def styled(build: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return `build`, changed to draw in the style above instead of the user's."""

    @functools.wraps(build)
    def build_styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.style.context(["default", STYLE]):
            return build(*args, **kwargs)

    return build_styled


def to_png(
    build: Callable[P, Figure],
) -> Callable[Concatenate[str | os.PathLike[str], P], None]:
    """Return a function that writes the figure of `build` to a path."""

    def plot(path: str | os.PathLike[str], /, *args: P.args, **kwargs: P.kwargs) -> None:
        figure = build(*args, **kwargs)
        png = io.BytesIO()
        FigureCanvasAgg(figure)  # draws to a file, independent of MPLBACKEND
        with matplotlib.style.context(["default", STYLE]):
            # The version of matplotlib in the metadata would make equal figures differ in bytes.
            figure.savefig(png, format="png", metadata={"Software": None})
        with file_errors(f"write the figure {path}"):
            write_atomically(Path(path), png.getvalue())

    plot.__name__ = plot.__qualname__ = build.__name__.replace("figure_", "plot_")
    plot.__doc__ = f"Write the figure of `{build.__name__}` to `path` as PNG, atomically."
    return plot


def short_names(class_names: Sequence[str], *, max_chars: int) -> list[str]:
    """Return the names of classes as lines of limited length, so that they do not overlap."""
    return [excerpt(name, max_chars=max_chars) for name in class_names]


def label_in_percent(axis: Axis) -> None:
    """Label fractions, 0…1, as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def name_steps(axes: Axes, name: str) -> None:
    """Label the x axis with whole numbers of steps or epochs, and draw horizontal lines."""
    axes.set_xlabel(name)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def scale_logarithmically(axes: Axes, *, smallest: float, largest: float) -> None:
    """Scale the y axis logarithmically; its limits are about `smallest` and `largest`."""
    axes.set_yscale("log")
    # Powers of ten alone would give too few labels over few decades.
    labeled = "125" if np.log10(largest / smallest) < 2.5 else "1"
    # All labels have one form: "g" writes numbers below 1e-4 with an exponent.
    form = "g" if smallest >= 1e-4 else ".0e"
    label = FuncFormatter(
        lambda value, _: format(value, form) if f"{value:e}"[0] in labeled else ""
    )
    axes.yaxis.set_major_formatter(label)
    axes.yaxis.set_minor_formatter(label)


def show_message(axes: Axes, text: str) -> None:
    """Show a text in place of missing data."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_digit(axes: Axes, image: ArrayLike, *, left: float, top: float, side: float) -> None:
    """Draw an image (H, W), 0 for paper, as dark ink on paper in a thin square frame."""
    # vmax is the maximum of the image, so uint8 0…255 and float 0…1 look the same.
    axes.imshow(
        np.asarray(image),
        cmap=PAPER_TO_INK,
        vmin=0,
        interpolation="nearest",
        extent=(left, left + side, top + side, top),
    )
    frame = Rectangle((left, top), side, side, fill=False, edgecolor=GRID, clip_on=False)
    axes.add_patch(frame)

"""The pictures of the tutorials, and how a page shows them."""

import difflib
import inspect
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from IPython.display import Image, Markdown
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import ArrayLike

from mnist_accel.plots.style import (
    BLUE,
    MUTED,
    ORANGE_TO_BLUE,
    VERMILLION,
    WIDTH,
    show_digit,
    styled,
)


def show(figure: Figure) -> Image:
    """Return a figure as an image that a notebook shows."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image(png.getvalue())


def show_changes(before: Callable[..., object], after: Callable[..., object]) -> Markdown:
    """Return the lines that two versions of a function do not share."""
    texts = [inspect.getsource(function).splitlines() for function in (before, after)]
    changes = [line for line in difflib.unified_diff(*texts, n=0) if line[:2] not in ("--", "++")]
    lines = "\n".join("" if line.startswith("@@") else line for line in changes)
    return Markdown(f"```diff\n{lines.strip()}\n```")


@styled
def figure_digits(images: ArrayLike, titles: Sequence[object]) -> Figure:
    """Draw images (N, 784) or (N, 28, 28) in a row, each with a title."""
    figure = Figure(figsize=(WIDTH, WIDTH / len(titles) + 0.35))
    axes = figure.add_axes((0, 0, 1, 1))
    for place, (image, title) in enumerate(zip(np.asarray(images), titles, strict=True)):
        show_digit(axes, image.reshape(28, 28), left=place + 0.05, top=0, side=0.9)
        axes.text(place + 0.5, -0.08, str(title), ha="center")
    axes.set(xlim=(0, len(titles)), ylim=(0.95, -0.35), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure


@styled
def figure_speedups(rows: Mapping[str, float | str]) -> Figure:
    """Draw the speedup of each step over the step before as a bar, or a text in its place."""
    figure = Figure(figsize=(WIDTH, 0.4 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    numbers = [value for value in rows.values() if isinstance(value, float)]
    axes.set_xlim(min([0.1, *numbers]) / 2, max(numbers) * 4)
    axes.axvline(1, color=MUTED, linewidth=0.8)
    for place, value in enumerate(rows.values()):
        if isinstance(value, str):
            axes.text(1.1, place, value, va="center", color=MUTED)
            continue
        axes.barh(place, value - 1, left=1, height=0.6, color=BLUE if value >= 1 else VERMILLION)
        label = f"{value:,.0f}×" if value >= 10 else f"{value:.3g}×"
        is_right = value >= 1
        axes.annotate(
            label,
            (value, place),
            xytext=(5 if is_right else -5, 0),
            textcoords="offset points",
            va="center",
            ha="left" if is_right else "right",
        )
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("times as fast as the step before (logarithmic)")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return figure


@styled
def figure_forward(
    image: ArrayLike, hidden: ArrayLike, logits: ArrayLike, probabilities: ArrayLike
) -> Figure:
    """Draw an image, the hidden units as bars, and logits and probabilities by digit."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    first, *others = figure.subplots(1, 4, width_ratios=(1, 1.7, 1, 1))
    show_digit(first, np.asarray(image), left=0, top=0, side=1)
    first.set_axis_off()
    first.set_title("784 pixels")
    titles = "50 hidden units", "10 logits", "10 probabilities"
    for axes, values, title in zip(others, (hidden, logits, probabilities), titles, strict=True):
        array = np.asarray(values)
        axes.bar(range(len(array)), array, color=BLUE)
        axes.set_title(title)
        axes.grid(axis="y")
        if len(array) == 10:
            axes.set_xticks(range(10))
    others[-1].set_ylim(0, 1)
    return figure


@styled
def figure_weights(weights: ArrayLike, titles: Sequence[str]) -> Figure:
    """Draw weights (N, 784) as images in a row: blue above 0, orange below 0, white 0."""
    array = np.asarray(weights).reshape(-1, 28, 28)
    limit = np.abs(array).max()
    figure = Figure(figsize=(WIDTH, WIDTH / len(array) + 0.3), layout="constrained")
    for axes, image, title in zip(figure.subplots(1, len(array)), array, titles, strict=True):
        axes.imshow(image, cmap=ORANGE_TO_BLUE, vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


@styled
def figure_errors(steps: ArrayLike, errors: Mapping[str, ArrayLike]) -> Figure:
    """Draw relative errors by step size, one curve per name."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), color in zip(errors.items(), (BLUE, VERMILLION), strict=True):
        axes.loglog(steps, np.maximum(values, 1e-16), marker="o", markersize=3, color=color)
        axes.annotate(
            name,
            (np.asarray(steps)[0], np.asarray(values)[0]),
            xytext=(0, 6),
            textcoords="offset points",
            color=color,
        )
    axes.margins(y=0.12)
    axes.grid()
    axes.set(xlabel="step size h", ylabel="relative error of the difference")
    return figure

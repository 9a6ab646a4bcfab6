"""One image and the predicted probabilities of its classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

from mnist_accel.plots.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    VERMILLION,
    short_names,
    show_digit,
    styled,
    to_png,
)

# More bars would be too thin to label. A longer name would leave no room for the bars.
MAX_CLASSES, MAX_NAME = 12, 20


@styled
def figure_prediction(
    *,
    image: ArrayLike,
    probabilities: ArrayLike,
    predicted: int,
    true_label: int | None = None,
    class_names: Sequence[str],
    warning: str = "",
) -> Figure:
    """Draw an image on the left and the probabilities of the classes on the right.

    Of more than MAX_CLASSES classes, the most probable ones are drawn, and the true one.

    Args:
        image: the image (28, 28), 0 for paper.
        probabilities: probability of each class (C,).
        predicted: the predicted class.
        true_label: the true class, None if unknown.
        class_names: names of the C classes.
        warning: why the prediction may mean nothing, to be written below the image.

    Raises:
        ValueError: the numbers of probabilities and names differ.
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    if probability.shape != (len(class_names),):
        raise ValueError(
            f"probabilities must have shape ({len(class_names)},), got {probability.shape}"
        )
    names = short_names(class_names, max_chars=MAX_NAME)
    figure = Figure(
        figsize=(7.6, 3.8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.05)
    )
    image_axes, bars = figure.subplots(1, 2, width_ratios=[1, 1.35])
    if true_label is None:
        color, mark = BLUE, ""
    else:
        color, mark = (GREEN, "✓ ") if true_label == predicted else (VERMILLION, "✗ ")
    show_digit(image_axes, image, left=0, top=0, side=1)
    image_axes.set(xticks=[], yticks=[])
    image_axes.spines[:].set_visible(False)
    image_axes.set_anchor("N")
    image_axes.set_title(
        f"{mark}Predicted: {names[predicted]}", weight="bold", size=12, color=color
    )
    if warning:
        image_axes.set_xlabel(f"⚠ {warning}", loc="left", color=VERMILLION, size=9)
    elif true_label is not None:
        truth_color = INK if true_label == predicted else GREEN
        image_axes.set_xlabel(f"true label: {names[true_label]}", loc="left", color=truth_color)
    colors = {true_label: GREEN, predicted: color}
    _draw_bars(bars, probability, names, colors)
    return figure


plot_prediction = to_png(figure_prediction)


def _draw_bars(
    axes: Axes,
    probability: NDArray[np.float64],
    names: Sequence[str],
    colors: Mapping[int | None, str],
) -> None:
    """Draw a bar for each class, or for the most probable ones; `colors` has those of some."""
    shown = list(range(len(names)))
    axes.set_title("Probability of each class")
    if len(shown) > MAX_CLASSES:
        ranks = np.argsort(-probability, kind="stable")
        shown = [int(k) for n, k in enumerate(ranks) if n < MAX_CLASSES or int(k) in colors]
        axes.set_title(f"Most probable of {len(names)} classes")
    places = np.arange(len(shown))
    axes.barh(places, 1, height=0.68, color=GRID, alpha=0.6)
    axes.barh(
        places, probability[shown], height=0.68, color=[colors.get(k, "#aab4be") for k in shown]
    )
    for place, index in enumerate(shown):
        marked = index in colors
        axes.text(
            1.03, place, f"{100 * probability[index]:.2f} %", va="center", ha="left",
            color=INK if marked else MUTED, weight="bold" if marked else "normal",
        )  # fmt: skip
    axes.set(xlim=(0, 1.2), xticks=[], ylim=(len(shown) - 0.5, -0.5))
    axes.set_yticks(places, labels=[names[index] for index in shown], va="center")
    axes.spines[:].set_visible(False)

"""One image and the predicted probabilities of its classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

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


@styled
def figure_prediction(
    *,
    image: ArrayLike,
    probabilities: ArrayLike,
    predicted: int,
    true_label: int | None = None,
    class_names: Sequence[str],
) -> Figure:
    """Draw an image on the left and the probabilities of all classes on the right.

    Args:
        image: the image (28, 28), 0 for paper.
        probabilities: probability of each class (C,).
        predicted: the predicted class.
        true_label: the true class, None if unknown.
        class_names: names of the C classes.

    Raises:
        ValueError: the numbers of probabilities and names differ.
    """
    probability = np.asarray(probabilities, dtype=np.float64)
    if probability.shape != (len(class_names),):
        raise ValueError(
            f"probabilities must have shape ({len(class_names)},), got {probability.shape}"
        )
    names = short_names(class_names, max_chars=30)
    figure = Figure(
        figsize=(7.6, 3.6), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.05)
    )
    image_axes, bars = figure.subplots(1, 2, width_ratios=[1, 1.35])

    show_digit(image_axes, image, left=0, top=0, side=1)
    image_axes.set(xticks=[], yticks=[])
    image_axes.spines[:].set_visible(False)
    image_axes.set_anchor("N")
    heading = f"Predicted: {names[predicted]}"
    if true_label is None:
        color = BLUE
    elif true_label == predicted:
        color, heading = GREEN, f"✓ {heading}"
        image_axes.set_xlabel(f"true label: {names[true_label]}", loc="left", color=INK)
    else:
        color, heading = VERMILLION, f"✗ {heading}"
        image_axes.set_xlabel(f"true label: {names[true_label]}", loc="left", color=GREEN)
    image_axes.set_title(heading, weight="bold", size=12, color=color)

    classes = np.arange(len(class_names))
    colors = np.full(len(classes), "#aab4be", dtype=object)
    colors[predicted] = color
    if true_label is not None:
        colors[true_label] = GREEN
    bars.barh(classes, np.ones(len(classes)), height=0.68, color=GRID, alpha=0.6)
    bars.barh(classes, probability, height=0.68, color=colors)
    for index, value in enumerate(probability):
        marked = index in (predicted, true_label)
        bars.text(
            1.03, index, f"{100 * value:.2f} %", va="center", ha="left",
            color=INK if marked else MUTED, weight="bold" if marked else "normal",
        )  # fmt: skip
    bars.set(xlim=(0, 1.2), xticks=[], ylim=(len(classes) - 0.5, -0.5))
    bars.set_yticks(classes, labels=names)
    bars.set_title("Probability of each class")
    bars.spines[:].set_visible(False)
    return figure


plot_prediction = to_png(figure_prediction)

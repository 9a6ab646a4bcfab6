"""The pictures of a run: training curves, filters, mistakes and one prediction.

Every `plot_*` function writes one PNG; its `figure_*` twin takes the same arguments without the
path and returns the matplotlib `Figure`. Figures are built without pyplot, so no window opens and
none stays in memory, and a user's matplotlibrc has no influence.
"""

from mnist_accel.plots.curves import figure_curves, plot_curves
from mnist_accel.plots.filters import figure_filters, plot_filters
from mnist_accel.plots.mistakes import figure_mistakes, plot_mistakes
from mnist_accel.plots.prediction import figure_prediction, plot_prediction

__all__ = [
    "figure_curves",
    "figure_filters",
    "figure_mistakes",
    "figure_prediction",
    "plot_curves",
    "plot_filters",
    "plot_mistakes",
    "plot_prediction",
]

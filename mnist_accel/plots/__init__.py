"""Figures of a run: training curves, filters, mistakes, a prediction, and populations.

Each function `plot_*` writes a PNG file. The function `figure_*` of the same name takes the same
arguments except the path and returns the matplotlib `Figure`. Figures do not use pyplot, so they
open no windows, are freed after use, and ignore the user's matplotlibrc.
"""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules and "MPLBACKEND" in os.environ:
    # matplotlib refuses to be imported if this variable names a backend that is not installed, as
    # in a command that a notebook starts in another environment. Figures in files need no backend.
    backend = os.environ.pop("MPLBACKEND")
    import matplotlib as mpl

    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        mpl.rcParams.update({"backend": backend} if backend else {})

from mnist_accel.plots.curves import figure_curves, plot_curves
from mnist_accel.plots.filters import figure_filters, plot_filters
from mnist_accel.plots.mistakes import figure_mistakes, plot_mistakes
from mnist_accel.plots.prediction import figure_prediction, plot_prediction
from mnist_accel.plots.spread import Spread, figure_spread, plot_spread

__all__ = [
    "Spread",
    "figure_curves",
    "figure_filters",
    "figure_mistakes",
    "figure_prediction",
    "figure_spread",
    "plot_curves",
    "plot_filters",
    "plot_mistakes",
    "plot_prediction",
    "plot_spread",
]

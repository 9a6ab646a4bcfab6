"""Errors planted into the compiled training of the Numba backend, to test the tests.

An error of `CHANGED_NUMBERS` changes the numbers that compiled code reads, or the call of it, so
nothing is compiled anew. An error of `CHANGED_SOURCES` changes a line in a copy of the kernels.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.numba import epoch as epoch_module
from backends.numba.epoch import NumbaEpoch
from backends.numba.kernels.stages import NONE
from backends.numba.layout import lay_out

ROOT = Path(__file__).parents[2]

Change = Callable[[Any], None]


def _stage(index: int, field: str, value: Any) -> Change:
    """Return a change of one number of a stage."""

    def change(stages: Any) -> None:
        stages[index][field] = value

    return change


# Recipe in which the error must show, and the change of the table of stages.
CHANGED_PLANS: dict[str, tuple[str, Change]] = {
    "linear without bias": ("two-layer", _stage(1, "bias", NONE)),
    "sparse linear without bias": ("two-layer", _stage(0, "bias", NONE)),
    "convolution without bias": ("lenet", _stage(0, "bias", NONE)),
    "linear without activation": ("three-layer", _stage(0, "activation", 0)),
    "convolution without activation": ("lenet", _stage(0, "activation", 0)),
    "pooling with another tie rule": ("cnn", _stage(0, "all_ties", 0)),
}
# Recipe in which an error of the call of `run` must show.
CHANGED_CALLS: dict[str, str] = {
    "half the learning rate": "two-layer",
    "half the learning rate at the second step of a chunk": "two-layer",
    "optimizer state lost between chunks": "three-layer",
    "number of the step not passed on": "three-layer",
    "loss of the batch wrong": "two-layer",
    "number of correct images wrong": "two-layer",
    "last image of each batch left out": "two-layer",
}


@dataclass(frozen=True)
class ChangedSource:
    """A change in a copy of the kernels.

    Attributes:
        file: file in `backends/numba/kernels`.
        line: a part of the file that occurs once.
        wrong: what replaces it.
        recipe: recipe in which the error must show.
    """

    file: str
    line: str
    wrong: str
    recipe: str

    @property
    def path(self) -> str:
        """Path of the file in the repository."""
        return f"backends/numba/kernels/{self.file}"


CHANGED_SOURCES: dict[str, ChangedSource] = {
    "half the SGD step": ChangedSource(
        "epoch.py", "-rate / shrink if is_linear", "-rate / 2 if is_linear", "two-layer"
    ),
    "Adam update": ChangedSource(
        "updates.py",
        "square_mean[i] = beta2 * square_mean[i]",
        "square_mean[i] = beta1 * square_mean[i]",
        "three-layer",
    ),
    "linear forward": ChangedSource(
        "dense.py", "len(x), outputs, inputs,", "len(x), outputs, inputs - 16,", "lenet"
    ),
    "bias forward": ChangedSource(
        "dense.py", "y[row, column] += bias", "y[row, column] -= bias", "two-layer"
    ),
    "linear gradient of x": ChangedSource(
        "dense.py",
        "1, view_2d(packed, weight, outputs,",
        "1, view_2d(packed, 0, outputs,",
        "two-layer",
    ),
    "linear gradient of W": ChangedSource(
        "dense.py",
        "view_2d(gradient, weight, outputs,",
        "view_2d(gradient, weight, outputs - 1,",
        "two-layer",
    ),
    "gradient of bias": ChangedSource(
        "dense.py", "dbias[column] += dy", "dbias[column] -= dy", "two-layer"
    ),
    "sparse product": ChangedSource(
        "input_layer.py",
        "for n in range(tile.images):",
        "for n in range(1, tile.images):",
        "two-layer",
    ),
    "sparse gradient of W": ChangedSource(
        "input_layer.py",
        "for n in range(step.batch):",
        "for n in range(1, step.batch):",
        "two-layer",
    ),
    "gradient of ReLU": ChangedSource(
        "elementwise.py", "if outputs[i] <= zero", "if outputs[i] < zero", "two-layer"
    ),
    "gradient of sigmoid": ChangedSource(
        "elementwise.py",
        "gradients[i] *= outputs[i] * (one - outputs[i])",
        "gradients[i] *= outputs[i]",
        "backprop",
    ),
    "product with pixels": ChangedSource(
        "dense.py",
        "len(y), outputs, end - begin,",
        "len(y), outputs - 1, end - begin,",
        "two-layer",
    ),
    "gradient of W from pixels": ChangedSource(
        "dense.py", "end - begin, len(dy), scale", "end - begin, len(dy) - 1, scale", "two-layer"
    ),
    "padding": ChangedSource(
        "forward.py", "stage.padding * (row + lanes)", "stage.padding * row", "lenet"
    ),
    "convolution": ChangedSource(
        "fused_convolution.py",
        "_conv2d_16(\n                target, ties, columns * lanes, lanes, b, source, row,",
        "_conv2d_16(\n                target, ties, columns * lanes, lanes, b, source, 0,",
        "lenet",
    ),
    "convolution of the second channel tile": ChangedSource(
        "fused_convolution.py", "stage.weight + taps * first", "stage.weight", "fast99"
    ),
    "convolution with pooling": ChangedSource(
        "fused_convolution.py",
        "_max_pool_3x3(target, ties, b, source, row,",
        "_max_pool_3x3(target, ties, b, source, row - 1,",
        "cnn",
    ),
    "5×5 convolution with pooling": ChangedSource(
        "fused_convolution.py",
        "_max_pool_5x5(target, ties, b, source, row,",
        "_max_pool_5x5(target, ties, b, source, row - 1,",
        "lenet",
    ),
    "max-pooling": ChangedSource("simd/conv.py", "sums[r, c + s]", "sums[r, c]", "lenet"),
    "gradient of max-pooling": ChangedSource(
        "fused_convolution.py", "(bits >> 2 | bits >> 3) & 1", "bits >> 2 & 1", "lenet"
    ),
    "gradient of max-pooling with ties": ChangedSource(
        # The change of the filters is small, so only a large error of it shows.
        "simd/pooling.py",
        '"!=",',
        '"==",',
        "cnn",
    ),
    "gradient of filters": ChangedSource(
        "fused_convolution.py", "pointer(places, o)", "pointer(places, 0)", "lenet"
    ),
    "gradient of filters not set to 0 before a tile": ChangedSource(
        "backward.py", "    clear_filter_gradient(stage, work.dfilters)\n", "", "lenet"
    ),
    "gradient of filters in the order of the parameters": ChangedSource(
        "fused_convolution.py", "(o * side + i) * row + j", "o * side * row + j", "lenet"
    ),
    "gradient of filters with pooling": ChangedSource(
        "fused_convolution.py",
        "pointer(gradient, stage.weight), pointer(x, 0), _row_of(stage),",
        "pointer(gradient, stage.weight), pointer(x, 0), 0,",
        "cnn",
    ),
    "convolution gradient of x": ChangedSource(
        "fused_convolution.py", "pointer(dx, (r * x_row + c", "pointer(dx, (c", "lenet"
    ),
    "filters with a margin": ChangedSource(
        "fused_convolution.py", "copy + (j + 1) * lanes", "copy + j * lanes", "lenet"
    ),
    "place of a filter with a margin": ChangedSource(
        "fused_convolution.py", "right * copy - down * row", "right * copy", "lenet"
    ),
    "convolution gradient of bias": ChangedSource(
        # A constant factor would not show: Adam divides by the size of the gradient.
        "fused_convolution.py",
        "upstream, stage.out_lanes, rows * columns)\n    pairs",
        "upstream, stage.out_lanes, rows)\n    pairs",
        "lenet",
    ),
    "value of the loss": ChangedSource(
        "simd/losses.py",
        "builder.fsub(log_sum, builder.load((z + label).address))",
        "log_sum",
        "two-layer",
    ),
    "gradient of the loss": ChangedSource(
        "simd/losses.py",
        "builder.fsub(dz.load(at), _one_hot(emit, lanes, label))",
        "builder.fsub(dz.load(at), emit.constant(0.1))",
        "two-layer",
    ),
    "softmax": ChangedSource(
        "simd/losses.py",
        "builder.fadd(maximum, emit.log(number))",
        "emit.log(number)",
        "two-layer",
    ),
    "gradient of the binary cross-entropy": ChangedSource(
        "simd/losses.py", "builder.fsub(outputs, targets)", "outputs", "fcnn"
    ),
    "gradient of the quadratic loss": ChangedSource(
        "simd/losses.py", "builder.fmul(error, slope)", "error", "backprop"
    ),
    "number of correct images": ChangedSource(
        "losses.py",
        "classes_before(z, width, classes, label) == 0",
        "classes_before(z, width, classes, label) <= 1",
        "two-layer",
    ),
    "order of the images": ChangedSource(
        "chunk.py", "outside[i] = i, begin + i", "outside[i] = i, i", "three-layer"
    ),
    "parameters copied in rows": ChangedSource(
        "chunk.py", "= origin[row * from_row + column]", "= origin[row * from_row]", "two-layer"
    ),
    "parameters copied and transposed": ChangedSource(
        "chunk.py", "+ column * from_column]", "]", "two-layer"
    ),
    "compiled prediction": ChangedSource(
        "inference.py",
        "pointer(nonzeros.data, 0), length,",
        "pointer(nonzeros.data, 0), length - 1,",
        "two-layer",
    ),
    "compiled prediction with convolutions": ChangedSource(
        "inference.py", "= channel * cells + cell", "= channel + cell", "lenet"
    ),
}


def changed_source(change: ChangedSource) -> str:
    """Return the file of a change with its error."""
    source = (ROOT / change.path).read_text(encoding="utf-8")
    assert source.count(change.line) == 1, f"{change.file} has {source.count(change.line)} of it"
    return source.replace(change.line, change.wrong)


def compare_with_changed_source(name: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `compare` in a copy of the packages in `folder`, with an error of `CHANGED_SOURCES`."""
    for package in ("backends", "mnist_accel"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    change = CHANGED_SOURCES[name]
    (folder / change.path).write_text(changed_source(change), encoding="utf-8")
    # Only MNIST has so few nonzero pixels that they are loaded in CSR format.
    dataset = "mnist" if "sparse" in name else "digits"
    arguments = ["--dataset", dataset, "--model", change.recipe, "--batch-size", "16"]
    environment = {
        "PYTHONPATH": str(folder),
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        "NUMBA_OPT": "0",  # compiles in a third of the time
        "NUMBA_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "mnist_accel", "compare", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def plant(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """Plant an error of `CHANGED_PLANS` or `CHANGED_CALLS`."""
    if error in CHANGED_PLANS:
        change = CHANGED_PLANS[error][1]

        def changed_layout(program: Any, *, is_sparse: bool) -> Any:
            layout = lay_out(program, is_sparse=is_sparse)
            change(layout.stages)
            return layout

        monkeypatch.setattr(epoch_module, "lay_out", changed_layout)
        return
    run = NumbaEpoch.run

    def changed_run(self: Any, data: Any, steps: Any, weights: Any, state: Any) -> Any:
        rates, bounds = steps.rates.copy(), steps.bounds.copy()
        if error == "half the learning rate":
            rates /= 2
        elif error == "half the learning rate at the second step of a chunk":
            rates[1:2] /= 2
        elif error == "optimizer state lost between chunks":
            state = {name: 0 * array for name, array in state.items()}
        elif error == "last image of each batch left out":
            bounds[:, 1] -= 1
        before = 0 if error == "number of the step not passed on" else steps.before
        steps = steps._replace(rates=rates, before=before, bounds=bounds)
        results = run(self, data, steps, weights, state)
        if error == "loss of the batch wrong":
            return results._replace(losses=1.001 * results.losses)
        if error == "number of correct images wrong":
            return results._replace(correct=results.correct + 1)
        return results

    monkeypatch.setattr(NumbaEpoch, "run", changed_run)

"""Compares a fast kernel with its naive version, and measures both."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.cupy.graph import capture
from backends.operations.common import Array
from benchmarks.gpu.bench_kernels.gpu import Gpu
from mnist_accel.util.tolerance import relative_tolerance

# Integers may depend on rounding, such as the class with the larger of two almost equal logits. At
# most this share of them may differ.
MAX_INTEGER_SHARE = 1e-4

MIN_ROUNDS, MAX_ROUNDS = 3, 9
BUDGET_S = 0.4  # no round starts later
# A graph repeats a launch, so that its own start takes a negligible part of the time.
MAX_LAUNCHES = 20
GRAPH_S = 1e-3

# Returns the seconds that work takes on the GPU.
Stopwatch: TypeAlias = Callable[[Callable[[], None]], float]


@dataclass(frozen=True)
class Comparison:
    """A fast kernel, the naive kernels that compute the same, and the work that both do.

    Attributes:
        kernel: name of the fast kernel.
        sizes: sizes of the data, for display.
        fast: launches the fast kernel.
        naive: launches the naive kernels; neither allocates memory.
        results: returns what the fast kernel and the naive ones have computed, by name; a pair of
            None is skipped.
        terms: number of terms of the longest sum.
        multiply_adds: number of multiply-adds; 0 if other operations take the time.
        moved: number of bytes that the fast kernel reads and writes at least.
        steps: training steps of a launch.
    """

    kernel: str
    sizes: str
    fast: Callable[[], None]
    naive: Callable[[], None]
    results: Callable[[], Mapping[str, tuple[Array | None, Array | None]]]
    terms: int
    multiply_adds: int
    moved: int
    steps: int = 1

    def largest_error(self, gpu: Gpu) -> tuple[float, str]:
        """Launch fast and naive kernels once, and compare their results.

        Returns:
            The largest difference as a multiple of the accepted one, and the name of that result.
        """
        self.fast()
        self.naive()
        # Both sums have rounding errors.
        tolerance = relative_tolerance(gpu.dtype, terms=4 * self.terms, steps=self.steps)
        errors = {
            name: _error(gpu.cupy.asnumpy(fast), gpu.cupy.asnumpy(naive), tolerance)
            for name, (fast, naive) in self.results().items()
            if fast is not None
        }
        name = max(errors, key=lambda name: errors[name])
        return errors[name], name


@dataclass(frozen=True)
class Row:
    """Result of a comparison; times are medians of a launch, in microseconds.

    Attributes:
        kernel: name of the fast kernel, or of the family if it failed.
        sizes: sizes of the data.
        error: largest difference as a multiple of the accepted one.
        naive_us: time of the naive kernels.
        fast_us: time of the fast kernel.
        fraction: time of the fast kernel as a fraction of the time of the naive ones.
        gflops: additions and multiplications of the fast kernel, in 10⁹ per second.
        gb_per_s: bytes that it reads and writes at least, in 10⁹ per second.
        problem: why the kernel was not measured; empty if it was.
    """

    kernel: str
    sizes: str = ""
    error: float = 0.0
    naive_us: float = 0.0
    fast_us: float = 0.0
    fraction: float = 0.0
    gflops: float = 0.0
    gb_per_s: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"| {self.kernel} | {self.sizes} | | | | | | **{self.problem}** |"
        return (
            f"| {self.kernel} | {self.sizes} | {self.naive_us:.1f} µs | {self.fast_us:.1f} µs "
            f"| {self.fraction:.3f} | {self.gflops:.0f} | {self.gb_per_s:.0f} | {self.error:.2f} |"
        )


def measure(gpu: Gpu, comparison: Comparison, stream: Any, seconds: Stopwatch) -> Row:
    """Compare the results and, if they agree, measure both kernels in alternation.

    Args:
        gpu: the GPU.
        comparison: the kernels.
        stream: the current stream.
        seconds: measures work on this stream.
    """
    kernel, sizes = comparison.kernel, comparison.sizes
    error, name = comparison.largest_error(gpu)
    if not error <= 1:
        problem = f"{name} differs by {error:.3g} times the accepted difference"
        return Row(kernel, sizes, problem=problem)
    launches = comparison.naive, comparison.fast
    repeated = [_Repeated(launch, stream, seconds) for launch in launches]
    times: list[tuple[float, ...]] = []
    end = time.perf_counter() + BUDGET_S
    while len(times) < MIN_ROUNDS or (len(times) < MAX_ROUNDS and time.perf_counter() < end):
        times.append(tuple(one.seconds_per_launch() for one in repeated))
    naive_s, fast_s = (median(own) for own in zip(*times, strict=True))
    return Row(
        kernel=kernel,
        sizes=sizes,
        error=error,
        naive_us=naive_s * 1e6,
        fast_us=fast_s * 1e6,
        fraction=fast_s / naive_s,
        gflops=2 * comparison.multiply_adds / fast_s / 1e9,
        gb_per_s=comparison.moved / fast_s / 1e9,
    )


class _Repeated:
    """A CUDA graph that repeats a launch often enough to be measured.

    Args:
        launch: launches kernels that are loaded already.
        stream: the current stream.
        seconds: measures work on this stream.
    """

    def __init__(self, launch: Callable[[], None], stream: Any, seconds: Stopwatch) -> None:
        self._stream = stream
        self._seconds = seconds
        self._count = 1
        self._graph = capture(stream, launch)
        once = self.seconds_per_launch()
        self._count = max(1, min(MAX_LAUNCHES, int(GRAPH_S / once)))
        self._graph = capture(stream, launch, times=self._count)

    def seconds_per_launch(self) -> float:
        """Return the time of the graph, divided by its number of launches."""
        return self._seconds(lambda: self._graph.launch(stream=self._stream)) / self._count


def pairs(
    names: str, fast: Sequence[Array], naive: Sequence[Array]
) -> dict[str, tuple[Array | None, Array | None]]:
    """Return `Comparison.results` of arrays whose names are separated by spaces."""
    return dict(zip(names.split(), zip(fast, naive, strict=True), strict=True))


def byte_count(*arrays: Array | None) -> int:
    """Return the number of bytes of arrays."""
    return sum(int(array.nbytes) for array in arrays if array is not None)


def _error(got: NDArray[Any], expected: NDArray[Any], tolerance: float) -> float:
    """Return a difference as a multiple of the accepted one; infinite if it is not a number."""
    if got.dtype.kind != "f":
        return float(np.mean(got != expected)) / MAX_INTEGER_SHARE
    difference = float(np.abs(got.astype(np.float64) - expected).max())
    if difference == 0:
        return 0.0
    error = difference / (tolerance * max(float(np.abs(expected).max()), 1e-300))
    return math.inf if math.isnan(error) else error

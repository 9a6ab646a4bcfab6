"""Compares each CUDA kernel with a naive version of it, and measures both.

    python -m benchmarks.gpu.bench_kernels
    python -m benchmarks.gpu.bench_kernels linear convolution --json kernels.json

Prints a row for each kernel and size, most of them sizes of the recipes: the median times of a
launch of the naive and of the fast kernel, the second as a fraction of the first, the work per
second of the fast kernel, and the largest difference of their results as a multiple of the accepted
one. Both find in the caches what their previous launches left there. Without names of families,
each family has a process of its own, so one that breaks or hangs the GPU does not stop the others.
Exit code: 6 if a difference is too large or a kernel fails.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from backends import get_backend
from benchmarks.gpu.bench_kernels import (
    convolution,
    fused_classifier,
    fused_cnn,
    fused_mlp,
    fused_shallow_cnn,
    linear,
    losses,
    persistent_cnn,
    persistent_mlp,
    pooling,
    tensor_cores,
    wgrad_update,
)
from benchmarks.gpu.bench_kernels.comparison import Comparison, Row, Stopwatch, measure
from benchmarks.gpu.bench_kernels.gpu import Gpu
from benchmarks.gpu.overheads import elapsed_seconds, write_as_measured
from benchmarks.gpu.own_process import rows_of
from benchmarks.session.settings import select
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.exit_codes import EXIT_COMPARISON
from mnist_accel.commands.parser import Parser

MODULE = "benchmarks.gpu.bench_kernels"
FAMILY_S = 30.0  # time limit of a family in a process of its own
Family = Callable[[Gpu], Iterator[Comparison]]
# In the order of a training step.
FAMILIES: Mapping[str, Family] = {
    "linear": linear.comparisons,
    "tensor_cores": tensor_cores.comparisons,
    "convolution": convolution.comparisons,
    "pooling": pooling.comparisons,
    "losses": losses.comparisons,
    "fused_classifier": fused_classifier.comparisons,
    "fused_cnn": fused_cnn.comparisons,
    "fused_mlp": fused_mlp.comparisons,
    "fused_shallow_cnn": fused_shallow_cnn.comparisons,
    "wgrad_update": wgrad_update.comparisons,
    "persistent_cnn": persistent_cnn.comparisons,
    "persistent_mlp": persistent_mlp.comparisons,
}
HEADER = """| kernel | sizes | naive | fast | fast/naive | GFLOP/s | GB/s | difference |
|---|---|---:|---:|---:|---:|---:|---:|"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the first GPU, print a table, and return the exit code."""
    parser = Parser(prog="python -m benchmarks.gpu.bench_kernels", description=__doc__)
    parser.add_argument(
        "family", nargs="*", help=f"kernels to compare (default: all): {', '.join(FAMILIES)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    return guarded(lambda: _run(parser.parse_args(argv)), prog=parser.prog)


def _run(args: argparse.Namespace) -> int:
    chosen = select("family", ",".join(args.family or FAMILIES), list(FAMILIES))
    get_backend("cupy")  # raises an error with a remedy if no GPU can be used
    found = []

    def rows() -> Iterator[Row]:
        for row in _rows_here(chosen) if args.family else _rows_apart(chosen):
            found.append(row)
            yield row

    write_as_measured(rows(), args.json, header=HEADER)
    return EXIT_COMPARISON if any(row.problem for row in found) else 0


def _rows_here(families: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of families that this process measures."""
    import cupy  # the tests import this module without CuPy

    yield from measured_rows(Gpu(cupy), families, functools.partial(elapsed_seconds, cupy))


def _rows_apart(families: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of families that are measured in a process each."""
    for family in families:
        rows, problem = rows_of(MODULE, family, option="--json", limit_s=FAMILY_S)
        yield from (Row(**row) for row in rows)
        if problem:
            yield Row(family, problem=problem)


def measured_rows(gpu: Gpu, families: Sequence[str], seconds: Stopwatch) -> Iterator[Row]:
    """Yield a row as soon as it is measured; the other families follow one that fails."""
    stream = gpu.cupy.cuda.Stream(non_blocking=True)
    with stream:
        for family in families:
            try:
                for comparison in FAMILIES[family](gpu):
                    yield measure(gpu, comparison, stream, seconds)
            except Exception as error:  # the others may work
                text = " ".join(str(error).split())
                yield Row(family, problem=f"{type(error).__name__}: {text}")


if __name__ == "__main__":
    sys.exit(main())

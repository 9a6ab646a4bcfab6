"""Measures launches, graph nodes and barriers on a GPU, and its peak copy and arithmetic rates.

    python -m benchmarks.gpu.overheads --out overheads.json

Works with CuPy 13 and 14. The measurements explain the times of the benchmarks: a graph step takes
at least one graph node per kernel, a step of a persistent kernel at least one barrier or round trip
between blocks.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from backends import get_backend
from backends.cupy.kernel import cooperative
from backends.cupy.launch import clusters, persistent_mlp
from backends.cupy.loader import Constant, options_for, with_includes
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser
from mnist_accel.util.files import write_atomically

FILE = Path(__file__).with_name("overheads.cu")
THREADS_PER_BLOCK = 256
CHAINS = 8  # independent sums per thread of `multiply_add`
REPETITIONS = 9
HEADER = "| measurement | median |\n|---|---|"

# Returns the seconds that a function takes.
Stopwatch: TypeAlias = Callable[[Callable[[], None]], float]


@dataclass(frozen=True)
class Counts:
    """Amount of work per measurement, large enough to make one-time costs negligible.

    Attributes:
        launches: launches of an empty kernel; few enough that the GPU queues all of them.
        nodes: nodes of a graph.
        rounds: barriers or round trips per launch.
        copied_bytes: bytes to copy; more than the caches hold.
        multiply_adds: multiply-adds per sum.
    """

    launches: int = 500
    nodes: int = 256
    rounds: int = 1000
    copied_bytes: int = 1 << 28
    multiply_adds: int = 20_000


@dataclass(frozen=True)
class Measurement:
    """A measured value and its unit."""

    name: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.value:.3g} {self.unit} |"


@functools.cache
def source() -> str:
    """Return overheads.cu with its headers inserted."""
    return with_includes(FILE.read_text(encoding="utf-8"), FILE.name)


def kernel(cupy: Any, name: str, **constants: Constant) -> Any:
    """Return a kernel of overheads.cu."""
    options = options_for("float32", CHAINS=CHAINS, **constants)
    return cupy.RawModule(code=source(), options=options, backend="nvrtc").get_function(name)


@dataclass(frozen=True)
class Benchmark:
    """Measures on one GPU.

    Attributes:
        cupy: the module `cupy` or a replacement.
        multiprocessors: number of multiprocessors of the GPU.
        gpu_s: measures the time on the GPU.
        host_s: measures the time that the host needs to submit the work.
        counts: amount of work; the defaults suit a GPU.
    """

    cupy: Any
    multiprocessors: int
    gpu_s: Stopwatch
    host_s: Stopwatch
    counts: Counts = Counts()

    def measure(self) -> Iterator[Measurement]:
        """Yield each measurement when it is done."""
        stream = self.cupy.cuda.Stream(non_blocking=True)
        with stream:
            yield from self._launches()
            yield from self._graphs(stream)
            yield self._copy()
            yield self._arithmetic()
            yield from self._barriers()  # last, because a fault in one would prevent the others

    def _launches(self) -> Iterator[Measurement]:
        empty, count = kernel(self.cupy, "empty"), self.counts.launches

        def launch() -> None:
            for _ in range(count):
                empty((1,), (THREADS_PER_BLOCK,), ())

        for place, seconds in (("host", self.host_s), ("GPU", self.gpu_s)):
            value = seconds(launch) / count * 1e6
            yield Measurement(f"launch of an empty kernel, {place}", value, "µs")

    def _graphs(self, stream: Any) -> list[Measurement]:
        empty, nodes = kernel(self.cupy, "empty"), self.counts.nodes
        empty((1,), (THREADS_PER_BLOCK,), ())  # a kernel cannot be loaded during graph capture
        stream.synchronize()

        def capture(count: int) -> Callable[[], None]:
            stream.begin_capture()
            try:
                for _ in range(count):
                    empty((1,), (THREADS_PER_BLOCK,), ())
            except BaseException:
                with suppress(Exception):  # a failed launch often ends the capture
                    stream.end_capture()
                raise
            graph = stream.end_capture()
            return lambda: graph.launch(stream=stream)

        short, long = capture(1), capture(nodes)
        per_node_s = (self.gpu_s(long) - self.gpu_s(short)) / (nodes - 1)
        return [
            Measurement(f"graph of {nodes} empty kernels, host", self.host_s(long) * 1e6, "µs"),
            Measurement("additional graph node, GPU", per_node_s * 1e6, "µs"),
        ]

    def _barriers(self) -> Iterator[Measurement]:
        """Yield the times of a grid barrier, and of clusters if the GPU has them."""
        barrier = cooperative(kernel(self.cupy, "barrier"))
        for blocks in dict.fromkeys((clusters.BLOCKS, self.multiprocessors)):
            value = self._round_us(barrier, blocks)
            yield Measurement(f"grid barrier of {blocks} blocks", value, "µs")
        capability = int(self.cupy.cuda.Device().compute_capability)
        if constants := persistent_mlp.cluster_constants(capability):
            blocks = clusters.BLOCKS
            barrier = kernel(self.cupy, "barrier", BLOCKS=blocks, **constants)
            value = self._round_us(barrier, blocks)
            yield Measurement(f"cluster barrier of {blocks} blocks", value, "µs")
            round_trip = kernel(self.cupy, "round_trip", BLOCKS=blocks, **constants)
            value = self._round_us(round_trip, blocks)
            yield Measurement("round trip between 2 blocks, st.async and mbarrier", value, "µs")

    def _round_us(self, kernel: Callable[..., None], blocks: int) -> float:
        counters, rounds = self.cupy.zeros(2, "uint32"), self.counts.rounds

        def seconds(count: int) -> float:
            arguments = np.int32(count), counters
            return self.gpu_s(lambda: kernel((blocks,), (THREADS_PER_BLOCK,), arguments))

        return (seconds(rounds + 1) - seconds(1)) / rounds * 1e6

    def _copy(self) -> Measurement:
        copy, size = kernel(self.cupy, "copy"), self.counts.copied_bytes
        source, target = (self.cupy.zeros(size // 8, "float64") for _ in range(2))
        grid = (8 * self.multiprocessors,)
        arguments = source, np.int64(size // 8), target
        seconds = self.gpu_s(lambda: copy(grid, (THREADS_PER_BLOCK,), arguments))
        return Measurement("copy, bytes read and written", 2 * size / seconds / 1e9, "GB/s")

    def _arithmetic(self) -> Measurement:
        multiply_add, count = kernel(self.cupy, "multiply_add"), self.counts.multiply_adds
        threads = 8 * self.multiprocessors * THREADS_PER_BLOCK
        arguments = np.int32(count), np.float32(0.5), self.cupy.zeros(threads, "float32")
        grid = (8 * self.multiprocessors,)
        seconds = self.gpu_s(lambda: multiply_add(grid, (THREADS_PER_BLOCK,), arguments))
        flops = 2 * count * CHAINS * threads
        return Measurement("multiply-adds, float32", flops / seconds / 1e12, "TFLOP/s")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the first GPU, print a table and write a JSON file; return the exit code.

    Both are complete up to the last measurement, so a run that is stopped leaves its results.
    """
    parser = Parser(prog="python -m benchmarks.gpu.overheads", description=__doc__, epilog="")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file")
    return guarded(lambda: _run(parser.parse_args(argv)), prog=parser.prog)


def _run(args: argparse.Namespace) -> int:
    get_backend("cupy")  # raises an error with a remedy if no GPU can be used
    import cupy  # the tests import this module without CuPy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    benchmark = Benchmark(
        cupy,
        multiprocessors=properties["multiProcessorCount"],
        gpu_s=functools.partial(_gpu_seconds, cupy),
        host_s=functools.partial(_host_seconds, cupy),
    )
    write_as_measured(benchmark.measure(), args.out, header=HEADER)
    return 0


def write_as_measured(measurements: Iterable[Any], out: Path | None, *, header: str) -> None:
    """Print a row of a Markdown table and replace the JSON file after each measurement.

    Args:
        measurements: dataclasses, of which `str` is a row of the table.
        out: the JSON file; None for none.
        header: the first two lines of the table.
    """
    print(header, flush=True)
    done: list[dict[str, Any]] = []
    for measurement in measurements:
        print(measurement, flush=True)
        done.append(asdict(measurement))
        if out is not None:
            text = json.dumps(done, indent=2, ensure_ascii=False)
            write_atomically(out, f"{text}\n".encode())


def _gpu_seconds(cupy: Any, work: Callable[[], None]) -> float:
    """Return the median time on the GPU, after a warm-up."""
    work()
    return median(elapsed_seconds(cupy, work) for _ in range(REPETITIONS))


def elapsed_seconds(cupy: Any, work: Callable[[], None]) -> float:
    """Return the time between two events on the current stream, before and after the work."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3


def _host_seconds(cupy: Any, work: Callable[[], None]) -> float:
    """Return the median time that the host needs to submit work to an idle GPU."""
    work()
    times = []
    for _ in range(REPETITIONS):
        cupy.cuda.get_current_stream().synchronize()
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())

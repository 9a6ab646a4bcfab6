"""Measures what a step costs beside its own work: launches, graph nodes, barriers, memory.

    python -m benchmarks.gpu.overheads --out overheads.json

Works with CuPy 13 and 14. The figures explain those of the benchmarks: a step of a CUDA graph takes
at least a node for each of its kernels, a step of a kernel that stays at least a barrier.
"""

import argparse
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from backends.cupy.launch import persistent
from backends.cupy.loader import Constant, cooperative, options_for, with_includes
from mnist_accel.util.files import write_atomically

FILE = Path(__file__).with_name("overheads.cu")
THREADS = 256  # of a block
CHAINS = 8
REPETITIONS = 9

# Returns the seconds that some work takes.
Stopwatch: TypeAlias = Callable[[Callable[[], None]], float]


@dataclass(frozen=True)
class Amounts:
    """How much of everything is done, so that what is measured once does not count.

    Attributes:
        launches: of an empty kernel; fewer than a GPU queues without letting the host wait.
        nodes: of a graph.
        rounds: of a barrier.
        copied_bytes: more than fit the caches.
        additions: multiply-adds of each chain of a thread.
    """

    launches: int = 500
    nodes: int = 256
    rounds: int = 1000
    copied_bytes: int = 1 << 28
    additions: int = 20_000


@dataclass(frozen=True)
class Figure:
    """Something that was measured.

    Attributes:
        name: what it is.
        value: the number.
        unit: of the number.
    """

    name: str
    value: float
    unit: str


def measure(
    cupy: Any,
    *,
    multiprocessors: int,
    gpu_s: Stopwatch,
    host_s: Stopwatch,
    amounts: Amounts | None = None,
) -> list[Figure]:
    """Return all figures.

    Args:
        cupy: CuPy, or what stands in for it.
        multiprocessors: of the GPU.
        gpu_s: times work by the clock of the GPU.
        host_s: times how long the host takes to hand work over.
        amounts: how much is done; the default suits a GPU.
    """
    amounts = amounts or Amounts()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        return [
            *_launches(cupy, gpu_s, host_s, amounts.launches),
            *_graphs(cupy, stream, gpu_s, host_s, amounts.nodes),
            *_barriers(cupy, gpu_s, multiprocessors, amounts.rounds),
            _copy(cupy, gpu_s, multiprocessors, amounts.copied_bytes),
            _arithmetic(cupy, gpu_s, multiprocessors, amounts.additions),
        ]


@functools.cache
def source() -> str:
    """Return overheads.cu with its headers in place."""
    return with_includes(FILE.read_text(encoding="utf-8"), FILE.name)


def kernel(cupy: Any, name: str, **constants: Constant) -> Any:
    """Return a kernel of overheads.cu."""
    options = options_for("float32", CHAINS=CHAINS, **constants)
    return cupy.RawModule(code=source(), options=options, backend="nvrtc").get_function(name)


def _launches(cupy: Any, gpu_s: Stopwatch, host_s: Stopwatch, count: int) -> list[Figure]:
    nothing = kernel(cupy, "nothing")

    def launch() -> None:
        for _ in range(count):
            nothing((1,), (THREADS,), ())

    return [
        Figure("launch of an empty kernel, host", host_s(launch) / count * 1e6, "µs"),
        Figure("launch of an empty kernel, GPU", gpu_s(launch) / count * 1e6, "µs"),
    ]


def _graphs(
    cupy: Any, stream: Any, gpu_s: Stopwatch, host_s: Stopwatch, nodes: int
) -> list[Figure]:
    nothing = kernel(cupy, "nothing")
    nothing((1,), (THREADS,), ())  # kernels cannot be loaded while a graph is captured
    stream.synchronize()

    def graph_of(count: int) -> Callable[[], None]:
        stream.begin_capture()
        try:
            for _ in range(count):
                nothing((1,), (THREADS,), ())
        except BaseException:
            with suppress(Exception):  # what has gone wrong often ends the capture itself
                stream.end_capture()
            raise
        graph = stream.end_capture()
        return lambda: graph.launch(stream=stream)

    short, long = graph_of(1), graph_of(nodes)
    per_node = (gpu_s(long) - gpu_s(short)) / (nodes - 1)
    return [
        Figure(f"graph of {nodes} empty kernels, host", host_s(long) * 1e6, "µs"),
        Figure("a further node of a graph, GPU", per_node * 1e6, "µs"),
    ]


def _barriers(cupy: Any, gpu_s: Stopwatch, multiprocessors: int, rounds: int) -> Iterator[Figure]:
    """Yield how long the blocks of a grid take to meet, and those of a cluster if there are any."""
    meet = cooperative(kernel(cupy, "meet"))
    for blocks in dict.fromkeys((persistent.BLOCKS, multiprocessors)):
        value = _meeting_us(cupy, gpu_s, meet, blocks, rounds)
        yield Figure(f"grid barrier of {blocks} blocks", value, "µs")
    constants = persistent.together(int(cupy.cuda.Device().compute_capability))
    if constants:
        meet = kernel(cupy, "meet", BLOCKS=persistent.BLOCKS, **constants)
        value = _meeting_us(cupy, gpu_s, meet, persistent.BLOCKS, rounds)
        yield Figure(f"cluster barrier of {persistent.BLOCKS} blocks", value, "µs")


def _meeting_us(
    cupy: Any, gpu_s: Stopwatch, meet: Callable[..., None], blocks: int, rounds: int
) -> float:
    barrier = cupy.zeros(2, "uint32")

    def seconds(count: int) -> float:
        return gpu_s(lambda: meet((blocks,), (THREADS,), (np.int32(count), barrier)))

    return (seconds(rounds + 1) - seconds(1)) / rounds * 1e6


def _copy(cupy: Any, gpu_s: Stopwatch, multiprocessors: int, size: int) -> Figure:
    copy, count = kernel(cupy, "copy"), size // 8
    source, target = cupy.zeros(count, "float64"), cupy.zeros(count, "float64")
    grid = (8 * multiprocessors,)
    seconds = gpu_s(lambda: copy(grid, (THREADS,), (source, np.int64(count), target)))
    return Figure("copy, read and written", 2 * size / seconds / 1e9, "GB/s")


def _arithmetic(cupy: Any, gpu_s: Stopwatch, multiprocessors: int, additions: int) -> Figure:
    multiply_add, blocks = kernel(cupy, "multiply_add"), 8 * multiprocessors
    results = cupy.zeros(blocks * THREADS, "float32")
    arguments = np.int32(additions), np.float32(0.5), results
    seconds = gpu_s(lambda: multiply_add((blocks,), (THREADS,), arguments))
    flops = 2 * additions * CHAINS * THREADS * blocks
    return Figure("multiply-adds, float32", flops / seconds / 1e12, "TFLOP/s")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as Markdown."""
    rows = [f"| {figure.name} | {figure.value:.3g} {figure.unit} |" for figure in figures]
    return "\n".join(["| what | median |", "|---|---|", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the first GPU, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="as JSON")
    args = parser.parse_args(argv)
    cupy = importlib.import_module("cupy")
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    figures = measure(
        cupy,
        multiprocessors=properties["multiProcessorCount"],
        gpu_s=functools.partial(_gpu_seconds, cupy),
        host_s=functools.partial(_host_seconds, cupy),
    )
    text = json.dumps([asdict(figure) for figure in figures], indent=2, ensure_ascii=False)
    write_atomically(args.out, f"{text}\n".encode())
    print(table(figures))
    return 0


def _gpu_seconds(cupy: Any, work: Callable[[], None]) -> float:
    """Return the median between two events of the current stream; the first time is no example."""
    work()
    times: list[float] = []
    for _ in range(REPETITIONS):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
    return median(times)


def _host_seconds(cupy: Any, work: Callable[[], None]) -> float:
    """Return the median time until the host has handed work over to an idle GPU."""
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

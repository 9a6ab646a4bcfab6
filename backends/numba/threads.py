"""The worker threads of the Numba backend."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

from backends.numba.placement import Placement

# With fewer images per step, a thread may wait longer at the barriers than it computes.
MIN_IMAGES_PER_THREAD = 16
# From this many images on, a training step is divided among two threads (see also `faster_way`).
MIN_IMAGES_OF_TWO_THREADS = 8
# With fewer multiplications in a chunk, other threads wake up too late to save time.
MIN_MULTIPLICATIONS_OF_CHUNK = 1 << 22


def training_threads(images: int, *, chosen: int | None, max_threads: int) -> int:
    """Return how many threads share a training step, or the preparation of images.

    The arguments are those of `threads_for`.
    """
    threads = threads_for(images, chosen=chosen, max_threads=max_threads)
    if chosen is None and images >= MIN_IMAGES_OF_TWO_THREADS:
        return max(threads, min(2, max_threads))
    return threads


def threads_for(images: int, *, chosen: int | None, max_threads: int) -> int:
    """Return the number of threads for a prediction.

    Args:
        images: number of images.
        chosen: number of threads that the user set, or None.
        max_threads: maximum number of threads if the user set none.
    """
    if chosen is not None:
        return min(chosen, images)
    return max(1, min(max_threads, images // MIN_IMAGES_PER_THREAD))


class WorkerPool:
    """A pool of threads that compute next to the calling thread, on other cores.

    A forked process has no threads of its parent, so each process starts its own pool.
    """

    def __init__(self) -> None:
        self._process = 0
        self._workers = 0

    def executor(self, workers: int) -> ThreadPoolExecutor:
        """Return an executor with `workers` threads for tasks of the calling thread.

        One process uses the same executor again.
        """
        if (self._process, self._workers) != (os.getpid(), workers):
            self._placement = Placement(workers)
            self._executor = ThreadPoolExecutor(
                workers, "mnist_accel-kernel", initializer=self._placement.add_worker
            )
            self._process, self._workers = os.getpid(), workers
        self._placement.leave_core()
        return self._executor


def run_in_ranges(
    executor: Callable[[], Executor],
    task: Callable[[int, int], Any],
    count: int,
    *,
    ranges: int,
) -> None:
    """Run `task(first, last)` for `ranges` ranges that together cover 0 to `count` − 1.

    The calling thread runs the first range. An exception of any range is raised.

    Args:
        executor: returns the executor; not called for a single range.
        task: computes items `first` to `last` − 1.
        count: number of items; `task` is called once if it is 0.
        ranges: number of ranges.
    """
    bounds = [count * i // ranges for i in range(ranges + 1)] if count else [0, 0]
    others = [executor().submit(task, first, last) for first, last in pairwise(bounds[1:])]
    task(bounds[0], bounds[1])
    for other in others:
        other.result()


def wait_for_all(tasks: Sequence[Future[Any]]) -> None:
    """Wait until all tasks have ended, also if Ctrl-C is pressed meanwhile.

    They write to buffers that the next call uses, or that may be freed before it.
    """
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            wait(tasks)
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt

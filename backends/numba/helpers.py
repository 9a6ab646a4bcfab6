"""Child processes that compile stage kernels while this process compiles others.

A helper leaves compiled code in the cache on disk, from which this process loads it. So a helper
that fails or is ended costs only time: this process compiles what is not in the cache.
"""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from queue import Empty, Queue, SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

import numba

from backends.compilation import needed_kernels, record_compilation
from backends.numba.kernels import disk_cache
from backends.numba.kernels.compilation import StageKernel, without_garbage_collector

_Process: TypeAlias = "subprocess.Popen[bytes]"

# The longest kernel takes a quarter of the time, so the results of more helpers come too late.
MAX_HELPERS = 3
# A helper takes as long to start as two to four kernels take to compile.
MIN_KERNELS = 3
_READY = b"ready\n"
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from backends.numba.helpers import main; main()"


@contextmanager
def compiling(kernels: Iterable[StageKernel]) -> Iterator[None]:
    """Compile stage kernels in helpers while the block runs, and also in this process after it."""
    waiting: Queue[StageKernel] = Queue()
    for kernel in filter(StageKernel.is_missing, kernels):
        waiting.put(kernel)
        needed_kernels.append(kernel.function.__name__)
    helpers: list[_Process] = []
    threads: list[Thread] = []
    try:
        with suppress(OSError):  # the system starts no more processes
            for _ in range(_helper_count(waiting.qsize())):
                helpers.append(_start())
                thread = Thread(target=_supply, args=(helpers[-1], waiting))
                thread.start()
                threads.append(thread)
        yield
        with suppress(Empty):
            while True:
                kernel = waiting.get_nowait()
                kernel.address()
                waiting.task_done()
        waiting.join()  # until the helpers have compiled their last kernels
    finally:
        for helper in helpers:
            helper.kill()
        for thread in threads:
            thread.join()
        for helper in helpers:
            with helper:  # closes the pipes
                pass


def main() -> None:
    """Compile the stage kernels that the parent names, until it closes stdin or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    modules: dict[str, Any] = sys.modules
    # Numba would import SciPy for linear algebra, which takes as long as compiling a kernel.
    modules["scipy"] = None
    kernels: SimpleQueue[tuple[str, str, Any]] = SimpleQueue()
    Thread(target=_receive, args=(kernels,), daemon=True).start()
    with without_garbage_collector():
        while True:
            sys.stdout.buffer.write(_READY)
            sys.stdout.buffer.flush()
            module, name, kinds = kernels.get()
            getattr(import_module(module), name).compile(kinds)


def _receive(kernels: "SimpleQueue[tuple[str, str, Any]]") -> None:
    """Put what the parent sends into a queue; end this process at once when the parent ends."""
    try:
        while True:
            kernels.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - from the parent
    finally:
        os._exit(0)


def _helper_count(kernels: int) -> int:
    """Return how many helpers compile `kernels` kernels together with this process.

    A child process has none, because its parent may have started one for each core.
    """
    config: Any = numba.config  # Numba sets its attributes when it is imported
    if (
        kernels < MIN_KERNELS
        or disk_cache.problems
        or multiprocessing.parent_process() is not None
        # Another program that contains Python, such as a web server, cannot run `_CODE`.
        or not Path(sys.executable or "").name.lower().startswith("python")
        or getattr(sys, "frozen", False)
    ):
        return 0
    cores: int = config.NUMBA_NUM_THREADS
    return min(cores - 1, kernels // 2, MAX_HELPERS)


def _start() -> _Process:
    config: Any = numba.config
    options = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment}
    given = [option for option, is_set in options.items() if is_set]
    return subprocess.Popen(  # noqa: S603 - a fixed command, no shell
        [sys.executable, *given, "-c", _CODE, *map(str, sys.path)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NUMBA_CACHE_DIR": config.CACHE_DIR},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _supply(helper: _Process, waiting: "Queue[StageKernel]") -> None:
    """Send a waiting kernel to a helper each time that it is ready."""
    assert helper.stdin is not None
    assert helper.stdout is not None
    with suppress(Empty, OSError):  # an OSError means that the helper has ended
        is_ready = helper.stdout.readline() == _READY
        while is_ready:
            kernel = waiting.get_nowait()
            function = kernel.function
            record_compilation(function.__name__)
            try:
                helper.stdin.write(
                    pickle.dumps((function.__module__, function.__name__, kernel.kinds))
                )
                is_ready = helper.stdout.readline() == _READY
            finally:
                waiting.task_done()

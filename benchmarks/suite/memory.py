"""The peak memory of a training, measured in a fresh process that does nothing else.

    python -m benchmarks.suite.memory two-layer 512 numba

The peak includes the interpreter, the libraries and the training set, as in a user's process.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import contenders
from benchmarks.host import ROOT
from benchmarks.suite.cases import FULL_SET, TrainingCase
from benchmarks.suite.checks import first_batches
from benchmarks.suite.tasks import training_task


def peak_memory(network: str, batch: int, contender: str) -> tuple[int | None, int | None]:
    """Return the peak memory of a process that trains a few steps on the whole training set.

    Returns:
        Bytes of resident memory, None on Windows, and of GPU memory as the library counts it, None
        without a GPU.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.suite.memory", network, str(batch), contender]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        last = result.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"the process that measures peak memory failed: {last}")
    host_bytes, device_bytes = json.loads(result.stdout)
    return host_bytes, device_bytes


def _train(network: str, batch: int, contender: str) -> None:
    one = contenders()[contender]
    # The task has all training images, but a few updates are enough: memory then grows no further.
    task = training_task(TrainingCase(network, batch), math.ceil(FULL_SET / batch))
    one.training(task).updates(first_batches(task))
    json.dump((own_peak_bytes(), one.peak_device_bytes()), sys.stdout)


def own_peak_bytes() -> int | None:
    """Return the peak resident memory of this process; None on Windows.

    On Linux, a child inherits `ru_maxrss` from its parent, so the value is read from /proc.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        try:
            import resource
        except ModuleNotFoundError:  # on Windows
            return None
        # In bytes on macOS.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
    kibibytes, _ = fields["VmHWM"].split()
    return int(kibibytes) * 1024


if __name__ == "__main__":
    _train(sys.argv[1], int(sys.argv[2]), sys.argv[3])

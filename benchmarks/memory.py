"""How much memory does a training take? Measured in a fresh process, which does nothing else.

    python -m benchmarks.memory two-layer 512 numba

The peak includes the interpreter, the libraries and the training set, as a user's process would.
"""

import json
import math
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.host import ROOT


@dataclass(frozen=True)
class Peak:
    """The most memory that a process has held.

    Attributes:
        host_bytes: resident.
        device_bytes: of a GPU, as the library counts what it has taken; None without one.
    """

    host_bytes: int
    device_bytes: int | None


def peak_memory(network: str, batch: int, contender: str) -> Peak:
    """Return the peak of a process that trains some steps on the whole training set.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", network, str(batch), contender]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        last = result.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"a process that trains it alone, to measure its memory, failed: {last}")
    return Peak(**json.loads(result.stdout))


def _train(network: str, batch: int, contender: str) -> None:
    from benchmarks.cases import FULL_SET, TrainingCase
    from benchmarks.checks import first_batches
    from benchmarks.contenders import contenders
    from benchmarks.laboratory import training_task

    one = contenders()[contender]
    # All images, of which the data are made; few updates, after which nothing grows any more.
    task = training_task(TrainingCase(network, batch), math.ceil(FULL_SET / batch))
    one.training(task).updates(first_batches(task))
    json.dump(asdict(Peak(own_peak_bytes(), one.peak_device_bytes())), sys.stdout)


def own_peak_bytes() -> int:
    """Return the peak of resident memory of this process.

    Linux lets a process inherit `ru_maxrss` from the one that started it, whatever its own size;
    what it says under /proc begins anew with the program.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        # Bytes on macOS.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
    kibibytes, _ = fields["VmHWM"].split()
    return int(kibibytes) * 1024


if __name__ == "__main__":
    _train(sys.argv[1], int(sys.argv[2]), sys.argv[3])

"""How much memory does a training take? Measured in a fresh process, which does nothing else.

    python -m benchmarks.memory two-layer 512 numba

The peak includes the interpreter, the libraries and the training set, as a user's process would.
"""

import json
import resource
import subprocess
import sys

from benchmarks.host import ROOT

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def peak_bytes(network: str, batch: int, contender: str) -> int:
    """Return the peak of resident memory of a process that trains some steps.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", network, str(batch), contender]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip()}")
    return int(json.loads(result.stdout)["peak_host_bytes"])


def _train(network: str, batch: int, contender: str) -> None:
    from benchmarks.cases import TrainingCase
    from benchmarks.contenders import contenders
    from benchmarks.laboratory import training_task

    case = TrainingCase(network, batch)
    contenders()[contender].training(training_task(case, min(case.steps, 50))).run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    json.dump({"peak_host_bytes": peak}, sys.stdout)


if __name__ == "__main__":
    _train(sys.argv[1], int(sys.argv[2]), sys.argv[3])

"""Changed files lead to one line of error: no traceback, no hang, no huge allocation.

CI runs a fixed number of cases with fixed seeds. `pytest tests/fuzz --fuzz-minutes 60`, or `nox -s
fuzz`, divides this time among the targets and starts from a new seed.
"""

import subprocess
import sys
import time

import pytest

from tests.fuzz.targets import TARGETS
from tests.support.command_line import ROOT, environment


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory needs /proc")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.timeout(0)
def test_changed_files_are_read_or_refused_in_one_line(target, tmp_path, request):
    minutes = request.config.getoption("--fuzz-minutes")
    arguments = []
    if minutes:
        seconds = 60 * minutes / len(TARGETS)
        arguments = ["--seconds", str(seconds), "--seed", str(time.time_ns())]
    failed = tmp_path / "failed"
    failed.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", target, failed, *arguments],
        cwd=ROOT,
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""A pytest plugin: a worker whose GPU has failed ends, and pytest-xdist starts a new one.

After an error such as an illegal address, every later call of the same process fails, so all other
tests of the worker would fail, too. The test is reported as one that crashed its worker; its error
is in the log.
"""

import os
import sys

import cupy
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Wait for the GPU after each phase of a test; end the process if the GPU has failed."""
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except Exception as error:  # CuPy's class of errors depends on the call
        text = call.excinfo.getrepr(style="short") if call.excinfo else "the test itself succeeded"
        print(f"\n{item.nodeid}: the GPU failed: {error}\n{text}", file=sys.stderr, flush=True)
        os._exit(1)

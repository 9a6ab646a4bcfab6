"""Facts of a machine on systems without POSIX functions."""

import os

from benchmarks import host


def test_missing_functions_leave_facts_unknown(monkeypatch):
    """Windows has none of these functions."""
    for name in ("sysconf", "getloadavg", "sched_getaffinity"):
        monkeypatch.delattr(os, name)
    assert host._memory_bytes() is None
    assert host._load_average() == ()
    assert host.usable_cores() == os.cpu_count()

"""Worker threads stay off the core of their caller."""

import os
import threading

import numpy as np
import pytest

from backends.numba import placement
from backends.numba.placement import Placement
from backends.numba.threads import WorkerPool

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the system cannot bind threads to cores, or this process has only one",
)


@pytest.fixture
def core(monkeypatch):
    """Return a list with the number of the caller's core; tests change it."""
    current = [min(os.sched_getaffinity(0))]
    monkeypatch.setattr(placement, "_current_core", lambda: lambda: current[0])
    return current


def _cores_of_worker(pool):
    return pool.executor(1).submit(os.sched_getaffinity, 0).result()


def test_worker_may_use_all_cores_but_that_of_its_caller(core):
    allowed, pool = os.sched_getaffinity(0), WorkerPool()
    assert _cores_of_worker(pool) == allowed - {core[0]}
    core[0] = max(allowed)
    assert _cores_of_worker(pool) == allowed - {core[0]}
    assert os.sched_getaffinity(0) == allowed


def test_worker_of_a_caller_with_one_core_shares_it():
    """The caller is bound to one core before the worker starts, and after."""
    allowed, pool, seen = os.sched_getaffinity(0), WorkerPool(), []

    def call():
        os.sched_setaffinity(0, {min(allowed)})
        seen.extend(_cores_of_worker(pool) for _ in range(2))

    caller = threading.Thread(target=call)
    caller.start()
    caller.join()
    assert seen == [{min(allowed)}] * 2


def test_system_that_forbids_placement_costs_no_result(core, monkeypatch):
    def refuse(thread, cores):
        raise PermissionError("not permitted")

    pool = WorkerPool()
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    for core[0] in sorted(os.sched_getaffinity(0)):
        assert pool.executor(1).submit(np.sum, [1, 2]).result() == 3


def test_systems_without_numbers_of_cores_change_nothing(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    workers = Placement(1)
    workers.add_worker()
    workers.leave_core()

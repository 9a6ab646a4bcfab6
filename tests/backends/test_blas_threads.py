"""One owner of the process-wide limit of BLAS threads."""

import threading
from itertools import permutations

import pytest

from backends.numpy.backend import NumpyBackend
from backends.numpy.blas_threads import BLAS_THREADS, BlasThreads


class Library:
    num_threads = 8

    def set_num_threads(self, threads: int) -> None:
        self.num_threads = threads


@pytest.fixture
def owner() -> BlasThreads:
    """An owner of two libraries."""
    owner = BlasThreads()
    owner._libraries = [Library(), Library()]
    return owner


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_overlapping_limits_may_end_in_any_order(
    owner: BlasThreads, order: tuple[int, ...]
) -> None:
    limits = (4, 1, 2)
    blocks = [owner.limit(limit) for limit in limits]
    for block, expected in zip(blocks, (4, 1, 1), strict=True):
        block.__enter__()
        assert owner._current() == [expected] * 2
        assert owner.default() == 8
    active = set(range(3))
    for ended in order:
        blocks[ended].__exit__(None, None, None)
        active.remove(ended)
        assert owner._current() == [min((limits[i] for i in active), default=8)] * 2


def test_no_limit_changes_nothing(owner: BlasThreads) -> None:
    with owner.limit(1), owner.limit(None):
        assert owner._current() == [1, 1]
    with owner.limit(None):
        assert owner._current() == [8, 8]


def test_overlapping_computations_of_threads_restore_the_number() -> None:
    backend, limited = NumpyBackend(), NumpyBackend()
    limited.threads = 1
    before = backend.max_threads
    both = threading.Barrier(2)

    def compute(mine: NumpyBackend, *, first: bool) -> None:
        with mine.computation(frozenset()):
            both.wait()
            if not first:
                both.wait()
        if first:
            both.wait()

    threads = [
        threading.Thread(target=compute, args=(limited,), kwargs={"first": first})
        for first in (True, False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.max_threads == before


def test_limit_holds_in_every_thread() -> None:
    """It does not matter which thread has set a limit first."""
    backend = NumpyBackend()
    backend.threads = 1
    found = []

    def compute() -> None:
        with backend.computation(frozenset()):
            found.append(BLAS_THREADS._current())

    for _ in range(2):
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
        compute()
    assert {number for numbers in found for number in numbers} <= {1}

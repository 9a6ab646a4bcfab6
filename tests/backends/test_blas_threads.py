"""One owner of the process-wide limit of BLAS threads."""

import threading
from itertools import permutations

import numpy as np
import pytest

from backends import Availability, get_backend
from backends.numpy.backend import NumpyBackend
from backends.numpy.blas_threads import BLAS_THREADS, BlasThreads
from mnist_accel.commands import main
from mnist_accel.diagnostics.checks import computation

OPERATIONS = frozenset({"linear"})


class Library:
    num_threads = 8

    def set_num_threads(self, threads: int) -> None:
        self.num_threads = threads


@pytest.fixture
def owner() -> BlasThreads:
    """An owner of two libraries."""
    owner = BlasThreads()
    owner._libraries = [Library(), Library()]
    owner._is_limitable = True
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
        with mine.computation(OPERATIONS):
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
        with backend.computation(OPERATIONS):
            found.append(BLAS_THREADS._current())

    for _ in range(2):
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
        compute()
    assert {number for numbers in found for number in numbers} <= {1}


def test_code_without_operations_of_blas_limits_nothing() -> None:
    """Compiled steps call no BLAS, and setting a limit takes time in each chunk."""
    backend = NumpyBackend()
    backend.threads = 1
    before = BLAS_THREADS._current()
    with backend.computation(frozenset()):
        assert BLAS_THREADS._current() == before


ACCELERATE = {"Build Dependencies": {"blas": {"name": "accelerate", "version": "unknown"}}}


@pytest.fixture
def on_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate NumPy's wheels for Macs, whose BLAS has no function to limit its threads."""
    monkeypatch.setattr(np, "show_config", lambda mode: ACCELERATE)
    monkeypatch.setattr("backends.numpy.backend.BLAS_THREADS", BlasThreads())


@pytest.mark.usefixtures("on_accelerate")
def test_blas_that_cannot_be_limited_is_named() -> None:
    """SciPy's BLAS, which can be limited, is another one."""
    assert get_backend("numpy").max_threads is None
    with pytest.warns(UserWarning, match="threads=1 cannot limit .* accelerate, has no function"):
        backend = get_backend("numpy", threads=1)
    with backend.computation(OPERATIONS):
        pass
    (found,) = computation.blas()
    assert (found.name, found.status) == ("NumPy's BLAS", "ok")
    assert found.detail.startswith("accelerate, which chooses its number of threads itself")


@pytest.mark.filterwarnings("default:--threads")
@pytest.mark.usefixtures("on_accelerate")
@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_training_says_that_threads_are_not_limited(tmp_path, monkeypatch, capsys, backend):
    unavailable = Availability(ok=False, reason="it is not installed", remedy="install it")
    for other in ("numba", "cupy"):
        monkeypatch.setattr(f"backends.{other}.probe.availability", lambda: unavailable)
    flags = ["--dataset", "digits", "--iterations", "2", "--threads", "1", "--quiet"]
    assert main(["train", *flags, "--backend", backend, "--out", str(tmp_path / "run")]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "--threads" in line]
    assert len(warned) == 1
    assert warned[0].startswith("warning: --threads ")
    assert " limit the backend numpy" in warned[0]

"""Overridden operations: same signature, same results, and the fast kernel runs."""

import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import OPTIMIZERS, Backend, get_backend
from backends.cupy.backend import CupyBackend
from backends.numba.backend import NumbaBackend
from backends.numpy.backend import NumpyBackend
from backends.torch.backend import TorchBackend
from tests.support.closeness import assert_close
from tests.support.operation_examples import Example, call, examples
from tests.support.strict_backend import StrictBackend

CLASSES = [NumpyBackend, NumbaBackend, CupyBackend, StrictBackend, TorchBackend]
COMPILED = [
    "conv2d",
    "conv2d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
]


def overridden(backend_class: type[Backend]) -> list[str]:
    """Return the methods of `Backend` that a subclass, or one of its bases, overrides."""
    return [
        name
        for name, method in inspect.getmembers(Backend, callable)
        if not name.startswith("__") and getattr(backend_class, name) != method
    ]


@pytest.fixture(scope="module")
def numba() -> NumbaBackend:
    backend = get_backend("numba")
    assert isinstance(backend, NumbaBackend)
    return backend


# ------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("backend_class", CLASSES)
def test_overrides_keep_the_signature(backend_class: type[Backend]) -> None:
    assert overridden(backend_class)
    for name in overridden(backend_class):
        ours, theirs = (
            [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(getattr(owner, name)).parameters.values()
            ]
            for owner in (backend_class, Backend)
        )
        assert ours == theirs, name


def test_plug_in_overrides_only_the_abstract_methods() -> None:
    assert StrictBackend.__mro__[1] is Backend
    assert set(overridden(StrictBackend)) == Backend.__abstractmethods__


def test_torch_overrides_no_operation() -> None:
    assert set(overridden(TorchBackend)) == {*Backend.__abstractmethods__, "computation"}


def test_plug_in_is_short() -> None:
    source = Path(inspect.getfile(StrictBackend)).read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 55


# ---------------------------------------------------------------------------------- results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [0, 1, 17])
def test_overrides_agree_with_the_composed_operations(
    backend: Backend, dtype: str, batch: int
) -> None:
    names = overridden(type(backend))
    for example in examples(dtype, batch):
        if example.operation not in names:
            continue
        composed = getattr(Backend, example.operation).__get__(backend)
        expected = call(example, backend, operation=composed)
        for got, want in zip(call(example, backend), expected, strict=True):
            assert_close(got, want, dtype=dtype, terms=2 * example.terms, label=str(example))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sum_of_taps_agrees_with_the_composed_one(dtype: str) -> None:
    backend = NumpyBackend()
    rng = np.random.default_rng(9)
    x = rng.standard_normal((3, 2, 9, 8)).astype(dtype)
    weight = rng.standard_normal((4, 2, 3, 3)).astype(dtype)
    for stride, padding, output in [(1, 0, (7, 6)), (2, 1, (5, 4))]:
        settings = {"output": output, "stride": stride, "padding": padding}
        got = backend._sum_taps(x, weight, **settings)
        want = Backend._sum_taps(backend, x, weight, **settings)
        assert_close(got, want, dtype=dtype, terms=2 * 18)


# ----------------------------------------------------------------------------- which code runs


def fail_if_called(*args: Any, **options: Any) -> None:
    raise AssertionError("this function must not be called")


def is_compiled(example: Example) -> bool:
    """Return whether `NumbaBackend` has a kernel for a call."""
    has_kernel = example.operation in COMPILED
    return has_kernel and ("conv2d" not in example.operation or example.settings["stride"] == 1)


def test_numba_runs_the_compiled_kernels(
    numba: NumbaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    run = numba._run

    def record(kernel: Callable[..., None], *arrays: Any, **limits: Any) -> None:
        used.append(kernel.__name__.replace("max_pool_2x2", "max_pool2d"))
        run(kernel, *arrays, **limits)

    monkeypatch.setattr(numba, "_run", record)
    for name in COMPILED:
        owner = next(base for base in NumpyBackend.__mro__ if name in vars(base))
        monkeypatch.setattr(owner, name, fail_if_called)
    found = [example for example in examples("float32", 17) if is_compiled(example)]
    for example in found:
        call(example, numba)
    assert used == [example.operation for example in found]
    assert set(used) == set(COMPILED)


def test_numba_uses_the_composed_operations_for_other_strides(
    numba: NumbaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba, "_run", fail_if_called)
    found = [
        example
        for example in examples("float32", 17)
        if example.operation in COMPILED and not is_compiled(example)
    ]
    assert {example.operation for example in found} == {"conv2d", "conv2d_backward"}
    for example in found:
        first, *_ = call(example, numba)
        assert first is not None or not example.settings["need_dx"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_of_any_arrays_agree_with_the_composed_ones(
    numba: NumbaBackend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rule = OPTIMIZERS[name](weight_decay=0.1)

    def results(backend: Backend, step: int = 1) -> list[Any]:
        rng = np.random.default_rng(3)
        arrays = [np.abs(rng.standard_normal(300)).astype("float32")[::step] for _ in range(4)]
        state = dict(zip(rule.state_names, arrays[2:], strict=False))
        backend.update(rule, arrays[0], arrays[1], state, lr=0.1, step=2)
        return arrays

    for step in (1, 3):  # arrays that are not contiguous are updated without kernel
        for got, expected in zip(results(numba, step), results(NumpyBackend(), step), strict=True):
            assert_close(got, expected, dtype="float32", terms=4)
    monkeypatch.setattr(type(rule), "apply", fail_if_called)
    results(numba)


# ----------------------------------------------------------------------- tiles, threads, cache


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("images", [0, 1, 16, 17, 40, 200])
def test_threads_divide_the_tiles_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, threads: int, images: int
) -> None:
    backend = NumbaBackend()
    monkeypatch.setattr(backend, "threads", threads)
    done: list[int] = []
    workers: set[int] = set()
    ranges = min(threads, -(-images // 16))
    barrier = threading.Barrier(max(1, ranges), timeout=20)

    def kernel(batch: Any, first: int, last: int) -> None:
        barrier.wait()
        workers.add(threading.get_ident())
        done.extend(range(first, last))

    backend._run(kernel, np.zeros((images, 1)))
    assert sorted(done) == list(range(-(-images // 16)))
    assert len(workers) == max(1, ranges)


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = NumbaBackend()
    monkeypatch.setattr(backend, "threads", 2)

    def kernel(batch: Any, first: int, last: int) -> None:
        if first:
            raise MemoryError("no memory for the second tile")

    with pytest.raises(MemoryError, match="second tile"):
        backend._run(kernel, np.zeros((32, 1)))


def test_concurrent_calls_give_the_same_results(numba: NumbaBackend) -> None:
    rng = np.random.default_rng(10)
    weight = rng.standard_normal((4, 1, 3, 3)).astype("float32")
    batches = [rng.standard_normal((70, 1, 14, 14)).astype("float32") for _ in range(24)]

    def work(x: Any) -> list[Any]:
        y = numba.conv2d(x, weight, None, stride=1, padding=1)
        pooled, mask = numba.max_pool2d(y, size=2, stride=2, ties="first")
        dy = numba.max_pool2d_backward(pooled, mask, x_shape=y.shape, size=2, stride=2)
        return [*numba.conv2d_backward(dy, x, weight, stride=1, padding=1, need_dx=True), pooled]

    expected = [work(x) for x in batches]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(work, batches))
    for one, other in zip(got, expected, strict=True):
        for array, want in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, want)


# Runs every example in a new process, and prints for each kernel how often it was loaded from disk
# and how often it was compiled.
COUNT_COMPILATIONS = """
from numba.core.dispatcher import Dispatcher
from tests.support.operation_examples import call, examples
from backends import get_backend
from backends.numba.kernels import convolution, losses, pooling, updates

numba = get_backend("numba")
for example in examples("float32", 17):
    call(example, numba)
found = {**vars(convolution), **vars(pooling), "update": updates.update}
found["loss"] = losses.mean_softmax_cross_entropy
for name, kernel in found.items():
    if isinstance(kernel, Dispatcher) and not name.startswith("_"):
        stats = kernel.stats
        print(name, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_a_second_process_compiles_nothing(numba: NumbaBackend) -> None:
    for example in examples("float32", 17):
        call(example, numba)  # compiles what is not on disk yet
    result = subprocess.run(
        [sys.executable, "-c", COUNT_COMPILATIONS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    counts = {name: counts for name, *counts in map(str.split, result.stdout.splitlines())}
    # The gradients of a convolution are two kernels, of which `conv2d` is one.
    others = {"conv2d_wgrad", "max_pool_2x2", "max_pool_2x2_backward", "loss", "update"}
    assert counts.keys() == {*COMPILED, *others} - {"conv2d_backward"}
    for name, (hits, misses) in counts.items():
        assert int(hits) > 0, name
        assert int(misses) == 0, name


NUMBA_AND_AUTO = """
from backends import available_backends, get_backend
print(available_backends()["numba"].ok, get_backend("auto").name)
"""


@pytest.mark.slow
def test_numba_works_without_a_writable_cache_and_warns_once(tmp_path: Path) -> None:
    """Put files in place of the cache folders, so that not even root can write there."""
    package = Path(inspect.getfile(Backend)).parent
    copy = tmp_path / "installed" / "backends"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "numba" / "kernels" / "__pycache__").write_text("")
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": os.devnull,
        "XDG_CACHE_HOME": os.devnull,
    }
    environment.pop("NUMBA_CACHE_DIR", None)

    def numba_and_auto(**settings: str) -> tuple[str, str]:
        result = subprocess.run(
            [sys.executable, "-c", NUMBA_AND_AUTO],
            cwd=tmp_path,
            env={**environment, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip(), result.stderr

    answer, warning = numba_and_auto()
    assert answer == "True numba"
    assert warning.count("Warning") == 1
    assert "NUMBA_CACHE_DIR" in warning
    cache = str(tmp_path / "cache")
    answer, message = numba_and_auto(NUMBA_CACHE_DIR=cache)
    assert answer == "True numba"
    assert "Warning" not in message

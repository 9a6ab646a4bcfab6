"""The contract: properties of every operation of every backend.

Authors of other backends can run this suite: the fixture `backend` includes every installed backend
with an entry point in the group `mnist_accel.backends`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from backends import ACTIVATIONS, LOSSES, OPTIMIZERS, Backend
from backends.operations.common import Operations
from tests.support.closeness import assert_close
from tests.support.operation_examples import Example, call, examples
from tests.support.reference_operations import expected_results

BATCHES = (1, 17)  # a Numba kernel gives one thread at most 16 images
OPERATIONS = sorted(
    {
        name
        for base in Backend.__mro__
        if issubclass(base, Operations) and base not in (Backend, Operations)
        for name in vars(base)
        if not name.startswith("_")
    }
)
Change = Callable[[Backend, Any], Any]

every_operation = pytest.mark.parametrize("operation", OPERATIONS)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@cache
def cases(operation: str, dtype: str, batch: int) -> list[tuple[Example, list[Any]]]:
    """Return the examples of an operation with their expected results, which are cached."""
    found = [example for example in examples(dtype, batch) if example.operation == operation]
    # The reference does not support empty batches.
    return [(example, expected_results(example) if batch else []) for example in found]


def test_every_operation_has_an_example() -> None:
    found = examples("float32", 1)
    assert {example.operation for example in found} == set(OPERATIONS)
    kinds = {example.settings["kind"] for example in found if "kind" in example.settings}
    assert kinds == ACTIVATIONS.keys() | LOSSES.keys()
    rules = {type(example.settings["rule"]) for example in found if "rule" in example.settings}
    assert rules == {rule for rule in OPTIMIZERS.values() if isinstance(rule, type)}


@every_operation
@both_dtypes
@pytest.mark.parametrize("batch", BATCHES)
def test_operation_agrees_with_the_reference(
    backend: Backend, operation: str, dtype: str, batch: int
) -> None:
    for example, expected in cases(operation, dtype, batch):
        results = call(example, backend)
        for got, want in zip(results, expected, strict=True):
            assert_close(got, want, dtype=dtype, terms=example.terms, label=str(example))
            assert got is None or got.dtype.kind != "f" or got.dtype == dtype, str(example)


@every_operation
def test_empty_batch_gives_empty_results_and_zero_gradients(
    backend: Backend, operation: str
) -> None:
    for example, _ in cases(operation, "float32", 0):
        for result in call(example, backend):
            assert result is None or not result.any(), str(example)


@every_operation
def test_repeated_call_returns_the_same_bits_and_keeps_its_arguments(
    backend: Backend, operation: str
) -> None:
    for example, _ in cases(operation, "float32", 17):
        arrays = example.device_arrays(backend)
        first = call(example, backend, arrays=arrays)
        for name, host in example.arrays.items():
            if host is not None and name not in example.changes:
                np.testing.assert_array_equal(backend.to_numpy(arrays[name]), host, str(example))
        for one, other in zip(first, call(example, backend), strict=True):
            np.testing.assert_array_equal(one, other, str(example))


def strided(backend: Backend, host: Any) -> Any:
    """Return a copy of `host` on the device whose last axis has a stride of two elements."""
    wide = np.zeros((*host.shape[:-1], 2 * host.shape[-1]), host.dtype)
    wide[..., ::2] = host
    return backend.asarray(wide)[..., ::2]


def reversed_axes(backend: Backend, host: Any) -> Any:
    """Return a copy of `host` on the device whose axes are in reverse order in memory."""
    axes = tuple(reversed(range(host.ndim)))
    return backend.xp.permute_dims(backend.asarray(host.transpose(axes)), axes)


@every_operation
@pytest.mark.parametrize("change", [strided, reversed_axes])
def test_memory_layout_of_arguments_does_not_change_results(
    backend: Backend, operation: str, change: Change
) -> None:
    for example, expected in cases(operation, "float64", 17):
        arrays = example.device_arrays(backend)
        for name, host in example.arrays.items():
            if host is not None:
                arrays[name] = change(backend, host)
        for got, want in zip(call(example, backend, arrays=arrays), expected, strict=True):
            assert_close(got, want, dtype="float64", terms=example.terms, label=str(example))


@every_operation
def test_mixed_dtypes_are_refused(backend: Backend, operation: str) -> None:
    for example, _ in cases(operation, "float32", 1):
        floats = [
            name
            for name, array in example.arrays.items()
            if array is not None and array.dtype.kind == "f" and name != "images"
        ]
        for name in floats if len(floats) > 1 else ():
            array = example.arrays[name]
            assert array is not None
            mixed = replace(example, arrays={**example.arrays, name: array.astype("float64")})
            with pytest.raises(TypeError, match=r"float32.*convert one of them"):
                call(mixed, backend)


def test_gather_batch_refuses_images_of_another_dtype(backend: Backend) -> None:
    images, indices = backend.zeros((2, 3), dtype="float64"), backend.asarray(np.arange(2))
    with pytest.raises(TypeError, match=r"uint8 or float32, got .*float64"):
        backend.gather_batch(images, indices, dtype="float32", shift=0.0)
    with pytest.raises(ValueError, match="unknown dtype 'int32'; choose from float32, float64"):
        backend.gather_batch(images, indices, dtype="int32", shift=0.0)
    with pytest.raises(TypeError, match="dtype must be one of float32, float64, got None"):
        backend.gather_batch(images, indices, dtype=None, shift=0.0)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_arrays_are_copied_between_host_and_device(backend: Backend, dtype: str) -> None:
    host = np.arange(6).reshape(2, 3).astype(dtype)
    kept = host.copy()
    array = backend.asarray(host.T)
    host[...] = 0
    first = backend.to_numpy(array)
    assert first.dtype == dtype
    np.testing.assert_array_equal(first, kept.T)
    first[...] = 0
    np.testing.assert_array_equal(backend.to_numpy(array), kept.T)


def test_device_info_names_device_and_libraries(backend: Backend) -> None:
    info = backend.device_info()
    assert info.name
    assert info.memory_total_bytes is None or info.memory_total_bytes > 0
    assert info.libraries, "DeviceInfo.libraries must name at least one library, got none"
    assert all(info.libraries.values()), f"every library needs a version, got {info.libraries}"
    backend.synchronize()

"""Operations of the CuPy backend on the emulator: which kernels they launch, and how.

The contract tests compare the results of these kernels with the reference, as the backend
`cupy-emulated`.
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import SGD, Backend
from backends.cupy.launch import convolution, wgrad_update
from backends.cupy.launch.convolution import MAX_KERNEL_SIZE
from backends.cupy.loader import KernelCompileError, Kernels, source
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.every_kernel import KERNELS_OF_OPERATION, expected_launches
from tests.support.operation_examples import call, examples

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).parents[2]


def refuse(*args: Any, **options: Any) -> None:
    raise AssertionError("must not be called")


def test_operations_launch_their_kernels(
    emulated: EmulatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No composed default may run.
    for name in KERNELS_OF_OPERATION:
        owner = next(base for base in Backend.__mro__ if name in vars(base))
        monkeypatch.setattr(owner, name, refuse)
    launched = emulated.emulator.launched
    found = [example for example in examples("float32", 3) if expected_launches(example)]
    assert {example.operation for example in found} == set(KERNELS_OF_OPERATION)
    for example in found:
        launched.clear()
        call(example, emulated)
        assert launched == expected_launches(example), str(example)


def test_calls_without_a_kernel_use_the_composed_default(emulated: EmulatedBackend) -> None:
    launched = emulated.emulator.launched
    launched.clear()
    for example in examples("float32", 3):
        if not expected_launches(example):
            call(example, emulated)
    x, weight = np.ones((1, 1, 40, 40)), np.ones((1, 1, 33, 33))
    assert weight.shape[2] > MAX_KERNEL_SIZE
    y = emulated.conv2d(x, weight, None, stride=1, padding=0)
    np.testing.assert_array_equal(y, np.full((1, 1, 8, 8), 33.0**2))
    wide = np.ones((2, 8))  # every second column of it is not contiguous
    emulated.update(SGD(), wide[:, ::2], np.ones((2, 4)), {}, lr=0.5, step=1)
    assert wide.tolist() == [[0.5, 1.0] * 4] * 2
    assert launched == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_are_scaled_with_the_rounding_of_a_division(
    emulated: EmulatedBackend, dtype: str
) -> None:
    pixels = np.arange(256, dtype=np.uint8)[None]
    batch = emulated.gather_batch(pixels, np.zeros(1, np.int64), dtype=dtype, shift=0.0)
    np.testing.assert_array_equal(batch, pixels.astype(dtype) / np.dtype(dtype).type(255))


@pytest.mark.parametrize("order", [ThreadOrder.DESCENDING, ThreadOrder.RANDOM])
def test_thread_order_does_not_change_a_bit(
    emulated: EmulatedBackend, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for example in examples("float32", 17):
        if not expected_launches(example):
            continue
        expected = call(example, emulated)
        monkeypatch.setattr(emulated.emulator, "order", order)
        for seed in (1, 2):
            monkeypatch.setattr(emulated.emulator, "seed", seed)
            for got, want in zip(call(example, emulated), expected, strict=True):
                np.testing.assert_array_equal(got, want, str(example))
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("images", "channels", "filters", "kernel_size"),
    [(7, 3, 6, 2), (70, 4, 7, 5), (9, 1, 5, 7)],
)
def test_division_of_convolutions_does_not_change_results(
    emulated: EmulatedBackend,
    images: int,
    channels: int,
    filters: int,
    kernel_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Filters and channels per thread do not change a bit; images per block change the rounding."""
    rng = np.random.default_rng(3)
    settings = {"stride": 1, "padding": 2}
    x = rng.standard_normal((images, channels, 8, 9))
    weight = rng.standard_normal((filters, channels, kernel_size, kernel_size))
    bias = rng.standard_normal(filters)
    y = emulated.conv2d(x, weight, bias, **settings)
    dy = rng.standard_normal(y.shape)
    expected = y, *emulated.conv2d_backward(dy, x, weight, **settings, need_dx=True)
    monkeypatch.setattr(convolution, "TARGET_THREADS", 1)
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", 100)
    emulated.emulator.launched.clear()
    got = emulated.conv2d(x, weight, bias, **settings)
    assert_same_bits([got], expected[:1])
    dx, dweight, dbias = emulated.conv2d_backward(dy, x, weight, **settings, need_dx=True)
    assert_same_bits([dx], expected[1:2])
    np.testing.assert_allclose(dweight, expected[2], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dbias, expected[3], rtol=1e-10, atol=1e-10)
    assert not np.array_equal(dweight, expected[2])  # the order of summation was different


# ----------------------------------------------------------------------------------------- loader


def test_operations_without_a_kernel_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmulatedCupy, "RawModule", refuse)
    backend = EmulatedBackend()
    assert backend.to_numpy(backend.zeros((2,), dtype="float32")).tolist() == [0, 0]


def test_kernel_is_compiled_once_per_set_of_options() -> None:
    kernels = Kernels(EmulatedCupy(Emulator()))
    first = kernels.get("updates", "update", {"RULE": "SGD"}, dtype="float32")
    assert kernels.get("updates", "update", {"RULE": "SGD"}, dtype="float32") is first
    assert kernels.get("updates", "update", {"RULE": "SGD"}, dtype="float64") is not first


def test_compile_error_names_kernel_file_and_options() -> None:
    kernels = Kernels(EmulatedCupy(Emulator()))
    with pytest.raises(KernelCompileError) as caught:
        kernels.get("batches", "gather_batch", {"PIXEL": "half_a_byte"}, dtype="float32")
    message = str(caught.value)
    assert "the kernel gather_batch of backends/cupy/kernels/batches.cu" in message
    assert "-DREAL=float -DWARP_SIZE=32 -DPIXEL=half_a_byte" in message
    assert "mnist-accel doctor" in message
    assert "batches.cu:" in message  # the location in the log of the compiler


def test_line_directives_point_to_the_included_files() -> None:
    code = source("batches").splitlines()
    assert code[0] == '#line 1 "batches.cu"'
    place = next(number for number, line in enumerate(code) if line.startswith('#line 1 "common'))
    back = next(line for line in code[place + 1 :] if line.startswith("#line"))
    included = (ROOT / "backends/cupy/kernels/batches.cu").read_text().splitlines()
    number = included.index('#include "common.cuh"') + 1
    assert back == f'#line {number + 1} "batches.cu"'


@pytest.mark.slow
def test_wheel_contains_the_kernels(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--quiet", "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    kernels = ROOT / "backends" / "cupy" / "kernels"
    files = {str(path.relative_to(ROOT)) for path in kernels.rglob("*.cu*")}
    assert len(files) > 5
    assert files <= packed
    assert not any(name.startswith("tests") for name in packed)

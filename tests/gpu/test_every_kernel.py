"""Every kernel gives the same bits in each thread order and run, and accesses only its memory.

The tests fail if a kernel is missing from `tests/support/every_kernel.py`.
"""

import numpy as np
import pytest

from backends import Backend
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.cuda_emulator.sanitizer import run_under_sanitizer
from tests.support.every_kernel import ALL_KERNELS, results_of_every_kernel, results_on


@pytest.mark.emulated
def test_thread_order_does_not_change_a_bit() -> None:
    expected = results_of_every_kernel(Emulator())
    assert all(np.isfinite(array).all() for array in expected)
    for order in (ThreadOrder.DESCENDING, ThreadOrder.RANDOM):
        emulator = Emulator(order, seed=5)
        assert_same_bits(results_of_every_kernel(emulator), expected)
        assert set(emulator.launched) == ALL_KERNELS


UNDER_SANITIZER = """
from tests.support.cuda_emulator.raw_module import Emulator
from tests.support.every_kernel import results_of_every_kernel

emulator = Emulator(sanitize=True)
results_of_every_kernel(emulator)
print(*sorted(set(emulator.launched)))
"""


@pytest.mark.emulated
def test_no_kernel_accesses_memory_out_of_bounds() -> None:
    result = run_under_sanitizer(UNDER_SANITIZER)
    assert result.stdout.split() == sorted(ALL_KERNELS), result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_results_on_a_gpu_repeat_bit_for_bit(backend: Backend) -> None:
    assert_same_bits(results_on(backend), results_on(backend))

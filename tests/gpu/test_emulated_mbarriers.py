"""The emulator runs mbarriers and asynchronous stores, and detects faulty uses of them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.cupy.kernel import Kernel
from backends.cupy.loader import options_for, with_includes
from backends.cupy.signature import parameters
from tests.support.cuda_emulator.raw_module import EmulationError, Emulator, RawModule, ThreadOrder

pytestmark = pytest.mark.emulated

FILE = Path(__file__).parents[1] / "support" / "cuda_emulator" / "faulty_mbarriers.cu"
SOURCE = with_includes(FILE.read_text(encoding="utf-8"), FILE.name)
BLOCKS = 8
every_order = pytest.mark.parametrize("order", ThreadOrder)


def launch(kernel: str, order: ThreadOrder, seed: int, **arguments: Any) -> None:
    options = options_for("float32")
    module = RawModule(code=SOURCE, options=options, emulator=Emulator(order, seed=seed))
    declared = parameters(SOURCE, kernel, {"REAL": "float"})
    Kernel(kernel, module.get_function(kernel), declared)((BLOCKS,), 32, **arguments)


def reduces_async(order: ThreadOrder, bug: str = "none", *, rounds: int = 4, seed: int = 3) -> bool:
    numbers = np.ones(BLOCKS, np.int32)
    launch("all_reduce_async", order, seed, numbers=numbers, rounds=rounds, bug=bug)
    return numbers.tolist() == [BLOCKS**rounds] * BLOCKS


def reduces_by_arrivals(order: ThreadOrder, bug: str = "none", *, seed: int = 3) -> bool:
    numbers = np.arange(BLOCKS, dtype=np.int32)
    launch("all_reduce_by_arrivals", order, seed, numbers=numbers, bug=bug)
    return numbers.tolist() == [28] * BLOCKS


def problem(order: ThreadOrder, bug: str, **options: Any) -> str:
    """Return the error that a bug gives, or "wrong result"; an empty string if neither."""
    try:
        return "" if reduces_async(order, bug, **options) else "wrong result"
    except EmulationError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
@every_order
def test_correct_kernels_give_correct_results(order: ThreadOrder, seed: int) -> None:
    assert reduces_async(order, seed=seed)
    assert reduces_by_arrivals(order, seed=seed)


@every_order
@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("bug", ["wrong_parity", "missing_wait"])
def test_wait_for_the_wrong_phase_is_detected(bug: str, rounds: int, order: ThreadOrder) -> None:
    assert problem(order, bug, rounds=rounds)


def test_missing_double_buffer_gives_a_wrong_result_in_some_thread_order() -> None:
    assert any(problem(order, "one_buffer") for order in ThreadOrder)


@every_order
@pytest.mark.parametrize("reduces", [reduces_async, reduces_by_arrivals])
def test_missing_arrival_is_reported(reduces: Any, order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"deadlock.*mbarrier\.try_wait in line \d+"):
        reduces(order, "missing_arrival")


@every_order
def test_arrival_before_the_previous_phase_was_awaited_is_reported(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"mbarrier\.arrive in line \d+: a thread arrives"):
        reduces_by_arrivals(order, "not_awaited")


@every_order
def test_barrier_whose_initialization_is_not_visible_is_reported(order: ThreadOrder) -> None:
    reasons = "not initialized|made the initialization of the barrier visible|may not have started"
    with pytest.raises(EmulationError, match=rf"in line \d+: .*({reasons})"):
        reduces_async(order, "not_visible")


@every_order
def test_block_that_ends_before_a_store_into_its_memory_is_reported(order: ThreadOrder) -> None:
    # A random order may end all stores in time.
    problems = [problem(order, "early_exit", seed=seed) for seed in range(8)]
    assert any(re.search(r"in line \d+: .*ended", text) for text in problems)

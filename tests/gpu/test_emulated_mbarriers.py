"""The emulator runs mbarriers and asynchronous stores, and detects faulty uses of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.cupy.loader import options_for, with_includes
from tests.support.cuda_emulator.raw_module import EmulationError, Emulator, RawModule, ThreadOrder

pytestmark = pytest.mark.emulated

FILE = Path(__file__).parents[1] / "support" / "cuda_emulator" / "faulty_mbarriers.cu"
SOURCE = with_includes(FILE.read_text(encoding="utf-8"), FILE.name)
BLOCKS = 8
every_order = pytest.mark.parametrize("order", ThreadOrder)


def launch(kernel: str, *args: Any, bug: str, order: ThreadOrder, seed: int) -> None:
    options = [*options_for("float32"), *([f"-DBUG_{bug}=1"] if bug else [])]
    module = RawModule(code=SOURCE, options=options, emulator=Emulator(order, seed=seed))
    module.get_function(kernel)((BLOCKS,), (32,), args)


def reduces_async(order: ThreadOrder, bug: str = "", *, rounds: int = 4, seed: int = 3) -> bool:
    numbers = np.ones(BLOCKS, np.int32)
    launch("all_reduce_async", numbers, np.int32(rounds), bug=bug, order=order, seed=seed)
    return numbers.tolist() == [BLOCKS**rounds] * BLOCKS


def reduces_by_arrivals(order: ThreadOrder, bug: str = "", *, seed: int = 3) -> bool:
    numbers = np.arange(BLOCKS, dtype=np.int32)
    launch("all_reduce_by_arrivals", numbers, bug=bug, order=order, seed=seed)
    return numbers.tolist() == [28] * BLOCKS


def is_detected(order: ThreadOrder, bug: str, **options: Any) -> bool:
    """Return whether the bug gives an error or a wrong result."""
    try:
        return not reduces_async(order, bug, **options)
    except EmulationError:
        return True


@pytest.mark.parametrize("seed", range(4))
@every_order
def test_correct_kernels_give_correct_results(order: ThreadOrder, seed: int) -> None:
    assert reduces_async(order, seed=seed)
    assert reduces_by_arrivals(order, seed=seed)


@every_order
@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("bug", ["WRONG_PARITY", "MISSING_WAIT"])
def test_wait_for_the_wrong_phase_is_detected(bug: str, rounds: int, order: ThreadOrder) -> None:
    assert is_detected(order, bug, rounds=rounds)


def test_missing_double_buffer_gives_a_wrong_result_in_some_thread_order() -> None:
    assert any(is_detected(order, "ONE_BUFFER") for order in ThreadOrder)


@every_order
@pytest.mark.parametrize("reduces", [reduces_async, reduces_by_arrivals])
def test_missing_arrival_is_reported(reduces: Any, order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"deadlock.*mbarrier\.try_wait in line \d+"):
        reduces(order, "MISSING_ARRIVAL")


@every_order
def test_arrival_before_the_previous_phase_was_awaited_is_reported(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"mbarrier\.arrive in line \d+: a thread arrives"):
        reduces_by_arrivals(order, "NOT_AWAITED")


@every_order
def test_barrier_whose_initialization_is_not_visible_is_reported(order: ThreadOrder) -> None:
    reasons = "not initialized|made the initialization of the barrier visible|may not have started"
    with pytest.raises(EmulationError, match=rf"in line \d+: .*({reasons})"):
        reduces_async(order, "NOT_VISIBLE")


@every_order
def test_block_that_ends_before_a_store_into_its_memory_is_reported(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"in line \d+: .*ended"):
        for seed in range(8):  # a random order may end all stores in time
            reduces_async(order, "EARLY_EXIT", seed=seed)

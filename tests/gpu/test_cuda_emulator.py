"""The emulator runs kernels as a GPU does, and notices what a GPU may not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cuda_emulator.cupy import EmulatedCupy
from tests.support.cuda_emulator.module import (
    CompileException,
    Device,
    EmulationError,
    RawModule,
    ThreadOrder,
)
from tests.support.cuda_emulator.sanitizer import under_sanitizer

pytestmark = pytest.mark.emulated

FILE = Path(__file__).parents[1] / "support" / "cuda_emulator" / "planted.cu"
PLANTED = FILE.read_text(encoding="utf-8")
every_order = pytest.mark.parametrize("order", ThreadOrder)
THREADS = 64


def run(
    kernel: str,
    *args: Any,
    bug: str = "",
    order: ThreadOrder = ThreadOrder.UP,
    grid: int = 1,
    block: int = THREADS,
    cooperative: bool = False,
) -> None:
    """Run a kernel of the file of planted bugs, with one of them or with none."""
    options = [f"-DBUG_{bug}=1"] if bug else []
    module = RawModule(code=PLANTED, options=options, device=Device(order, seed=3))
    function = module.get_function(kernel)
    function.kernel((grid,), (block,), args, enable_cooperative_groups=cooperative)


def reversed_by(bug: str, order: ThreadOrder) -> bool:
    x = np.arange(2 * THREADS, dtype=np.float32)
    y = np.full_like(x, np.nan)
    run("reverse_in_blocks", x, y, bug=bug, order=order, grid=2)
    return np.array_equal(y, x.reshape(2, -1)[:, ::-1].ravel())


def added_up_by_blocks(bug: str, order: ThreadOrder, *, cooperative: bool = True) -> list[int]:
    numbers, told, barrier = np.ones(5, np.int32), np.zeros(10, np.int32), np.zeros(2, np.uint32)
    arguments = numbers, told, np.int32(3), barrier
    run("add_up_across_blocks", *arguments, bug=bug, order=order, grid=5, cooperative=cooperative)
    result: list[int] = numbers.tolist()
    return result


def added_up_by_a_cluster(
    bug: str, order: ThreadOrder = ThreadOrder.UP, **options: Any
) -> list[int]:
    numbers, told = np.ones(8, np.int32), np.zeros(16, np.int32)
    arguments = numbers, told, np.int32(3)
    run("add_up_across_a_cluster", *arguments, bug=bug, order=order, grid=8, **options)
    result: list[int] = numbers.tolist()
    return result


# ------------------------------------------------------------------------ what is right stays right


@every_order
def test_threads_meet_at_barriers(order: ThreadOrder) -> None:
    assert reversed_by("", order)


@every_order
def test_lanes_exchange_numbers(order: ThreadOrder) -> None:
    x = np.random.default_rng(0).standard_normal(3 * 32)
    sums, firsts = np.full(3, np.nan), np.full(3, np.nan)
    run("sum_by_warps", x, sums, firsts, order=order, block=x.size)
    np.testing.assert_allclose(sums, x.reshape(3, 32).sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(firsts, x[::32])


@every_order
def test_shared_memory_is_handed_on_step_by_step(order: ThreadOrder) -> None:
    x = np.random.default_rng(1).standard_normal(THREADS).astype(np.float32)
    y = np.full_like(x, np.nan)
    run("rotate", x, y, np.int32(7), order=order)
    np.testing.assert_array_equal(y, np.roll(x, -7))


@every_order
def test_blocks_of_a_cooperative_launch_wait_for_each_other(order: ThreadOrder) -> None:
    assert added_up_by_blocks("", order) == [125] * 5


@every_order
def test_blocks_of_a_cluster_wait_for_each_other(order: ThreadOrder) -> None:
    assert added_up_by_a_cluster("", order) == [8**3] * 8


@every_order
def test_atomic_sums_are_complete(order: ThreadOrder) -> None:
    counts = np.zeros(1, np.int32)
    run("count_threads", counts, order=order, grid=7)
    assert counts[0] == 7 * THREADS


def test_index_of_every_thread() -> None:
    seen = np.zeros((2, 3, 2, 2, 4, 8), np.int32)
    module = RawModule(code=PLANTED)
    module.get_function("mark_place")((2, 3, 2), (8, 4, 2), (seen,))
    assert (seen == 1).all()


LINE = np.dtype([("slope", "float32"), ("offset", "int32")])


def test_structures_are_handed_over_by_value() -> None:
    y = np.zeros(4, np.float32)
    run("draw", np.array((0.5, 3), LINE), y, block=4)
    assert y.tolist() == [3, 3.5, 4, 4.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2, LINE), np.zeros(4, np.float32)), "expected one structure, got 2"),
        (
            (np.zeros(1, [("x", "int64", 2)]), np.zeros(4, np.float32)),
            "expected 8 bytes, got a",
        ),
        ((np.zeros(1, LINE), np.zeros(1, LINE)), "argument 1: expected a pointer, got a structure"),
    ],
)
def test_wrong_structures_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run("draw", *arguments)


# --------------------------------------------------------------------------------- the planted bugs


def test_missing_barrier_gives_a_wrong_result_in_some_order() -> None:
    assert not all(reversed_by("MISSING_BARRIER", order) for order in ThreadOrder)


def added_up_in_the_last(bug: str, order: ThreadOrder) -> bool:
    x, parts = np.ones(6 * THREADS, np.int32), np.zeros(6 * THREADS, np.int32)
    ticket, total = np.zeros(1, np.int32), np.zeros(1, np.int32)
    run("add_up_in_the_last", x, parts, ticket, total, bug=bug, order=order, grid=6)
    return int(total[0]) == x.sum()


def test_missing_barrier_before_a_ticket_gives_a_wrong_result_in_some_order() -> None:
    assert all(added_up_in_the_last("", order) for order in ThreadOrder)
    assert not all(added_up_in_the_last("MISSING_BARRIER", order) for order in ThreadOrder)


def test_missing_second_buffer_gives_a_wrong_result_in_some_order() -> None:
    x = np.arange(THREADS, dtype=np.float32)
    results = []
    for order in ThreadOrder:
        y = np.full_like(x, np.nan)
        run("rotate", x, y, np.int32(7), bug="ONE_BUFFER", order=order)
        results.append(np.array_equal(y, np.roll(x, -7)))
    assert not all(results)


@every_order
def test_divergent_barrier_is_reported(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"for ever.*__syncthreads in line \d+"):
        reversed_by("DIVERGENT_BARRIER", order)


@every_order
def test_barriers_of_two_branches_are_not_one(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match="for ever"):
        reversed_by("TWO_BARRIERS", order)


@every_order
def test_missing_lane_is_reported(order: ThreadOrder) -> None:
    x = np.ones(32)
    with pytest.raises(EmulationError, match=r"__shfl_xor_sync.* for mask ffffffff"):
        run("sum_by_warps", x, x[:1], x[1:2], bug="MISSING_LANE", order=order, block=32)


def test_lane_outside_of_its_mask_is_reported() -> None:
    x = np.ones(32)
    with pytest.raises(EmulationError, match=r"lane 16 calls .*, of which it is not part"):
        run("sum_by_warps", x, x[:1], x[1:2], bug="WRONG_MASK", block=32)


def test_unwritten_shared_memory_is_nan() -> None:
    x = np.ones(THREADS, np.float32)
    y = np.zeros_like(x)
    run("reverse_in_blocks", x, y, bug="UNWRITTEN")
    assert np.isnan(y).any()


def test_blocks_that_are_not_resident_together_cannot_meet() -> None:
    with pytest.raises(EmulationError, match="what they wait for does not happen"):
        added_up_by_blocks("", ThreadOrder.UP, cooperative=False)


def test_missing_second_buffer_between_blocks_gives_a_wrong_result_in_some_order() -> None:
    results = [added_up_by_blocks("ONE_BUFFER", order) for order in ThreadOrder]
    assert any(result != [125] * 5 for result in results)


def test_missing_second_buffer_in_a_cluster_gives_a_wrong_result_in_some_order() -> None:
    results = [added_up_by_a_cluster("ONE_BUFFER", order) for order in ThreadOrder]
    assert any(result != [8**3] * 8 for result in results)


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("MISSING_BLOCK", r"for ever.*__cluster_barrier_wait in line \d+"),
        ("NOT_ARRIVED", r"__cluster_barrier_wait in line \d+ by a thread that has not arrived"),
        ("ARRIVED_TWICE", "comes twice"),
    ],
)
def test_faults_of_a_cluster_are_reported(bug: str, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        added_up_by_a_cluster(bug)


def test_launches_that_are_no_clusters_are_refused() -> None:
    arguments = np.ones(12, np.int32), np.zeros(16, np.int32), np.int32(3)
    with pytest.raises(EmulationError, match="12 blocks cannot be launched as clusters of 8"):
        run("add_up_across_a_cluster", *arguments, grid=12)
    with pytest.raises(
        EmulationError, match="8 blocks cannot be launched cooperatively as clusters"
    ):
        added_up_by_a_cluster("", cooperative=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4, np.float32), 7), r"argument 1: expected an integer of 4 bytes, got int64"),
        ((np.zeros(4, np.float64), np.int32(7)), r"elements of 4 bytes, got float64"),
        ((np.zeros(4, np.int32), np.int32(7)), r"floating-point elements of 4 bytes, got int32"),
        ((np.zeros(8, np.float32)[::2], np.int32(4)), r"argument 0: the array is not contiguous"),
        ((np.zeros(4, np.float32), np.zeros(1, np.int32)), r"expected a number, got an array"),
        ((np.float32(3), np.int32(7)), r"argument 0: expected an array, got"),
        ((np.zeros(4, np.float32), np.float32(7)), r"expected an integer of 4 bytes, got float32"),
        ((np.zeros(4, np.float32),), r"takes 2 arguments, got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run("fill", *arguments)


@pytest.mark.parametrize(("grid", "block"), [(0, 32), (1, 0), (1, 1025)])
def test_impossible_launches_are_refused(grid: int, block: int) -> None:
    with pytest.raises(EmulationError, match="cannot be launched"):
        run("fill", np.zeros(4, np.float32), np.int32(4), grid=grid, block=block)


def test_an_error_of_the_compiler_is_shown() -> None:
    with pytest.raises(CompileException, match="no_such_function"):
        RawModule(code='extern "C" __global__ void f(int n) { no_such_function(n); }').get_function(
            "f"
        )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda cupy: cupy.empty(1, "float32"), "allocates"),
        (lambda cupy: cupy.zeros(1, "float32"), "allocates"),
        (lambda cupy: cupy.array(np.ones(1)), "allocates"),
        (lambda cupy: cupy.asarray(np.ones(1)), "allocates"),
        (lambda cupy: cupy.ascontiguousarray(np.ones((2, 3)).T), "allocates"),
        (lambda cupy: cupy.asnumpy(np.ones(1)), "copies to the host"),
        (lambda cupy: cupy.cuda.get_current_stream().synchronize(), "waits"),
        (lambda cupy: cupy.cuda.runtime.deviceSynchronize(), "waits"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(act: Any, message: str) -> None:
    cupy = EmulatedCupy(Device())
    act(cupy)
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with pytest.raises(AssertionError, match=f"{message} while a graph is captured"):
        act(cupy)
    stream.end_capture()
    act(cupy)


# ------------------------------------------------------------------------------------ out of bounds

UNDER_SANITIZER = """
import sys
from pathlib import Path
import numpy as np
from tests.support.cuda_emulator.module import Device, RawModule

path, *options = sys.argv[1:]
module = RawModule(
    code=Path(path).read_text(), options=options, device=Device(sanitize=True)
)
x = np.arange(128, dtype=np.float32)
y = np.full_like(x, np.nan)
module.get_function("reverse_in_blocks")((2,), (64,), (x, y))
assert np.array_equal(y, x.reshape(2, -1)[:, ::-1].ravel())
print("done")
"""


@pytest.mark.parametrize(
    ("bug", "report"),
    [
        ("", ""),
        ("BEYOND_THE_ARRAY", "heap-buffer-overflow"),
        ("BEYOND_SHARED_MEMORY", "global-buffer-overflow"),
        ("BEYOND_REGISTERS", "stack-buffer-overflow"),
    ],
)
def test_accesses_out_of_bounds_are_found(bug: str, report: str) -> None:
    result = under_sanitizer(UNDER_SANITIZER, str(FILE), *([f"-DBUG_{bug}=1"] if bug else []))
    assert ("done" in result.stdout) == (not bug), result.stderr
    assert report in result.stderr

"""The emulator computes correct results for correct kernels, and detects faulty kernels."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import (
    CompileException,
    EmulationError,
    Emulator,
    RawModule,
    ThreadOrder,
)
from tests.support.cuda_emulator.sanitizer import run_under_sanitizer

pytestmark = pytest.mark.emulated

FILE = Path(__file__).parents[1] / "support" / "cuda_emulator" / "faulty_kernels.cu"
SOURCE = FILE.read_text(encoding="utf-8")
every_order = pytest.mark.parametrize("order", ThreadOrder)
THREADS = 64


def launch(
    kernel: str,
    *args: Any,
    bug: str = "",
    order: ThreadOrder = ThreadOrder.ASCENDING,
    grid: int = 1,
    block: int = THREADS,
    cooperative: bool = False,
) -> None:
    """Launch a kernel of faulty_kernels.cu, with the named bug or, by default, without a bug."""
    options = [f"-DBUG_{bug}=1"] if bug else []
    module = RawModule(code=SOURCE, options=options, emulator=Emulator(order, seed=3))
    function = module.get_function(kernel)
    function.kernel((grid,), (block,), args, enable_cooperative_groups=cooperative)


# Each of the following functions launches a kernel, and returns whether the result is correct.


def reverses_blocks(order: ThreadOrder, bug: str = "") -> bool:
    x = np.arange(2 * THREADS, dtype=np.float32)
    y = np.full_like(x, np.nan)
    launch("reverse_in_blocks", x, y, bug=bug, order=order, grid=2)
    return np.array_equal(y, x.reshape(2, -1)[:, ::-1].ravel())


def rotates(order: ThreadOrder, bug: str = "") -> bool:
    x = np.random.default_rng(1).standard_normal(THREADS).astype(np.float32)
    y = np.full_like(x, np.nan)
    launch("rotate", x, y, np.int32(7), bug=bug, order=order)
    return np.array_equal(y, np.roll(x, -7))


def sums_in_last_block(order: ThreadOrder, bug: str = "") -> bool:
    x, partial_sums = np.ones(6 * THREADS, np.int32), np.zeros(6 * THREADS, np.int32)
    counter, total = np.zeros(1, np.int32), np.zeros(1, np.int32)
    launch("sum_in_last_block", x, partial_sums, counter, total, bug=bug, order=order, grid=6)
    return int(total[0]) == x.sum()


def all_reduces_grid(order: ThreadOrder, bug: str = "", *, cooperative: bool = True) -> bool:
    numbers, buffers = np.ones(5, np.int32), np.zeros(10, np.int32)
    arguments = numbers, buffers, np.int32(3), np.zeros(2, np.uint32)
    options = {"bug": bug, "order": order, "grid": 5, "cooperative": cooperative}
    launch("all_reduce_grid", *arguments, **options)
    return numbers.tolist() == [5**3] * 5


def all_reduces_cluster(
    order: ThreadOrder = ThreadOrder.ASCENDING, bug: str = "", **options: Any
) -> bool:
    numbers, buffers = np.ones(8, np.int32), np.zeros(16, np.int32)
    arguments = numbers, buffers, np.int32(3)
    launch("all_reduce_cluster", *arguments, bug=bug, order=order, grid=8, **options)
    return numbers.tolist() == [8**3] * 8


def sums_over_cluster(order: ThreadOrder, bug: str = "") -> bool:
    x = np.random.default_rng(1).integers(100, size=(8, THREADS)).astype(np.int32)
    sums = np.zeros_like(x)
    launch("sum_over_cluster", x, sums, bug=bug, order=order, grid=8)
    return np.array_equal(sums, np.tile(x.sum(axis=0)[::-1] + 8, (8, 1)))


def sums_in_first_block(order: ThreadOrder, bug: str = "") -> bool:
    x = np.random.default_rng(1).integers(100, size=(8, THREADS)).astype(np.int32)
    sums = np.zeros(THREADS, np.int32)
    launch("sum_in_first_block", x, sums, bug=bug, order=order, grid=8)
    return np.array_equal(sums, x.sum(axis=0)[::-1])


def multiplies_by_tensor_core(order: ThreadOrder, bug: str = "") -> bool:
    rng = np.random.default_rng(2)
    left = rng.integers(256, size=(16, 16)).astype(np.float32)
    right = rng.integers(-8, 9, size=(16, 8)).astype(np.float32)
    product = np.full((16, 8), np.nan, np.float32)
    launch("multiply_by_tensor_core", left, right, product, bug=bug, order=order, block=32)
    return np.array_equal(product, left @ right)


# -------------------------------------------------------------------------------- correct kernels


@every_order
@pytest.mark.parametrize(
    "is_correct",
    [
        reverses_blocks,
        rotates,
        sums_in_last_block,
        all_reduces_grid,
        all_reduces_cluster,
        sums_over_cluster,
        sums_in_first_block,
        multiplies_by_tensor_core,
    ],
)
def test_correct_kernels_give_correct_results(is_correct: Any, order: ThreadOrder) -> None:
    """The kernels use all barriers and memories of a GPU, double buffers, atomics, tensor cores."""
    assert is_correct(order)


@every_order
def test_warp_shuffles_exchange_numbers(order: ThreadOrder) -> None:
    x = np.random.default_rng(0).standard_normal(3 * 32)
    sums, firsts = np.full(3, np.nan), np.full(3, np.nan)
    launch("sum_by_warps", x, sums, firsts, order=order, block=x.size)
    np.testing.assert_allclose(sums, x.reshape(3, 32).sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(firsts, x[::32])


@every_order
def test_atomic_additions_are_complete(order: ThreadOrder) -> None:
    counts = np.zeros(1, np.int32)
    launch("count_threads", counts, order=order, grid=7)
    assert counts[0] == 7 * THREADS


def test_each_thread_of_a_three_dimensional_launch_runs_once() -> None:
    runs = np.zeros((2, 3, 2, 2, 4, 8), np.int32)
    module = RawModule(code=SOURCE)
    module.get_function("count_runs")((2, 3, 2), (8, 4, 2), (runs,))
    assert (runs == 1).all()


LINE = np.dtype([("slope", "float32"), ("offset", "int32")])


def test_structures_are_passed_by_value() -> None:
    y = np.zeros(4, np.float32)
    launch("draw", np.array((0.5, 3), LINE), y, block=4)
    assert y.tolist() == [3, 3.5, 4, 4.5]


# -------------------------------------------------------------------------------------- data races


@pytest.mark.parametrize(
    ("is_correct", "bug"),
    [
        (reverses_blocks, "MISSING_BARRIER"),
        (sums_in_last_block, "MISSING_BARRIER"),
        (rotates, "ONE_BUFFER"),
        (all_reduces_grid, "ONE_BUFFER"),
        (all_reduces_cluster, "ONE_BUFFER"),
        (sums_over_cluster, "EARLY_ARRIVAL"),
        (sums_in_first_block, "BLOCK_BARRIER"),
    ],
)
def test_data_race_gives_a_wrong_result_in_some_thread_order(is_correct: Any, bug: str) -> None:
    def is_right(order: ThreadOrder) -> bool:
        with suppress(EmulationError):  # an error is detected, too
            return bool(is_correct(order, bug))
        return False

    assert not all(is_right(order) for order in ThreadOrder)


def test_unwritten_shared_memory_is_nan() -> None:
    x = np.ones(THREADS, np.float32)
    y = np.zeros_like(x)
    launch("reverse_in_blocks", x, y, bug="UNWRITTEN")
    assert np.isnan(y).any()


# --------------------------------------------------------------------------------------- deadlocks


@every_order
def test_divergent_barrier_is_reported(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match=r"deadlock.*__syncthreads in line \d+.*end of the"):
        reverses_blocks(order, "DIVERGENT_BARRIER")


@every_order
def test_barriers_in_two_branches_are_different_barriers(order: ThreadOrder) -> None:
    with pytest.raises(EmulationError, match="deadlock"):
        reverses_blocks(order, "TWO_BARRIERS")


@every_order
def test_missing_lane_is_reported(order: ThreadOrder) -> None:
    x = np.ones(32)
    with pytest.raises(EmulationError, match=r"__shfl_xor_sync.* for mask ffffffff"):
        launch("sum_by_warps", x, x[:1], x[1:2], bug="MISSING_LANE", order=order, block=32)


def test_lane_outside_its_mask_is_reported() -> None:
    x = np.ones(32)
    with pytest.raises(EmulationError, match="lane 16 is not in the mask 0000ffff"):
        launch("sum_by_warps", x, x[:1], x[1:2], bug="WRONG_MASK", block=32)


def test_grid_barrier_without_cooperative_launch_is_reported() -> None:
    with pytest.raises(EmulationError, match="poll memory that no running thread changes"):
        all_reduces_grid(ThreadOrder.ASCENDING, cooperative=False)


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("MISSING_BLOCK", r"deadlock.*__cluster_barrier_wait in line \d+"),
        ("NOT_ARRIVED", r"__cluster_barrier_wait in line \d+: the thread has not arrived"),
        ("ARRIVED_TWICE", "arrives at the cluster barrier twice"),
    ],
)
def test_misuse_of_cluster_barriers_is_reported(bug: str, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        all_reduces_cluster(bug=bug)


@every_order
@pytest.mark.parametrize(
    ("kernel", "bug", "reason"),
    [
        (sums_over_cluster, "MISSING_BARRIER", "it may not have started"),
        (sums_over_cluster, "EARLY_EXIT", "it has ended"),
        (sums_over_cluster, "NO_SUCH_BLOCK", "the cluster has no such block"),
        (sums_in_first_block, "MISSING_BARRIER", "it may not have started"),
    ],
)
def test_access_to_shared_memory_of_a_block_that_does_not_run_is_reported(
    kernel: Any, bug: str, reason: str, order: ThreadOrder
) -> None:
    with pytest.raises(EmulationError, match=rf"in line \d+: no access .* block \d: {reason}"):
        kernel(order, bug)


# ------------------------------------------------------------------------------------ tensor cores


def test_sums_of_tensor_cores_are_truncated() -> None:
    """This is the least accurate rounding that the instruction may have."""
    left, right = np.zeros((16, 16), np.float32), np.zeros((16, 8), np.float32)
    left[:, :2], right[0], right[1] = 1, 1, -(2.0**-30)
    product = np.full((16, 8), np.nan, np.float32)
    launch("multiply_by_tensor_core", left, right, product, block=32)
    assert (product == np.nextafter(np.float32(1), np.float32(0))).all()


@pytest.mark.parametrize("bug", ["SWAPPED_REGISTERS", "SWAPPED_HALVES"])
def test_wrong_fragment_layout_gives_a_wrong_result(bug: str) -> None:
    assert not multiplies_by_tensor_core(ThreadOrder.ASCENDING, bug)


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("MISSING_LANE", r"deadlock.*mma\.sync in line \d+ for mask ffffffff"),
        ("OTHER_PRECISION", r"line \d+: the emulator does not support the PTX mma\.sync.*f16"),
    ],
)
def test_misuse_of_tensor_cores_is_reported(bug: str, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        multiplies_by_tensor_core(ThreadOrder.ASCENDING, bug)


# ------------------------------------------------------------------------------- invalid launches


def test_invalid_cluster_launches_are_refused() -> None:
    arguments = np.ones(12, np.int32), np.zeros(16, np.int32), np.int32(3)
    with pytest.raises(EmulationError, match="12 blocks cannot be divided into clusters of 8"):
        launch("all_reduce_cluster", *arguments, grid=12)
    with pytest.raises(EmulationError, match="a cooperative launch cannot have clusters"):
        all_reduces_cluster(cooperative=True)


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
def test_arguments_of_the_wrong_type_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        launch("fill", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2, LINE), np.zeros(4, np.float32)), "expected one structure, got 2"),
        ((np.zeros(1, [("x", "int64", 2)]), np.zeros(4, np.float32)), "expected 8 bytes, got a"),
        ((np.zeros(1, LINE), np.zeros(1, LINE)), "argument 1: expected a pointer, got a structure"),
    ],
)
def test_structures_of_the_wrong_size_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        launch("draw", *arguments)


@pytest.mark.parametrize(("grid", "block"), [(0, 32), (1, 0), (1, 1025)])
def test_launches_beyond_the_limits_are_refused(grid: int, block: int) -> None:
    with pytest.raises(EmulationError, match="invalid launch"):
        launch("fill", np.zeros(4, np.float32), np.int32(4), grid=grid, block=block)


def test_compile_error_contains_the_log() -> None:
    code = 'extern "C" __global__ void f(int n) { no_such_function(n); }'
    with pytest.raises(CompileException, match="no_such_function"):
        RawModule(code=code).get_function("f")


@pytest.mark.parametrize(
    ("act", "action"),
    [
        (lambda cupy: cupy.empty(1, "float32"), "allocation"),
        (lambda cupy: cupy.zeros(1, "float32"), "allocation"),
        (lambda cupy: cupy.array(np.ones(1)), "allocation"),
        (lambda cupy: cupy.asarray(np.ones(1)), "allocation"),
        (lambda cupy: cupy.ascontiguousarray(np.ones((2, 3)).T), "allocation"),
        (lambda cupy: cupy.asnumpy(np.ones(1)), "copy to the host"),
        (lambda cupy: cupy.cuda.get_current_stream().synchronize(), "synchronization"),
        (lambda cupy: cupy.cuda.runtime.deviceSynchronize(), "synchronization"),
    ],
)
def test_actions_that_are_invalid_during_graph_capture_are_refused(act: Any, action: str) -> None:
    cupy = EmulatedCupy(Emulator())
    act(cupy)
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with pytest.raises(AssertionError, match=f"{action} during graph capture"):
        act(cupy)
    stream.end_capture()
    act(cupy)


# ------------------------------------------------------------------------------------ out of bounds

UNDER_SANITIZER = """
import sys
from pathlib import Path
import numpy as np
from tests.support.cuda_emulator.raw_module import Emulator, RawModule

path, *options = sys.argv[1:]
module = RawModule(
    code=Path(path).read_text(), options=options, emulator=Emulator(sanitize=True)
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
        ("BEYOND_LOCAL_MEMORY", "stack-buffer-overflow"),
    ],
)
def test_out_of_bounds_accesses_are_reported(bug: str, report: str) -> None:
    options = [f"-DBUG_{bug}=1"] if bug else []
    result = run_under_sanitizer(UNDER_SANITIZER, str(FILE), *options)
    assert ("done" in result.stdout) == (not bug), result.stderr
    assert report in result.stderr

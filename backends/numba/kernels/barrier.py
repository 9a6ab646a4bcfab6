"""A barrier for threads that run the same compiled function.

Compiled code cannot call the barriers of Python, and submitting new tasks for every step would take
longer than the step. Each thread therefore runs all steps of a chunk. The threads synchronize with
a shared counter: each adds 1 and waits until the counter has the expected value.
"""

import os
from typing import Any

from llvmlite import ir
from numba import types

from backends.numba.kernels.compilation import entry, intrinsic, kernel

# With this value of the counter, threads pass all barriers without waiting.
BARRIER_OPEN = 1 << 62
# A wait usually takes less than a microsecond. A longer one means that another program occupies the
# core of another thread, which may then continue on this core.
MAX_SPINS_BEFORE_YIELD = 4000

YIELD_FUNCTION = "SwitchToThread" if os.name == "nt" else "sched_yield"

_yield_core = types.ExternalFunction(YIELD_FUNCTION, types.int32())


@intrinsic
def atomic_add_one(typing: Any, counter: Any) -> Any:
    """Add 1 to counter[0], int64, atomically; return the value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        one = ir.Constant(data.type.pointee, 1)
        return builder.atomic_rmw("add", data, one, "seq_cst")

    return types.int64(counter), generate


@intrinsic
def atomic_read(typing: Any, counter: Any) -> Any:
    """Return counter[0] atomically.

    What other threads have written before their `atomic_add_one` is visible.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "seq_cst", align=8)

    return types.int64(counter), generate


@kernel
def barrier_wait(counter: Any, arrivals: int) -> None:
    """Add 1 to `counter`, int64 (1,), and wait until it is at least `arrivals`."""
    atomic_add_one(counter)
    wait_for(counter, arrivals)


@kernel
def wait_for(counter: Any, value: int) -> None:
    """Wait until `counter`, int64 (1,), is at least `value`."""
    spins = 0
    while atomic_read(counter) < value:
        spins += 1
        if spins > MAX_SPINS_BEFORE_YIELD:
            _yield_core()


@entry
def pass_barriers(counter: Any, first: int, count: int) -> None:
    """Pass `count` barriers of two threads, after `first` barriers with the same counter."""
    for barrier in range(first, first + count):
        barrier_wait(counter, 2 * (barrier + 1))

"""A meeting point for threads that run the same compiled function side by side.

Threads of a pool cannot wait for one another inside compiled code, and handing work to them anew
for every step costs more than the step. So each runs the whole epoch, and they meet here: a thread
adds one to a counter, and waits until all have.
"""

import os
from typing import Any

from llvmlite import ir
from numba import types

from backends.numba.kernels.compilation import instructions, kernel

# A wait is mostly shorter than a microsecond. One that is not means that another program has the
# other thread's core, and may need this one.
SPINS_BEFORE_YIELDING = 4000

_yield_core = types.ExternalFunction(
    "SwitchToThread" if os.name == "nt" else "sched_yield", types.int32()
)


@instructions
def _add_one(typing: Any, counter: Any) -> Any:
    """Add 1 to counter[0], as one step that no other thread can come between."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        one = ir.Constant(data.type.pointee, 1)
        builder.atomic_rmw("add", data, one, "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), generate


@instructions
def _read(typing: Any, counter: Any) -> Any:
    """Return counter[0] as other threads have left it, and see all that they wrote before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "seq_cst", align=8)

    return types.int64(counter), generate


@kernel
def meet(counter: Any, arrivals: int) -> None:
    """Wait until `counter`, int64 (1,), has been reached by so many arrivals, this one included."""
    _add_one(counter)
    spins = 0
    while _read(counter) < arrivals:
        spins += 1
        if spins > SPINS_BEFORE_YIELDING:
            _yield_core()

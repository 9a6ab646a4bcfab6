"""The barrier of the compiled epoch synchronizes memory, also on ARM."""

import re

import pytest
from llvmlite import binding as llvm
from numba import int64, njit, void

from backends.numba.kernels.barrier import YIELD_FUNCTION, barrier_wait

ARM = "aarch64-unknown-linux-gnu"


def arm_assembly(features: str) -> str:
    """Return the code of the barrier for 64-bit ARM."""

    @njit(void(int64[::1], int64))
    def wait(counter, arrivals):
        barrier_wait(counter, arrivals)

    (module_text,) = wait.inspect_llvm().values()
    # The rest of the module is the interface to Python, which LLVM has optimized for this machine.
    function = module_text[module_text.index("define ") :].partition("\n}\n")[0] + "\n}\n"
    function = re.sub(r", !\w+ !\d+| #\d+", "", function)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(ARM).create_target_machine(features=features)
    module = llvm.parse_assembly(f"declare i32 @{YIELD_FUNCTION}()\n{function}")
    module.triple = ARM
    module.data_layout = str(machine.target_data)
    return str(machine.emit_assembly(module))


@pytest.mark.parametrize(
    ("features", "add"),
    [
        pytest.param("+lse", r"\bldaddal\b", id="atomic instructions"),
        pytest.param("", r"\bldaxr\b.*\bstlxr\b", id="exclusive access"),
    ],
)
def test_barrier_orders_memory_on_arm(features: str, add: str) -> None:
    """x86 orders nearly all memory accesses without them; ARM needs these instructions."""
    code = arm_assembly(features)
    assert re.search(add, code, flags=re.DOTALL), "the addition neither acquires nor releases"
    assert re.search(r"\bldar\b", code), "the loop that waits does not acquire"

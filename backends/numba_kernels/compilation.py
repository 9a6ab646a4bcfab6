"""How the kernels are compiled.

Sums may be reordered, so that they vectorise, and products contracted to fused multiply-adds. The
flags that assume there is no NaN and no infinity stay off: a diverging loss must show. Functions
let go of Python's global lock, so that several threads run them.

Only entries can be called from Python: a reader of a file may begin with them.

Numba optimises each kernel by itself, and again within each that calls it. Large ones that are
called in one place are therefore inlined before; that saves a fifth of the time to compile.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit
from numba.extending import intrinsic

_compiled = partial(
    njit,
    cache=True,
    nogil=True,
    fastmath={"reassoc", "contract", "nsz"},
    error_model="numpy",
    no_cfunc_wrapper=True,
)

kernel = _compiled(no_cpython_wrapper=True)
inlined_kernel = _compiled(no_cpython_wrapper=True, inline="always")
entry = _compiled()


def instructions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that says itself which machine instructions it consists of.

    It takes the typing context, which its callers do not pass, and returns its signature with the
    function that writes the instructions.
    """
    made: Callable[..., Any] = intrinsic(function)
    return made

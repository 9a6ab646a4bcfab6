"""How the kernels are compiled.

Sums may be reordered, so that they vectorise, and products contracted to fused multiply-adds. The
flags that assume there is no NaN and no infinity stay off: a diverging loss must show. Functions
let go of Python's global lock, so that several threads run them.

Only entries can be called from Python: a reader of a file may begin with them.

Numba optimises each kernel by itself, and again within each that calls it. Large ones that are
called in one place are therefore inlined before; that saves a fifth of the time to compile.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.extending import intrinsic

# Says, beside the compiled code, what sources it was made of.
STAMP = "mnist_accel-kernels.sha256"


_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
}


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    made: Any = njit(**_OPTIONS, **options)(function)
    if hasattr(made, "stats"):  # NUMBA_DISABLE_JIT leaves the function as it is
        forget_other_sources(made.stats.cache_path)
    return made


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that others call."""
    return _compiled(function, no_cpython_wrapper=True)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of each that calls it."""
    return _compiled(function, no_cpython_wrapper=True, inline="always")


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls."""
    return _compiled(function)


@cache
def forget_other_sources(folder: str) -> None:
    """Remove compiled code that was made of other sources than those that are here.

    Numba looks at the time stamp of the one file that a function stands in; but kernels contain
    what they call from other files.

    Args:
        folder: where Numba keeps the compiled code of this package.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    stamp = Path(folder) / STAMP
    made_of = stamp.read_text(encoding="ascii") if stamp.exists() else ""
    if made_of == digest.hexdigest():
        return
    modules = {source.stem for source in Path(__file__).parent.glob("*.py")}
    for index in Path(folder).glob("*.nbi"):
        if index.name.partition(".")[0] in modules:
            index.unlink(missing_ok=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest.hexdigest(), encoding="ascii")


def instructions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that says itself which machine instructions it consists of.

    It takes the typing context, which its callers do not pass, and returns its signature with the
    function that writes the instructions.
    """
    made: Callable[..., Any] = intrinsic(function)
    return made

"""Decorators that compile the kernels, and the check that cached code is up to date.

The compiler may reorder sums, so that they vectorize, and contract products and sums to fused
multiply-adds. It may not assume that NaN and infinity never occur: a diverging loss must show.
Kernels release the global interpreter lock, so that several threads run them at once.

Only functions with the decorator `entry` can be called from Python.

Numba optimizes each kernel alone and again inside every caller. Large kernels with one caller are
therefore inlined first (`inlined_kernel`), which saves a fifth of the compile time.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import extending, njit, types

from backends.numba.kernels.disk_cache import NoCache, TolerantCache, report_unusable

SOURCES = Path(__file__).parent
# File next to the compiled code with the hash of the sources that the code was made from.
STAMP = "mnist_accel-kernels.sha256"

_ARITHMETIC: Any = {
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}
_OPTIONS: dict[str, Any] = {**_ARITHMETIC, "nogil": True, "no_cfunc_wrapper": True}


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    made: Any = njit(**_OPTIONS, **options)(function)
    try:
        made._cache = TolerantCache(function)
        delete_stale_code(made._cache.cache_path)
    except (OSError, RuntimeError) as error:  # there is no folder that can be written
        report_unusable(getattr(numba.config, "CACHE_DIR", "") or SOURCES, error)
        made._cache = NoCache(function)
    return made


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that other compiled functions call."""
    return _compiled(function, no_cpython_wrapper=True)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of each compiled function that calls it."""
    return _compiled(function, no_cpython_wrapper=True, inline="always")


def image_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that other compiled functions call, for programs with image stages only.

    Its first argument is a `stages.Plan`. For a program of linear layers, the call is empty, and
    the program compiles in half the time.
    """

    def selected(plan: Any, *arguments: Any) -> None:
        """Do nothing. Compiled code calls what `select` returns for the type of the plan."""

    @extending.overload(selected, jit_options=_ARITHMETIC, strict=False)
    def select(plan: Any, *arguments: Any) -> Callable[..., Any]:
        has_images = dict(zip(plan.fields, plan.types, strict=True))["has_images"]
        return selected if has_images == types.none else function

    return selected


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls."""
    return _compiled(function)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that compiled code can call, and that emits its own LLVM instructions.

    `function` takes Numba's typing context, which callers do not pass, and the types of the
    arguments. It returns the signature and the function that emits the instructions.
    """
    made: Callable[..., Any] = extending.intrinsic(function)
    return made


@cache
def delete_stale_code(folder: str) -> None:
    """Delete compiled code in `folder` that was made from other sources than the present ones.

    Numba compares the time stamp of the file that defines a function. Kernels also contain code
    from the files of the functions that they call, so here a change in any file of this package,
    including its sub-packages, makes all compiled code stale.

    Args:
        folder: folder in which Numba keeps the compiled code of one package folder.
    """
    digest, stamp = _source_digest(), Path(folder) / STAMP
    if stamp.exists() and stamp.read_bytes() == digest.encode():
        return
    modules = {source.stem for source in SOURCES.rglob("*.py")}
    for index in Path(folder).glob("*.nbi"):
        if index.name.partition(".")[0] in modules:
            index.unlink(missing_ok=True)
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_bytes(digest.encode())
    except OSError as error:
        report_unusable(folder, error)


@cache
def _source_digest() -> str:
    """Return a hash of the names and contents of all files in this package."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.relative_to(SOURCES).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()

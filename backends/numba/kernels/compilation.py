"""Decorators that compile the kernels, and the check that cached code is up to date.

The compiler may reorder sums, so that they vectorize, and contract products and sums to fused
multiply-adds. It may not assume that NaN and infinity never occur: a diverging loss must show.
Kernels release the global interpreter lock, so that several threads run them at once.

Each function has one of five decorators:

    entry               Python calls it
    allocating_entry    the same, for a function that creates arrays or computes with whole arrays
    stage_kernel        compiled code calls it through its address, which Python puts in a table
    kernel              compiled code calls it directly, and it is compiled as a part of each caller
    array_kernel        the same, for a function that returns an array

The first three have machine code of their own, and are kept in the cache on disk. A network needs
few of the stage kernels, and Python compiles only these (see `linkage`).

Numba counts references to arrays, which would be a tenth of the compile time. Only the functions
that create or return arrays need the counts. All others use arrays of their callers, which keep
them alive.
"""

import gc
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numba.core.cgutils
from numba import extending

from backends.numba.kernels.disk_cache import NoCache, TolerantCache, report_unusable
from backends.numba.kernels.libraries import (
    AllocatingCompiler,
    PartCompiler,
    WholeCompiler,
)

_numba: Any = numba  # without annotations
cgutils: Any = numba.core.cgutils
types = _numba.types

SOURCES = Path(__file__).parent
# File next to the compiled code with the hash of the sources that the code was made from.
STAMP = "mnist_accel-kernels.sha256"

_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
    "no_cfunc_wrapper": True,
}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of each compiled function that calls it."""
    return _part(function, _nrt=False)


def array_kernel(function: Callable[..., Any]) -> Any:
    """Compile a `kernel` that returns an array, which Numba allows only with reference counts."""
    return _part(function, _nrt=True)


def stage_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that compiled code calls through its address, with `call`."""
    return _cached(function, WholeCompiler, _nrt=False, no_cpython_wrapper=True)


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls."""
    return _cached(function, WholeCompiler, _nrt=False)


def allocating_entry(function: Callable[..., Any]) -> Any:
    """Compile an `entry` that creates arrays, or computes with whole arrays."""
    return _cached(function, AllocatingCompiler, _nrt=True)


def _part(function: Callable[..., Any], **options: Any) -> Any:
    compiled: Any = _numba.njit(
        **_OPTIONS, **options, no_cpython_wrapper=True, pipeline_class=PartCompiler
    )
    return compiled(function)


def _cached(function: Callable[..., Any], compiler: Any, **options: Any) -> Any:
    made: Any = _numba.njit(**_OPTIONS, **options, pipeline_class=compiler)(function)
    try:
        made._cache = TolerantCache(function)
        delete_stale_code(made._cache.cache_path)
    except (OSError, RuntimeError) as error:  # there is no folder that can be written
        report_unusable(getattr(_numba.config, "CACHE_DIR", "") or SOURCES, error)
        made._cache = NoCache(function)
    return made


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that compiled code can call, and that emits its own LLVM instructions.

    `function` takes Numba's typing context, which callers do not pass, and the types of the
    arguments. It returns the signature and the function that emits the instructions.
    """
    made: Callable[..., Any] = extending.intrinsic(function)
    return made


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    """Switch off Python's garbage collector, which makes compiling slower."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@intrinsic
def call(typing: Any, address: Any, *arguments: Any) -> Any:
    """Call the stage kernel at an address. It must not raise exceptions."""
    kinds = tuple(_parameter_type(kind) for kind in arguments)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        convention = context.call_conv
        function = builder.inttoptr(
            values[0], convention.get_function_type(types.none, kinds).as_pointer()
        )
        given = cgutils.unpack_tuple(builder, values[1])
        convention.call_function(builder, function, types.none, kinds, given)
        return context.get_dummy_value()

    return types.none(types.intp, types.StarArgTuple(kinds)), generate


class StageKernel(NamedTuple):
    """A stage kernel for arguments of certain types.

    Attributes:
        function: the stage kernel.
        kinds: types of its parameters.
    """

    function: Any
    kinds: tuple[Any, ...]

    def address(self) -> int:
        """Return the address; compile the kernel, or load it from the cache, if necessary."""
        compiled = self.function.overloads.get(self.kinds)
        if compiled is None:  # `compile` would also find it, but slowly
            self.function.compile(self.kinds)
            compiled = self.function.overloads[self.kinds]
        address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        return address

    def is_missing(self) -> bool:
        """Return whether neither this process nor the cache on disk has the compiled kernel."""
        if self.kinds in self.function.overloads:
            return False
        missing: bool = self.function._cache.is_missing(self.kinds, self.function.targetctx)
        return missing


def for_arguments(function: Any, *arguments: Any) -> StageKernel:
    """Return a stage kernel for arguments: for each parameter a value of its type, or the type."""
    return StageKernel(
        function,
        tuple(
            _parameter_type(value if isinstance(value, types.Type) else _numba.typeof(value))
            for value in arguments
        ),
    )


def _parameter_type(kind: Any) -> Any:
    """Return the type of a parameter for an argument: one type for all widths of numbers."""
    kind = types.unliteral(kind)
    if isinstance(kind, (types.Integer, types.Boolean)):
        return types.intp
    if isinstance(kind, types.Float):
        return types.float64
    return kind


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

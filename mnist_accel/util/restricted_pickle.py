"""An unpickler for untrusted files: it accepts dicts, strings, numbers, sequences and arrays.

A pickle is a program for an interpreter. The program could do harm in three ways, and this module
prevents each:

- Names: a pickle can call any importable function. `find_class` looks names up in the table
  `_ALLOWED` and rejects all others before anything is called. The table maps names of NumPy to
  functions of this module, so NumPy never processes array or dtype states from the file.
- Instructions: codes of the extension registry refer to objects without `find_class`, and a large
  memo index makes the interpreter allocate as many slots. `_scan` rejects both before execution.
- Structure: the result could contain cycles, deep nesting, sets or other objects. `_plain` walks
  the result, rejects these, and rebuilds it from plain values.

Memory stays within a small multiple of the file size, because no array is larger than its bytes.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.errors import DataError

# A dict of arrays needs about 40 instructions per array, so the limit allows over 200 arrays.
_MAX_INSTRUCTIONS = 10_000
_MAX_DEPTH = 32

_NUMERIC = re.compile(r"[<>|=]?[biufc]\d{1,2}")


def load_pickle(data: bytes, *, name: str) -> Any:
    """Return the content of the pickle `data` if it consists of plain values.

    Plain values are None, bool, int, float, str, NumPy arrays of a boolean, integer, real or
    complex dtype, and lists, tuples and dicts of plain values. Arrays are returned read-only, NumPy
    scalars as Python numbers, and byte strings (the strings of Python 2) as str, decoded as
    Latin-1. A 0-d object array at the top level, in which `numpy.save` stores a dict, is replaced
    by its content. Protocols 0 to 5 are supported, except for out-of-band buffers.

    Args:
        data: the whole pickle.
        name: name of the file in error messages.

    Raises:
        DataError: the pickle is corrupt, or contains anything else.
    """
    try:
        _scan(data)
        return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load(), [], {})
    except _RejectedError as error:
        raise DataError(f"{name} is rejected: {_printable(error)}") from error
    except Exception as error:  # a hostile pickle can make the interpreter raise any error
        reason = _printable(error) or type(error).__name__
        raise DataError(f"{name} is not a well-formed pickle: {reason}") from error


class _RejectedError(Exception):
    """The pickle contains something that is not allowed; the message names it."""


def _rejected(what: str) -> _RejectedError:
    return _RejectedError(f"it contains {what}, expected only dicts, strings, numbers and arrays")


def _printable(error: Exception) -> str:
    """Return a message as one short line, without control characters from the file."""
    text = str(error)[:200]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _scan(data: bytes) -> None:
    """Reject instructions that could harm the interpreter itself."""
    stop = 0
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data), start=1):
        stop = position or 0
        if count > _MAX_INSTRUCTIONS:
            raise _RejectedError(
                f"it contains more than {_MAX_INSTRUCTIONS} pickle instructions; store numbers in "
                "NumPy arrays"
            )
        if opcode.name.startswith("EXT"):
            raise _rejected(f"code {argument} of the pickle extension registry")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > _MAX_INSTRUCTIONS:
            raise _rejected(f"memo index {argument}")
    if stop + 1 != len(data):
        raise _rejected(f"{len(data) - stop - 1} bytes after its end")


class _Callable:
    """Represents an allowed name. The pickle cannot change it.

    Without this `__setstate__`, the instruction BUILD would set attributes.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise _rejected("a change of a function")


class _DType:
    """Represents a dtype while the pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: "np.dtype[Any]") -> None:
        self.dtype = dtype

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Set the byte order from NumPy's state (version, byte order, …)."""
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise _rejected(f"a dtype of byte order {order!r}")
        self.dtype = np.dtype(order + self.dtype.str[1:])


class _Array:
    """Represents an array or a NumPy scalar while the pickle is read."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the value from NumPy's state (version, shape, dtype, Fortran order or not, data)."""
        _, shape, dtype, fortran, raw = state
        if _dtype_of(dtype).hasobject:
            if shape != () or type(raw) is not list or len(raw) != 1:
                raise _rejected(f"an array of Python objects of shape {shape}")
            self.value = _Boxed(raw)
        else:
            self.value = _array(raw, dtype, shape, order="F" if fortran else "C")


class _Boxed:
    """The content of a 0-d object array: a list with one object."""

    __slots__ = ("content",)

    def __init__(self, content: list[object]) -> None:
        self.content = content


def _dtype_of(dtype: object) -> "np.dtype[Any]":
    if not isinstance(dtype, _DType):
        raise _rejected(f"an array whose dtype is {type(dtype).__name__}")
    return dtype.dtype


def _array(raw: object, dtype: object, shape: tuple[int, ...], *, order: str) -> NDArray[Any]:
    """Return a read-only array with the bytes `raw`."""
    numeric = _dtype_of(dtype)
    if not isinstance(raw, (bytes, bytearray)) or numeric.hasobject:
        raise _rejected(f"an array of dtype {numeric} made from {type(raw).__name__}")
    if math.prod(shape) * numeric.itemsize != len(raw):
        raise _rejected(f"an array of shape {shape} and dtype {numeric} in {len(raw)} bytes")
    flat = np.frombuffer(bytes(raw), dtype=numeric)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _make_dtype(name: object, *_copy_and_align: object) -> _DType:
    text = _text(name)
    if text in ("O", "O8"):
        return _DType(np.dtype(object))
    if not _NUMERIC.fullmatch(text):
        raise _rejected(f"the dtype {text!r}")
    return _DType(np.dtype(text))


def _make_empty_array(*_subtype_shape_dtype: object) -> _Array:
    return _Array(None)


def _make_array(
    raw: object, dtype: object, shape: tuple[int, ...], order: str, axes: Any = None
) -> _Array:
    """Replace NumPy's `_frombuffer`. Order "K" means C order followed by a transposition."""
    array = _array(raw, dtype, shape, order=order)
    return _Array(array.transpose(axes) if order == "K" and axes is not None else array)


def _make_scalar(dtype: object, raw: object) -> _Array:
    return _Array(_array(raw, dtype, (), order="C").item())


def _encode(text: str, encoding: str) -> bytes:
    """Replace `codecs.encode`, with which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise _rejected(f"text to be encoded as {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _ndarray(*_args: object) -> None:
    raise _rejected("a call of numpy.ndarray")


# Protocols 0 to 2 write bytes as a call of `_codecs.encode`, and empty bytes as a call of `bytes`
# with its module name in Python 2.
_ALLOWED: dict[str, Callable[..., object]] = {
    "numpy.dtype": _make_dtype,
    "numpy.ndarray": _ndarray,  # occurs only as an argument of _reconstruct
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
}
for _package in ("numpy.core", "numpy._core"):  # names before and since NumPy 2
    _ALLOWED[f"{_package}.multiarray._reconstruct"] = _make_empty_array
    _ALLOWED[f"{_package}.multiarray.scalar"] = _make_scalar
    _ALLOWED[f"{_package}.numeric._frombuffer"] = _make_array


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with a table of names instead of imports."""

    def find_class(self, module: str, name: str, /) -> _Callable:
        dotted = f"{module}.{name}"
        if dotted not in _ALLOWED:
            raise _rejected(dotted)
        return _Callable(_ALLOWED[dotted])


def _plain(value: Any, above: list[int], done: dict[int, Any]) -> Any:
    """Return `value` rebuilt from plain values.

    Args:
        value: a result of the interpreter.
        above: identities of the containers around it, outermost first.
        done: rebuilt containers by identity, so that shared containers are rebuilt once.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is bytes:
        return _text(value)
    if type(value) is _Array:
        if type(value.value) is _Boxed and not above:
            return _plain(value.value.content[0], [id(value)], done)
        if isinstance(value.value, np.ndarray) or type(value.value) in (bool, int, float, complex):
            return value.value
        raise _rejected("an array of Python objects, or one with no data")
    if type(value) not in (dict, list, tuple):
        raise _rejected(_type_name(value))
    if id(value) in done:
        return done[id(value)]
    if id(value) in above:
        raise _rejected(f"a {type(value).__name__} that contains itself")
    if len(above) >= _MAX_DEPTH:
        raise _rejected(f"more than {_MAX_DEPTH} levels of nesting")
    inside = [*above, id(value)]
    rebuilt: Any
    if type(value) is dict:
        rebuilt = {_key(k): _plain(v, inside, done) for k, v in value.items()}
    else:
        rebuilt = type(value)(_plain(item, inside, done) for item in value)
    done[id(value)] = rebuilt
    return rebuilt


def _key(key: object) -> Any:
    if type(key) not in (bool, int, float, str, bytes):
        raise _rejected(f"{_type_name(key)} as the key of a dict")
    return _text(key) if type(key) is bytes else key


def _type_name(value: object) -> str:
    if isinstance(value, (_Callable, _DType, _Array, _Boxed)):
        return "a function or a dtype by itself"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _text(value: object) -> str:
    """Return text that was pickled as str by Python 3 or as bytes by Python 2."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise _rejected(f"{_type_name(value)} where text is expected")

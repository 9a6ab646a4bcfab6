"""The only unpickler of this project: it admits dicts, strings, numbers, sequences and arrays.

A pickle is a program. Its interpreter can do harm in three ways, and each is closed here:

- by name: `find_class` looks names up in the table `_ADMITTED` and refuses all others, before
  anything is called. What the names stand for are functions of this module, not NumPy's own: NumPy
  never sees the state of an array or of a dtype that a stranger wrote.
- by instruction: codes of the extension registry name objects without `find_class`, and a memo
  index makes the interpreter allocate that many slots. `_scan` refuses both before it runs.
- by structure: cycles, deep nesting, sets and other objects are refused by `_plain`, which walks
  the result and rebuilds it from plain values.

Memory stays within a small multiple of the file's size, since no array is larger than its bytes.
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

# A dict of arrays takes some forty instructions an array; this admits two hundred and more.
_MAX_INSTRUCTIONS = 10_000
_MAX_DEPTH = 32

_NUMERIC = re.compile(r"[<>|=]?[biufc]\d{1,2}")


def load_pickle(data: bytes, *, name: str) -> Any:
    """Return what the pickle `data` holds, if that is plain.

    Plain are None, bool, int, float, str, and lists, tuples and dicts of plain values, and
    read-only NumPy arrays of a boolean, integer, real or complex dtype. NumPy scalars come back as
    Python numbers, and the strings of Python 2, which are bytes, as str (Latin-1). A 0-d object
    array at the top, which is how `numpy.save` stores a dict, comes back as its content.
    Protocols 0 to 5 are read; buffers out of band are not.

    Args:
        data: the whole pickle.
        name: what error messages call the file.

    Raises:
        DataError: the pickle is corrupt, or holds or names anything else.
    """
    try:
        _scan(data)
        return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load(), [], {})
    except _RefusedError as error:
        raise DataError(f"{name} is refused: {_shown(error)}") from error
    except Exception as error:  # a hostile stream can make the interpreter raise anything
        reason = _shown(error) or type(error).__name__
        raise DataError(f"{name} is not a well-formed pickle: {reason}") from error


class _RefusedError(Exception):
    """The pickle holds what is not admitted; the message names it."""


def _refuse(what: str) -> _RefusedError:
    return _RefusedError(f"it holds {what}, expected only dicts, strings, numbers and arrays")


def _shown(error: Exception) -> str:
    """Return a message in one short line: parts of it are a stranger's, escape codes and all."""
    text = str(error)[:200]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _scan(data: bytes) -> None:
    """Refuse a stream that could harm the interpreter itself."""
    stop = 0
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data), start=1):
        stop = position or 0
        if count > _MAX_INSTRUCTIONS:
            raise _RefusedError(
                f"it holds more than {_MAX_INSTRUCTIONS} pickle instructions; store numbers in "
                "NumPy arrays"
            )
        if opcode.name.startswith("EXT"):
            raise _refuse(f"code {argument} of the pickle extension registry")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > _MAX_INSTRUCTIONS:
            raise _refuse(f"memo index {argument}")
    if stop + 1 != len(data):
        raise _refuse(f"{len(data) - stop - 1} bytes after its end")


class _Callable:
    """Stands in for one admitted name, and cannot be altered by the pickle.

    Without a `__setstate__` that refuses, the instruction BUILD would set attributes.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise _refuse("a change to a function")


class _DType:
    """Stands in for a dtype while the pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: "np.dtype[Any]") -> None:
        self.dtype = dtype

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Take the byte order from NumPy's state (version, byte order, …)."""
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise _refuse(f"a dtype of byte order {order!r}")
        self.dtype = np.dtype(order + self.dtype.str[1:])


class _Array:
    """Stands in for an array or a NumPy scalar while the pickle is read."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take NumPy's state (version, shape, dtype, whether in Fortran order, data)."""
        _, shape, dtype, fortran, raw = state
        if _dtype_of(dtype).hasobject:
            if shape != () or type(raw) is not list or len(raw) != 1:
                raise _refuse(f"an array of Python objects of shape {shape}")
            self.value = _Boxed(raw)
        else:
            self.value = _array(raw, dtype, shape, order="F" if fortran else "C")


class _Boxed:
    """The list of one object that a 0-d object array carries."""

    __slots__ = ("content",)

    def __init__(self, content: list[object]) -> None:
        self.content = content


def _dtype_of(dtype: object) -> "np.dtype[Any]":
    if not isinstance(dtype, _DType):
        raise _refuse(f"an array whose dtype is {type(dtype).__name__}")
    return dtype.dtype


def _array(raw: object, dtype: object, shape: tuple[int, ...], *, order: str) -> NDArray[Any]:
    """Return a read-only array over the bytes `raw`."""
    numeric = _dtype_of(dtype)
    if not isinstance(raw, (bytes, bytearray)) or numeric.hasobject:
        raise _refuse(f"an array of dtype {numeric} made from {type(raw).__name__}")
    if math.prod(shape) * numeric.itemsize != len(raw):
        raise _refuse(f"an array of shape {shape} and dtype {numeric} in {len(raw)} bytes")
    flat = np.frombuffer(bytes(raw), dtype=numeric)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _make_dtype(name: object, *_copy_and_align: object) -> _DType:
    text = _text(name)
    if text in ("O", "O8"):
        return _DType(np.dtype(object))
    if not _NUMERIC.fullmatch(text):
        raise _refuse(f"the dtype {text!r}")
    return _DType(np.dtype(text))


def _make_empty_array(*_subtype_shape_dtype: object) -> _Array:
    return _Array(None)


def _make_array(
    raw: object, dtype: object, shape: tuple[int, ...], order: str, axes: Any = None
) -> _Array:
    """Stand in for NumPy's `_frombuffer`, where order "K" means C order, then a transposition."""
    array = _array(raw, dtype, shape, order=order)
    return _Array(array.transpose(axes) if order == "K" and axes is not None else array)


def _make_scalar(dtype: object, raw: object) -> _Array:
    return _Array(_array(raw, dtype, (), order="C").item())


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for `codecs.encode`, which protocols 0 to 2 need to write bytes."""
    if encoding != "latin1":
        raise _refuse(f"text to be encoded as {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _ndarray(*_args: object) -> None:
    raise _refuse("a call of numpy.ndarray")


# Protocols 0 to 2 write bytes through `_codecs.encode`, or, where there are none, as a call of
# `bytes` under the name of its module in Python 2.
_ADMITTED: dict[str, Callable[..., object]] = {
    "numpy.dtype": _make_dtype,
    "numpy.ndarray": _ndarray,  # only ever an argument of _reconstruct
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
}
for _package in ("numpy.core", "numpy._core"):  # the name before NumPy 2 and since
    _ADMITTED[f"{_package}.multiarray._reconstruct"] = _make_empty_array
    _ADMITTED[f"{_package}.multiarray.scalar"] = _make_scalar
    _ADMITTED[f"{_package}.numeric._frombuffer"] = _make_array


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, with a table in place of its import."""

    def find_class(self, module: str, name: str, /) -> _Callable:
        dotted = f"{module}.{name}"
        if dotted not in _ADMITTED:
            raise _refuse(dotted)
        return _Callable(_ADMITTED[dotted])


def _plain(value: Any, above: list[int], done: dict[int, Any]) -> Any:
    """Return `value` rebuilt from plain values.

    Args:
        value: what the interpreter left.
        above: identities of the containers that hold it, outermost first.
        done: rebuilt containers by identity, so that what is shared is rebuilt once.
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
        raise _refuse("an array of Python objects, or one with no data")
    if type(value) not in (dict, list, tuple):
        raise _refuse(_described(value))
    if id(value) in done:
        return done[id(value)]
    if id(value) in above:
        raise _refuse(f"a {type(value).__name__} that contains itself")
    if len(above) >= _MAX_DEPTH:
        raise _refuse(f"more than {_MAX_DEPTH} levels of nesting")
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
        raise _refuse(f"{_described(key)} as the key of a dict")
    return _text(key) if type(key) is bytes else key


def _described(value: object) -> str:
    if isinstance(value, (_Callable, _DType, _Array, _Boxed)):
        return "a function or a dtype by itself"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _text(value: object) -> str:
    """Return text that Python 3 wrote as str and Python 2 as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise _refuse(f"{_described(value)} where text is expected")

"""The names that a pickle of weights may contain, with functions that take their place.

NumPy never processes states from the file: its constructors are replaced by functions of this
module, which check every argument. No array is larger than its bytes in the file.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import shown
from mnist_accel.util.npy import MAX_NDIM, MAX_SIDE
from mnist_accel.util.pickle_reader import rejected

_NUMERIC = re.compile(r"[<>|=]?[biufc]\d{1,2}")
_MAX_TEXT = 256  # characters of keys and of the names of dtypes
_MAX_SHOWN = 60  # characters of a shape in messages


@dataclass(frozen=True)
class Name:
    """An allowed name in a pickle.

    Attributes:
        dotted: the module and the name, joined by a dot.
        function: what a call of the name does; None if it may only be an argument.
    """

    dotted: str
    function: Callable[..., object] | None = None

    def call(self, arguments: object) -> object:
        """Return the result of the function.

        Raises:
            RejectedError: it may not be called, or not with these arguments.
        """
        if self.function is None or type(arguments) is not tuple:
            raise rejected(f"a call of {self.dotted}")
        try:
            return self.function(*arguments)
        except TypeError:  # a wrong number of arguments
            raise rejected(f"a call of {self.dotted} with other arguments") from None


class PickledDType:
    """A dtype while the pickle is read.

    Attributes:
        dtype: the dtype.
    """

    def __init__(self, dtype: "np.dtype[Any]") -> None:
        self.dtype = dtype

    def set_state(self, state: object) -> None:
        """Set the byte order from NumPy's state (version, byte order, …)."""
        if type(state) is not tuple or not 2 <= len(state) <= 10:
            raise rejected("a dtype whose state is not a short tuple")
        order = text(state[1])
        if order not in ("<", ">", "|", "="):
            raise rejected(f"a dtype of byte order {shown(order)}")
        self.dtype = np.dtype(order + self.dtype.str[1:])


class PickledArray:
    """An array or a NumPy scalar while the pickle is read.

    Attributes:
        value: a numeric array, a Python number, an `ObjectCell`, or None before the state is set.
    """

    def __init__(self, value: object = None) -> None:
        self.value = value

    def set_state(self, state: object) -> None:
        """Set the value from NumPy's state (version, shape, dtype, Fortran order or not, data)."""
        if type(state) is not tuple or len(state) != 5:
            raise rejected("an array whose state is not a tuple of 5 items")
        _, shape, dtype, fortran, raw = state
        if _numpy_dtype(dtype).hasobject:
            if _checked_shape(shape) != () or type(raw) is not list or len(raw) != 1:
                raise rejected(_description(_checked_shape(shape), np.dtype(object)))
            self.value = ObjectCell(raw[0])
        elif type(fortran) not in (bool, int):
            raise rejected("an array whose order is neither C nor Fortran")
        else:
            self.value = _array(raw, dtype, shape, order="F" if fortran else "C")


@dataclass(frozen=True)
class ObjectCell:
    """The content of a 0-d object array, in which `numpy.save` stores a dict."""

    content: object


def text(value: object) -> str:
    """Return short text that was pickled as str by Python 3 or as bytes by Python 2."""
    if type(value) is bytes and len(value) <= _MAX_TEXT:
        return value.decode("latin1")
    if type(value) is str and len(value) <= _MAX_TEXT:
        return value
    raise rejected(f"{type_name(value)} where short text is expected")


def type_name(value: object) -> str:
    """Return a description of the type of a value from the file."""
    if isinstance(value, Name):
        return f"the name {value.dotted} by itself"
    if isinstance(value, (PickledDType, PickledArray, ObjectCell)):
        return "a dtype or an array of Python objects"
    return f"a value of type {type(value).__name__}"


def _numpy_dtype(dtype: object) -> "np.dtype[Any]":
    if not isinstance(dtype, PickledDType):
        raise rejected(f"an array whose dtype is {type_name(dtype)}")
    return dtype.dtype


def _checked_shape(shape: object) -> tuple[int, ...]:
    """Return a shape after checking that arithmetic with it is safe."""
    if (
        type(shape) is not tuple
        or len(shape) > MAX_NDIM
        or not all(type(side) is int and 0 <= side < MAX_SIDE for side in shape)
    ):
        raise rejected(f"an array whose shape is not a tuple of at most {MAX_NDIM} small integers")
    return shape


def _description(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> str:
    of_what = "Python objects" if dtype.hasobject else str(dtype)
    return f"an array of {of_what} of shape {str(shape)[:_MAX_SHOWN]}"


def _array(raw: object, dtype: object, shape: object, *, order: str) -> NDArray[Any]:
    """Return a read-only array with the bytes `raw`."""
    numeric, sides = _numpy_dtype(dtype), _checked_shape(shape)
    if type(raw) not in (bytes, bytearray) or numeric.hasobject:
        raise rejected(f"an array of dtype {numeric} made from {type_name(raw)}")
    assert isinstance(raw, (bytes, bytearray))
    if math.prod(sides) * numeric.itemsize != len(raw):
        raise rejected(f"{_description(sides, numeric)} in {len(raw)} bytes")
    try:
        array = np.frombuffer(raw, dtype=numeric).reshape(sides, order="F" if order == "F" else "C")
    except ValueError:  # an empty array whose other sides are too large for NumPy
        raise rejected(_description(sides, numeric)) from None
    array.flags.writeable = False
    return array


def _make_dtype(name: object, *_copy_and_align: object) -> PickledDType:
    spelling = text(name)
    if spelling in ("O", "O8"):
        return PickledDType(np.dtype(object))
    if _NUMERIC.fullmatch(spelling):
        try:
            return PickledDType(np.dtype(spelling))
        except TypeError:  # such as f7
            pass
    raise rejected(f"the dtype {shown(spelling)}")


def _make_empty_array(_subtype: object, _shape: object, _dtype: object) -> PickledArray:
    return PickledArray()


def _make_array(
    raw: object, dtype: object, shape: object, order: object, axes: object = None
) -> PickledArray:
    """Replace NumPy's `_frombuffer`. Order "K" means C order followed by a transposition."""
    letter = text(order)
    array = _array(raw, dtype, shape, order=letter)
    if letter != "K" or axes is None:
        return PickledArray(array)
    permutation = _checked_shape(axes)
    if sorted(permutation) != list(range(array.ndim)):
        raise rejected("an array with an invalid order of axes")
    return PickledArray(array.transpose(permutation))


def _make_scalar(dtype: object, raw: object) -> PickledArray:
    value = _array(raw, dtype, (), order="C").item()
    if type(value) not in (bool, int, float, complex):
        raise rejected(f"a number of dtype {_numpy_dtype(dtype)}")
    return PickledArray(value)


def _encode(string: object, encoding: object) -> bytes:
    """Replace `codecs.encode`, with which protocols 0 to 2 write bytes."""
    if type(string) is not str or text(encoding) != "latin1":
        raise rejected("text in an encoding other than Latin-1")
    try:
        return string.encode("latin1")
    except UnicodeEncodeError:
        raise rejected("bytes with values above 255") from None


def _empty_bytes() -> bytes:
    return b""


def _ordered_dict(items: object = ()) -> dict[str, object]:
    """Return the dict in place of an OrderedDict; Python 2 passes a list of [key, value]."""
    if type(items) not in (list, tuple) or not isinstance(items, (list, tuple)):
        raise rejected("an OrderedDict whose items are not a list")
    if not all(type(item) in (list, tuple) and len(item) == 2 for item in items):
        raise rejected("an OrderedDict with an item that is not a pair")
    return {key(item[0]): item[1] for item in items}


def _default_dict(factory: object = None) -> dict[str, object]:
    """Return the dict in place of a defaultdict, without its factory."""
    if factory is not None and not isinstance(factory, Name):
        raise rejected("a defaultdict whose factory is not a class")
    return {}


def key(value: object) -> str:
    """Return a key of a dict, which must be short text.

    Raises:
        RejectedError: it is something else. In particular, no tuple is hashed, because that
            takes exponential time if tuples are nested.
    """
    if type(value) not in (str, bytes):
        raise rejected(f"{type_name(value)} as the key of a dict")
    return text(value)


def _names() -> dict[str, Name]:
    functions: dict[str, Callable[..., object] | None] = {
        "numpy.dtype": _make_dtype,
        "numpy.ndarray": None,
        "_codecs.encode": _encode,
        "collections.OrderedDict": _ordered_dict,
        "collections.defaultdict": _default_dict,
    }
    for package in ("numpy.core", "numpy._core"):  # names before and since NumPy 2
        functions[f"{package}.multiarray._reconstruct"] = _make_empty_array
        functions[f"{package}.multiarray.scalar"] = _make_scalar
        functions[f"{package}.numeric._frombuffer"] = _make_array
    for module in ("builtins", "__builtin__"):  # names in Python 3 and 2
        functions[f"{module}.bytes"] = _empty_bytes
        for factory in ("dict", "list", "int", "float", "str", "tuple"):
            functions[f"{module}.{factory}"] = None
    return {dotted: Name(dotted, function) for dotted, function in functions.items()}


NAMES = _names()

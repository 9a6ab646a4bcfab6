"""The base of the operation groups, and checks of arguments."""

from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

from backends.checks import as_integer
from backends.names import shown

# An array of the backend's library. The array API standard defines no common base class, so no more
# precise type exists.
Array: TypeAlias = Any
Ties: TypeAlias = Literal["first", "all"]

_MAX_DISTANCE = 2**31 - 1  # positions computed from it fit 64-bit integers
MAX_POOL_SIZE = 7  # 49 mask bits; 8 × 8 bits do not fit a signed 64-bit integer

_indices_are_trusted: ContextVar[bool] = ContextVar("indices_are_trusted", default=False)


class Operations:
    """Base of the operation groups.

    Attributes:
        xp: the backend's namespace of the Python array API standard.
    """

    xp: Any


def has_dtype(array: Array, *names: str) -> bool:
    """Return whether an argument is an array with one of these dtypes."""
    return _name(getattr(array, "dtype", "")) in names


@cache  # NumPy takes a microsecond to write the name of a dtype
def _name(dtype: Any) -> str:
    """Return the name of a dtype."""
    return str(dtype)


def has_kernel_dtype(array: Array) -> bool:
    """Return whether an array is float32 or float64; compiled kernels exist for no other dtype."""
    return has_dtype(array, "float32", "float64")


def require_array(name: str, value: Array) -> None:
    """Check that an argument is an array; no backend converts lists.

    Raises:
        TypeError: it is something else.
    """
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise _not_an_array(name, value)


def _not_an_array(name: str, value: object) -> TypeError:
    return TypeError(f"{name} must be an array from backend.asarray, got {shown(value)}")


def require_floating(xp: Any, name: str, array: Array) -> None:
    """Check that the elements of an array are floating-point numbers.

    Raises:
        TypeError: it is no array, or its elements are others.
    """
    require_array(name, array)
    if not xp.isdtype(array.dtype, "real floating"):
        raise TypeError(f"{name} must be floating-point numbers, got {array.dtype}")


def require_same_dtype(operation: str, **arrays: Array | None) -> None:
    """Check that arrays have one dtype; libraries would promote different dtypes silently.

    Raises:
        TypeError: one of `arrays` (those that are not None) is no array, or their dtypes differ.
    """
    try:  # asking every argument first would take a noticeable part of a small step
        different = len({array.dtype for array in arrays.values() if array is not None}) > 1
    except AttributeError:
        for name, array in arrays.items():
            if array is not None:
                require_array(name, array)
        raise
    if different:
        present = {name: array for name, array in arrays.items() if array is not None}
        found = ", ".join(f"{name} {array.dtype}" for name, array in present.items())
        raise TypeError(f"{operation} needs arrays of one dtype, got {found}; convert one of them")


def require_axes(name: str, array: Array, *axes: str) -> None:
    """Check the number of axes of an array.

    Raises:
        TypeError: `array` is no array.
        ValueError: it does not have one axis for each name in `axes`.
    """
    try:
        count = len(array.shape)
    except AttributeError:
        raise _not_an_array(name, array) from None
    if count != len(axes):
        described = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
        raise ValueError(f"{name} must have shape {described}, got {tuple(array.shape)}")


class TrustedIndices:
    """The context in which labels and row numbers are not checked.

    A backend enters this in `computation`. The callers of `computation` have checked labels and row
    numbers on the host; on a GPU, a check would make the host wait for the device at every training
    step.
    """

    def __enter__(self) -> None:
        self._token = _indices_are_trusted.set(True)

    def __exit__(self, *_: object) -> None:
        _indices_are_trusted.reset(self._token)


def require_indices(xp: Any, name: str, array: Array, count: int) -> None:
    """Check that an array holds integers of at least 0 and less than `count`.

    Not checked within `TrustedIndices`.

    Raises:
        TypeError: the elements are not integers.
        ValueError: an element is out of range.
    """
    if _indices_are_trusted.get():
        return
    require_array(name, array)
    if not xp.isdtype(array.dtype, "integral"):
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if not array.shape[0]:
        return
    smallest, largest = int(xp.min(array)), int(xp.max(array))
    if smallest < 0 or largest >= count:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"{name} must be 0 to {count - 1}, got {wrong}")


def require_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
    """Check the shape of an array; a compiled kernel would read beyond the end of a smaller one.

    Raises:
        TypeError: `array` is no array.
        ValueError: it does not have the shape `expected`.
    """
    try:
        shape = tuple(array.shape)
    except AttributeError:
        raise _not_an_array(name, array) from None
    if shape != expected:
        raise ValueError(f"{name} must have shape {expected}, got {shape}")


def output_sizes(
    sizes: tuple[int, int], kernel_size: tuple[int, int], *, stride: int, padding: int = 0
) -> tuple[int, int]:
    """Return the numbers of patches (OH, OW) in images of `sizes`; incomplete ones are dropped.

    Raises:
        TypeError: the patch is not a pair of integers, or the stride or padding is no integer.
        ValueError: one of them is out of range, or no patch fits.
    """
    try:
        kh, kw = kernel_size
    except (TypeError, ValueError):
        raise TypeError(f"kernel_size must be a pair (kh, kw), got {kernel_size!r}") from None
    for name, pixels, smallest in (("stride", stride, 1), ("padding", padding, 0)):
        if as_integer(name, pixels, at_least=smallest) > _MAX_DISTANCE:
            raise ValueError(f"{name} must be at most {_MAX_DISTANCE}, got {pixels}")
    height, width = sizes
    for size, patch in ((height, kh), (width, kw)):
        as_integer("patch size", patch, at_least=1)
        if size + 2 * padding < patch:
            raise ValueError(
                f"a patch of {patch} does not fit an input of {size} with padding {padding}"
            )
    return (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1


def tap_slices(
    kernel_size: tuple[int, int], output: tuple[int, int], stride: int
) -> Iterator[tuple[slice, slice]]:
    """Yield, for each position in a patch, the slices that select this position in all patches.

    Args:
        kernel_size: (kh, kw) of a patch; its positions are in row-major order.
        output: numbers of patches (OH, OW).
        stride: distance between patches, in pixels.
    """
    (kh, kw), (oh, ow) = kernel_size, output
    for i in range(kh):
        for j in range(kw):
            rows = slice(i, i + stride * (oh - 1) + 1, stride)
            columns = slice(j, j + stride * (ow - 1) + 1, stride)
            yield rows, columns


def check_max_pooling(size: int, ties: str = "first") -> None:
    """Check the size and the tie rule of a max-pooling.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: `size` is not in 1…7, or `ties` is not a known rule.
    """
    if as_integer("pooling size", size, at_least=1) > MAX_POOL_SIZE:
        raise ValueError(f"max-pooling size must be 1 to {MAX_POOL_SIZE}, got {size}")
    if str(ties) not in get_args(Ties):
        raise ValueError(f"ties must be one of {get_args(Ties)}, got {ties!r}")

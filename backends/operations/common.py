"""The base of the operation groups, and checks of arguments."""

from typing import Any, Literal, TypeAlias, get_args

# An array of the backend's library. The array API standard defines no common base class, so no more
# precise type exists.
Array: TypeAlias = Any
Ties: TypeAlias = Literal["first", "all"]

MAX_POOL_SIZE = 7  # 49 mask bits; 8 × 8 bits do not fit a signed 64-bit integer


class Operations:
    """Base of the operation groups.

    Attributes:
        xp: the backend's namespace of the Python array API standard.
    """

    xp: Any


def require_same_dtype(operation: str, **arrays: Array | None) -> None:
    """Check that arrays have one dtype; others would be promoted silently.

    Raises:
        TypeError: two of `arrays` (those that are not None) have different dtypes.
    """
    dtypes = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{operation} needs arrays of one dtype, got {found}; convert one of them")


def require_shape(name: str, array: Array | None, expected: tuple[int, ...]) -> None:
    """Check the shape of an array; a compiled kernel would read beyond the end of a smaller one.

    Raises:
        ValueError: `array`, if it is not None, does not have the shape `expected`.
    """
    if array is not None and tuple(array.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(array.shape)}")


def output_size(size: int, window: int, *, stride: int, padding: int = 0) -> int:
    """Return the number of windows along one axis; an incomplete last one is dropped.

    Raises:
        ValueError: the window, the stride or the padding is out of range, or no window fits.
    """
    if window < 1:
        raise ValueError(f"window size must be at least 1, got {window}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    if padding < 0:
        raise ValueError(f"padding must be at least 0, got {padding}")
    if size + 2 * padding < window:
        raise ValueError(
            f"a window of {window} does not fit an input of {size} with padding {padding}"
        )
    return (size + 2 * padding - window) // stride + 1


def check_pooling(size: int, ties: str = "first") -> None:
    """Check the size and the tie rule of a pooling.

    Raises:
        ValueError: `size` is not in 1…7, or `ties` is not a known rule.
    """
    if not 1 <= size <= MAX_POOL_SIZE:
        raise ValueError(f"pooling size must be 1 to {MAX_POOL_SIZE}, got {size}")
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {get_args(Ties)}, got {ties!r}")

"""Environment variables of the Numba backend, and checks of their values."""

import os
import re

from backends.availability import Availability

MAX_THREADS = 1024  # a larger number is assumed to be a mistake
_THREADS_VARIABLE = "NUMBA_NUM_THREADS"
# Sets the width of vectors in bits; `kernels.vector_width` reads it.
WIDTH_VARIABLE = "MNIST_ACCEL_VECTOR_BITS"
WIDTHS = ("128", "256", "512")


def invalid_variable() -> Availability | None:
    """Return the reason and remedy if a variable has an invalid value, otherwise None."""
    checks = _invalid_threads(), _invalid_width()
    return next((found for found in checks if found is not None), None)


def _invalid_threads() -> Availability | None:
    """Check the number of threads.

    With an invalid value, Numba fails to import, or prints a traceback and ignores the value.
    """
    value = os.environ.get(_THREADS_VARIABLE)
    if value is None or (re.fullmatch("[1-9][0-9]{,3}", value) and int(value) <= MAX_THREADS):
        return None
    return Availability(
        ok=False,
        reason=f"the environment variable {_THREADS_VARIABLE} is {value[:20]!r}",
        remedy=f"set it to a number from 1 to {MAX_THREADS}, or remove it",
    )


def _invalid_width() -> Availability | None:
    """Check the width of vectors."""
    value = os.environ.get(WIDTH_VARIABLE)
    if value is None or value in WIDTHS:
        return None
    return Availability(
        ok=False,
        reason=f"the environment variable {WIDTH_VARIABLE} is {value[:20]!r}",
        remedy=f"set it to {', '.join(WIDTHS[:-1])} or {WIDTHS[-1]}, or remove it",
    )

"""The availability of the backend `numpy`."""

import numpy as np

from backends.availability import Availability


def availability() -> Availability:
    """Return that NumPy is available, because this package requires it."""
    return Availability(ok=True, reason=f"NumPy {np.__version__}")

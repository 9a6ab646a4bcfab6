"""Whether NumPy can run here."""

import numpy as np

from backends.availability import Availability


def availability() -> Availability:
    """Return that NumPy is available: this package depends on it."""
    return Availability(ok=True, reason=f"NumPy {np.__version__}")

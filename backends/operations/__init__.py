"""The operations of a backend, each composed of the Python array API standard alone.

One subject a file; `backends.base.Backend` inherits them all. A backend overrides the methods for
which it owns something faster, and falls back to these with `return super().op(...)`.
"""

from backends.operations.activations import Activations
from backends.operations.batches import Batches
from backends.operations.convolution import Convolution
from backends.operations.linear import Linear
from backends.operations.losses import Losses
from backends.operations.pooling import Pooling
from backends.operations.updates import Updates

__all__ = [
    "Activations",
    "Batches",
    "Convolution",
    "Linear",
    "Losses",
    "Pooling",
    "Updates",
]

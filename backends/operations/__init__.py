"""The operations of a backend, composed of the Python array API standard only.

`backends.base.Backend` inherits all of them. A backend overrides those that it can compute faster,
and returns `super().op(...)` for arguments that the faster form does not support.
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

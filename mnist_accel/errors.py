"""The errors that `mnist_accel` raises for what a user can mend.

Wrong arguments to a Python function are `ValueError` or `TypeError`, as everywhere in Python; the
classes here are for what lies outside the call: files, backends, numbers that ran away.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class MnistAccelError(Exception):
    """Base of the errors below; the message is one line that says what to do."""


class UsageError(MnistAccelError):
    """A command was called with arguments that make no sense together."""


class DataError(MnistAccelError):
    """A data set or a file is missing, corrupt or refused."""


class CheckpointError(DataError):
    """A checkpoint cannot be read, or cannot be written."""


class DivergedError(MnistAccelError):
    """The loss or a weight became NaN or infinite.

    Attributes:
        step: number of the update, counted from 1, in which it did.
        tensor: name of the first tensor of that update that holds a value that is not finite.
    """

    def __init__(self, message: str, *, step: int, tensor: str) -> None:
        super().__init__(message)
        self.step = step
        self.tensor = tensor


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn what a function says of its arguments into what a command says of its flags.

    Raises:
        UsageError: in place of a `ValueError` or `TypeError`.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error

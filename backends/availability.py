"""The result of the check whether a backend can run on this machine, and the error if it cannot."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run on this machine.

    Attributes:
        ok: True if the backend can run.
        reason: description of the device or library that was found; if `ok` is False, why the
            backend cannot run.
        remedy: command or action after which the backend can run; empty if `ok` is True.
    """

    ok: bool
    reason: str
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.ok


class BackendUnavailableError(RuntimeError):
    """The requested backend cannot run on this machine.

    Attributes:
        name: name of the backend.
        availability: result of the check, with the reason and the remedy.
    """

    def __init__(self, name: str, availability: Availability) -> None:
        super().__init__(
            f"backend {name!r} cannot run here: {availability.reason}; {availability.remedy}"
        )
        self.name = name
        self.availability = availability

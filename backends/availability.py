"""Whether a backend can run here, and what to do when it cannot."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run on this machine.

    Attributes:
        ok: True if a small computation gave the right result.
        reason: what was found; the cause if `ok` is False.
        remedy: the command or the step that fixes it; empty if `ok` is True.
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
        availability: the reason and the remedy.
    """

    def __init__(self, name: str, availability: Availability) -> None:
        super().__init__(
            f"backend {name!r} cannot run here: {availability.reason}; {availability.remedy}"
        )
        self.name = name
        self.availability = availability

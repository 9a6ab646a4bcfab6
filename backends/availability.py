"""Whether a backend can run here, and what to do when it cannot."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run on this machine.

    Attributes:
        ok: True when a small computation ran and gave the right answer.
        reason: what was found, in words; the cause when `ok` is False.
        remedy: the command or the step that mends it; empty when `ok` is True.
    """

    ok: bool
    reason: str
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.ok


class BackendUnavailableError(RuntimeError):
    """A backend was asked for that cannot run here.

    Attributes:
        name: the backend that was asked for.
        availability: the reason and the remedy.
    """

    def __init__(self, name: str, availability: Availability) -> None:
        super().__init__(
            f"backend {name!r} cannot run here: {availability.reason}; {availability.remedy}"
        )
        self.name = name
        self.availability = availability

"""The result of the check whether a backend can run on this machine, and the error if it cannot."""

import re
import shlex
import sys
from dataclasses import dataclass


def unset(*variables: str) -> str:
    """Return the command that removes environment variables, in bash or PowerShell."""
    if sys.platform == "win32":
        return f"Remove-Item {','.join(f'Env:{variable}' for variable in variables)}"
    return f"unset {' '.join(variables)}"


def pip(*arguments: str) -> str:
    """Return the command that runs pip for this Python, such as for "install", "torch".

    The words are quoted for bash, or on Windows for cmd and PowerShell.
    """
    command = (sys.executable or "python", "-m", "pip", *arguments)
    if sys.platform != "win32":
        return shlex.join(command)
    return " ".join(f'"{word}"' if re.search(r"[^\w./\\:~-]", word) else word for word in command)


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

"""The result of a check of the doctor."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from backends import unset
from mnist_accel.util.files import check_writable
from mnist_accel.util.text import count

Status: TypeAlias = Literal["ok", "WARN", "problem", "skipped"]

# Names of the findings that decide whether the program can be used at all.
BACKEND = "backend auto"
DATA = "data"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: "ok"; "WARN" if something optional is missing or slow; "problem"; or "skipped" if an
            earlier check failed.
        detail: what was found, as text.
        remedy: how to fix it, a command if possible; empty if there is nothing to fix.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def writable_finding(name: str, folder: Path, *, otherwise: Status, remedy: str) -> Finding:
    """Return whether a folder, or its nearest existing parent, can be written.

    `otherwise` and `remedy` are the status and the remedy if it cannot.
    """
    try:
        check_writable(folder)
    except OSError as error:
        reason = error.strerror or error
        return Finding(name, otherwise, f"{folder} is not writable ({reason})", remedy)
    return Finding(name, "ok", f"{folder} is writable")


def threads_finding(name: str, threads: int, detail: str, variables: tuple[str, ...]) -> Finding:
    """Compare the size of a thread pool with the number of CPU cores that it may use.

    `detail` describes the pool; `variables` are the environment variables that set its size.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{detail}: {count(threads, 'thread')} on {count(cores or 1, 'core')}"
    if threads == cores:
        return Finding(name, "ok", detail)
    found = [variable for variable in variables if variable in os.environ]
    if not found:
        return Finding(name, "ok", f"{detail}, the default of the library")
    values = " ".join(f"{variable}={os.environ[variable]}" for variable in found)
    return Finding(name, "WARN", f"{detail} ({values})", unset(*found))

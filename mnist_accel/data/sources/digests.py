"""Names, sizes and SHA-256 digests of the files of the published data sets.

A file from any source is accepted only if its decompressed bytes have the digest in this table.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from mnist_accel.errors import DataError

FILE_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class PublishedSet:
    """The digests of the four files of a published data set.

    Attributes:
        name: name of the data set, such as "mnist".
        files: size in bytes and SHA-256 of each decompressed file, by file name.
    """

    name: str
    files: Mapping[str, tuple[int, str]]


# The decompressed files of a published set by name. Only `verify` returns this type, so the type
# checker reports a source that returns files without verifying them.
VerifiedFiles = NewType("VerifiedFiles", dict[str, bytes])


def verify(published: PublishedSet, files: Mapping[str, bytes], *, origin: str) -> VerifiedFiles:
    """Return the files of a published data set, after comparing their digests.

    Args:
        published: the data set with the expected digests.
        files: decompressed bytes by file name.
        origin: where the files come from, for error messages.

    Raises:
        DataError: a digest differs.
    """
    for name, (size, expected) in published.files.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise DataError(
                f"{name} from {origin} is not the file of {published.name}: "
                f"found {len(files[name])} bytes with SHA-256 {found}, "
                f"expected {size} bytes with SHA-256 {expected}"
            )
    return VerifiedFiles({name: files[name] for name in published.files})


# Sizes in bytes, the same for both data sets.
_SIZES = (47040016, 60008, 7840016, 10008)


def _published(name: str, *digests: str) -> PublishedSet:
    return PublishedSet(name, dict(zip(FILE_NAMES, zip(_SIZES, digests, strict=True), strict=True)))


MNIST = _published(
    "mnist",
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)

FASHION_MNIST = _published(
    "fashion-mnist",
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)

PUBLISHED_SETS = {published.name: published for published in (MNIST, FASHION_MNIST)}
